"""Draws attention maps over pictures: dark where a phrase does not look, bright where it does."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from ..drawing.plates import LINE, SMALLEST_SIDE, draw_plate, enlarged, mask_outline
from ..layout.masks import inside_of

LETTERS, MARGIN = 22, 6  # pixels of a picture whose shorter side is 512
DIMMED = 0.35  # of a picture's light, where a phrase does not look at all
OPAQUE = 0.75  # of the colour, where it looks most
# From nothing to the maximum, each lighter than the one before.
RAMP = ((0.10, 0.07, 0.30), (0.50, 0.10, 0.55), (0.90, 0.30, 0.30), (1.00, 0.65, 0.15), (1.00, 1.00, 0.60))


def draw_heat_map(image: Tensor, attention: Tensor, label: str, asked: Sequence[Tensor] = ()) -> Tensor:
    """Draw where a phrase looks on one picture.

    Args:
        image: (h w c), float in 0..1.
        attention: (h' w'), 0 or more; its maximum is drawn brightest.
        label: written in a corner.
        asked: masks (h'' w'') in 0..1 of the places where the phrase belongs, drawn as outlines.

    Returns:
        (h w 3) float32 on the CPU, enlarged by `drawing.enlarged`.
    """
    pixels = enlarged(image)
    size = tuple(pixels.shape[:2])
    heat = scaled_map(attention, *size)
    opacity = (OPAQUE * heat)[..., None]
    drawn = (1 - opacity) * pixels * (DIMMED + (1 - DIMMED) * heat[..., None]) + opacity * _colours(heat)
    scale = min(size) / SMALLEST_SIDE
    for mask in asked:
        inside = inside_of(F.interpolate(mask.detach().float().cpu()[None, None], size, mode="bilinear")[0, 0])
        drawn[mask_outline(inside, round(LINE * scale))] = 1.0

    canvas = Image.fromarray((drawn * 255).round().byte().numpy())
    draw_plate(ImageDraw.Draw(canvas), label, (0, 0), canvas.size, letters=LETTERS * scale, margin=MARGIN * scale)
    return torch.from_numpy(np.asarray(canvas, np.float32) / 255)


def scaled_map(attention: Tensor, height: int, width: int) -> Tensor:
    """Bring a map (h w) to another size and its maximum to 1: float32 (height width) on the CPU."""
    found = attention.detach().float().cpu()[None, None]
    found = F.interpolate(found, (height, width), mode="bilinear", align_corners=False)[0, 0].clamp(min=0)
    return found / found.amax().clamp(min=torch.finfo(torch.float32).tiny)


def _colours(heat: Tensor) -> Tensor:
    """(h w) in 0..1 -> (h w 3)."""
    ramp: Sequence[tuple[float, ...]] = RAMP
    place = heat.clamp(0, 1) * (len(ramp) - 1)
    below = place.long().clamp(max=len(ramp) - 2)
    colours = torch.tensor(ramp)
    share = (place - below)[..., None]
    return (1 - share) * colours[below] + share * colours[below + 1]
