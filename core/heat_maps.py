"""Draws attention maps over pictures: dark where a phrase does not look, bright where it does."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .masks import Box

SMALLEST_SIDE = 512  # pixels; smaller pictures are enlarged by a whole factor so that letters stay sharp
LETTERS, MARGIN, LINE = 22, 6, 3  # pixels of a picture whose shorter side is 512
DIMMED = 0.35  # of a picture's light, where a phrase does not look at all
OPAQUE = 0.75  # of the colour, where it looks most
# From nothing to the maximum, each lighter than the one before.
RAMP = ((0.10, 0.07, 0.30), (0.50, 0.10, 0.55), (0.90, 0.30, 0.30), (1.00, 0.65, 0.15), (1.00, 1.00, 0.60))


def draw_heat_map(image: Tensor, attention: Tensor, label: str, box: Box | None = None) -> Tensor:
    """Draw where a phrase looks on one picture.

    Args:
        image: (h w c), float in 0..1.
        attention: (h' w'), 0 or more; its maximum is drawn brightest.
        label: written in a corner.
        box: x0, y0, x1, y1 in 0..1, drawn as an outline.

    Returns:
        (h'' w'' 3) float32 on the CPU; h'' and w'' are h and w times the smallest whole number that makes the shorter
        side at least `SMALLEST_SIDE`.
    """
    height, width = image.shape[:2]
    factor = -(-SMALLEST_SIDE // min(height, width))
    size = (height * factor, width * factor)
    pixels = rearrange(image[..., :3].detach().float().cpu().clamp(0, 1), "h w c -> 1 c h w")
    pixels = rearrange(F.interpolate(pixels, size, mode="bilinear")[0], "c h w -> h w c")
    heat = scaled_map(attention, *size)
    opacity = (OPAQUE * heat)[..., None]
    drawn = (1 - opacity) * pixels * (DIMMED + (1 - DIMMED) * heat[..., None]) + opacity * _colours(heat)

    canvas = Image.fromarray((drawn * 255).round().byte().numpy())
    draw, scale = ImageDraw.Draw(canvas), min(size) / SMALLEST_SIDE
    if box is not None:
        x0, y0, x1, y1 = (share * side for share, side in zip(box, canvas.size * 2, strict=True))
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline="white", width=round(LINE * scale))
    font, margin = ImageFont.load_default(LETTERS * scale), MARGIN * scale
    left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
    draw.rectangle((0, 0, right - left + 2 * margin, bottom - top + 2 * margin), fill="black")
    draw.text((margin - left, margin - top), label, fill="white", font=font)
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
