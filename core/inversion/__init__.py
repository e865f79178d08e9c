"""Starts that know a layout: reference pictures and their DDIM inversion (SALI, arXiv 2401.16157).

DDIM (arXiv 2010.02502) Eq. 13 backwards         inversion.invert
noise levels from picture to noise               inversion.rising_sigmas
SALI: a reference from cut-out things            reference_picture.paste_things
SALI: textured background                        reference_picture.textured_grey
SALI: layouts to start latents                   comfy.spatial_latent.spatial_latent
invert with ComfyUI's models                     comfy.invert.invert_latent
the end of an inversion as a start               comfy.start.InvertedStart
first steps as plain noise (arXiv 2410.23530)    comfy.start.Inversion
"""
