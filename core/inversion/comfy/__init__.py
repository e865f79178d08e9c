"""Inversion with ComfyUI's models and samplers.

follow latents to rising noise      invert.invert_latent
to the first level of a schedule    start.invert_to_start
begin runs there                    start.start_runs
sample back                         start.reconstruct
samplers that cannot follow         samplers.require_deterministic
draw a reference picture            reference_picture.make_reference
cut a thing out of its picture      cut_out_things.cut_out
layouts to start latents            spatial_latent.spatial_latent
"""
