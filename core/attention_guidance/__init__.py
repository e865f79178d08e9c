"""Moving a sampler's state so that words attend to their places (SALI, arXiv 2401.16157, and its neighbours).

the loop x <- x - step                             descent.descend
gradient to step: b^2 g, (a^2 + b^2) g, b g/rms g  step.guidance_step
Chen et al. (arXiv 2304.03373): energy             energies.in_box_share
SALI (arXiv 2401.16157): energy + eta R            energies.sali
BoxDiff (arXiv 2307.10816) Eq. 2 to 6              energies.boxdiff
Attention Refocusing (arXiv 2306.05427): CAR       energies.cross_refocusing
Attention Refocusing: SAR                          energies.self_refocusing
published scales, schedules, stops                 published.ENERGIES
what a person chooses                              settings.Guidance
through steps that write over what is needed       overwritten.overwriting_allowed
a thing and its region on attention's grids        target.Target
what a run did                                     log.GuidanceLog
in any ComfyUI sampler                             comfy.guide.guide_attention
in a program's diffusers loop                      diffusers.guide_latents
"""
