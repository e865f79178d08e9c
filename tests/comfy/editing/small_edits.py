"""Edits of one small picture by the small model, and what they are compared by."""

import comfy.sample
import torch
from stagecraft.core.editing.comfy.edit import Editing, edit_picture
from stagecraft.core.layout.region import Region

STEPS, CFG, T0 = 5, 2.0, 0.5
SIZE = 64  # pixels; 8 cells
DOG = Region("a dog", box=(0.25, 0.25, 0.75, 0.75), colour="red")


def picture(batch=1, height=SIZE, width=SIZE):
    return torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(5))


def corner(height=SIZE, width=SIZE):
    """A mask of the upper left quarter."""
    mask = torch.zeros(1, height, width)
    mask[:, : height // 2, : width // 2] = 1
    return mask


def edited(model, clip, vae, edits, prompts, image=None, **settings):
    """Model, prompts, latent and mask of an edit."""
    settings = {"t0": T0, "strength": 1.0, "background": "on a meadow", "edge": 8} | settings
    image = picture() if image is None else image
    editing = Editing(**settings)
    model, positive, negative, latent, mask = edit_picture(model, clip, vae, image, edits, *prompts, editing)
    return model, (positive, negative), latent, mask


def sample(model, prompts, latent, *, steps=STEPS, sampler="euler", seed=7, noise=None, **more):
    noise = comfy.sample.prepare_noise(latent, seed) if noise is None else noise
    return comfy.sample.sample(
        model, noise, steps, CFG, sampler, "normal", *prompts, latent, seed=seed, disable_pbar=True, **more
    )


def cells(mask):
    """Mean of every 8 x 8 pixels of a mask (1 h w), as (1 1 h w)."""
    return mask.reshape(1, 1, mask.shape[1] // 8, 8, mask.shape[2] // 8, 8).mean((3, 5))
