"""Small layouts, pictures of things, and the node Spatial Latent on them."""

import comfy.patcher_extension
import torch
from stagecraft.core.inversion.comfy.reference_picture import GREY
from stagecraft.core.inversion.comfy.spatial_latent import ODE
from stagecraft.core.layout.reading import parse_layout
from stagecraft.nodes.inversion.spatial_latent import StageSpatialLatent

STEPS, SIZE = 4, 64
TEXT = "a dog: 0 0 0.5 0.5\na cat: 0.5 0.25 1 1"
RED, GREEN, BLUE = [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]


def a_layout(text=TEXT, background="on a green meadow"):
    return parse_layout(text, background=background, width=SIZE, height=SIZE)


def things(number=2, channels=3):
    """Pictures of things in one colour each, red then green, on white; with four channels cut out already."""
    masks = torch.zeros(number, 32, 40)
    masks[:, 6:26, 8:30] = 1
    colours = torch.eye(3)[[i % 3 for i in range(number)]].reshape(-1, 1, 1, 3)
    pictures = torch.where(masks[..., None] > 0, colours, torch.ones(3))
    return (torch.cat([pictures, masks[..., None]], -1) if channels == 4 else pictures), masks


def started(model, clip, vae, layout=None, **given):
    """The node's outputs: model, latent, noise, reference."""
    settings = {
        "start": ODE,
        "steps": STEPS,
        "scheduler": "normal",
        "method": "euler",
        "refinements": 0,
        "inversion_prompt": "{prompt}",
        "forward_noise_first_k": 0,
        "renormalise": False,
        "background": GREY,
        "object_prompt": "a photo of {phrase}",
        "draw_steps": 2,
        "draw_cfg": 2.0,
        "seed": 3,
        "batch_size": 1,
    }
    layout = a_layout() if layout is None else layout
    return StageSpatialLatent.execute(model, clip, vae=vae, layout=layout, **settings | given).args


def given_things(**more):
    images, masks = things()
    return {"images": images, "masks": masks} | more


def watched(model, noises):
    """The model, of which every run adds its noise to a list."""

    def keep(executor, noise, *args, **kwargs):
        noises.append(noise.clone())
        return executor(noise, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "test", keep)
    return model


def mean_colour(reference, box):
    x0, y0, x1, y1 = (round(value * SIZE) for value in box)
    return reference[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].mean((0, 1))
