"""Draws a layout: boxes and masks in painter's order, each with its number and phrase. Readable at 256 pixels."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from ..drawing.pictures import colours_of
from ..drawing.plates import SMALLEST_SIDE, Colour, Rectangle, draw_plate, enlarging_factor, mask_outline, region_colour
from ..drawing.resizing import resized
from .layout import Layout
from .masks import inside_of

PAPER = 0.12  # grey of the empty canvas, dark so that the colours stand out
TINT = 0.45  # opacity of a region's visible part
LARGEST_SIDE = 2048  # pixels; more canvas than this is drawn smaller
SMALLEST_SCALE = 0.5  # of lines and letters, in a strip
LINE, LETTERS, MARGIN = 4, 22, 4  # pixels of a picture whose shorter side is 512


def draw_layout(layout: Layout, images: Tensor | None = None) -> Tensor:
    """Draw a layout on an empty canvas or on pictures.

    Args:
        layout: what to draw.
        images: (b h w c) float in 0..1 with the canvas' aspect ratio, or None for an empty canvas.

    Returns:
        (b h' w' 3) float32 in 0..1 on the CPU; h' and w' are the pictures' size (or `preview_size`) times the smallest
        whole number that makes the shorter side at least `plates.SMALLEST_SIDE` (less for a strip).
    """
    if images is None:
        images = torch.full((1, *preview_size(layout), 3), PAPER)
    factor = enlarging_factor(*images.shape[1:3])
    pixels = rearrange(colours_of(images).detach().cpu().clamp(0, 1), "b h w c -> b c h w")
    large = F.interpolate(pixels, scale_factor=factor, mode="bilinear") if factor > 1 else pixels
    large = rearrange(large, "b c h w -> b h w c")
    height, width = large.shape[1:3]
    own, uncovered, seen = layout.masks(height, width), torch.ones(height, width), []
    for mask in own.flip(0):
        seen.append(uncovered * mask)
        uncovered = uncovered * (1 - mask)
    for i, mask in enumerate(reversed(seen)):
        opacity = TINT * mask[..., None]
        large = (1 - opacity) * large + opacity * torch.tensor(region_colour(i)) / 255
    return torch.stack([_with_lines(picture, layout, own) for picture in large])


def preview_size(layout: Layout) -> tuple[int, int]:
    """Height and width of the drawing's ground: the canvas, divided by a whole number where it is very large."""
    coarser = math.ceil(max(layout.height, layout.width) / LARGEST_SIDE)
    return math.ceil(layout.height / coarser), math.ceil(layout.width / coarser)


def fit_picture(image: Tensor, height: int, width: int) -> Tensor:
    """Scale a picture into a rectangle without distorting it; what stays free is dark.

    Args:
        image: (b h w c) float in 0..1.
        height: pixels.
        width: pixels.

    Returns:
        (b height width 3) float32 on the CPU.
    """
    pixels = rearrange(colours_of(image).detach().cpu(), "b h w c -> b c h w")
    old_height, old_width = pixels.shape[-2:]
    factor = min(height / old_height, width / old_width)
    size = tuple(min(max(round(old * factor), 1), new) for old, new in ((old_height, height), (old_width, width)))
    scaled = pixels if size == pixels.shape[-2:] else resized(pixels, size)
    ground = torch.full((len(pixels), height, width, 3), PAPER)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    ground[:, top : top + size[0], left : left + size[1]] = rearrange(scaled, "b c h w -> b h w c")
    return ground


def fit_within(image: Tensor) -> Tensor:
    """Pictures (b h w c) made smaller where their longer side has more than `LARGEST_SIDE` pixels; (b h' w' 3)."""
    height, width = image.shape[1:3]
    factor = min(1.0, LARGEST_SIDE / max(height, width))
    return fit_picture(image, max(1, round(height * factor)), max(1, round(width * factor)))


def _with_lines(picture: Tensor, layout: Layout, own: Tensor) -> Tensor:
    """Outlines first, then the labels, so that no line crosses a letter."""
    canvas = Image.fromarray((picture * 255).round().byte().numpy())
    draw = ImageDraw.Draw(canvas)
    scale = max(min(canvas.size) / SMALLEST_SIDE, SMALLEST_SCALE)
    corners = []
    for i, (region, mask) in enumerate(zip(layout.sorted_regions(), inside_of(own), strict=True)):
        if region.mask is None:
            x0, y0, x1, y1 = (value * side for value, side in zip(region.box, canvas.size * 2, strict=True))
            corners.append((x0, y0))
            draw.rectangle(
                (x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=region_colour(i), width=round(LINE * scale)
            )
        else:
            outline = mask_outline(mask, round(LINE * scale))
            draw.bitmap((0, 0), Image.fromarray(outline.byte().mul(255).numpy()), fill=region_colour(i))
            rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
            corners.append((columns[0], rows[0]) if rows else (0, 0))
    taken: list[Rectangle] = []
    for i, (region, corner) in enumerate(zip(layout.sorted_regions(), corners, strict=True)):
        text, plate = " ".join([str(i + 1), *region.phrase.split()]), region_colour(i)
        taken.append(
            draw_plate(
                draw,
                text,
                corner,
                canvas.size,
                letters=LETTERS * scale,
                margin=MARGIN * scale,
                plate=plate,
                ink=_readable_on(plate),
                taken=taken,
            )
        )
    return torch.from_numpy(np.asarray(canvas, np.float32) / 255)


def _readable_on(plate: Colour) -> Colour:
    """White on dark plates, black on light ones."""
    dark = sum(channel * weight for channel, weight in zip(plate, (0.299, 0.587, 0.114), strict=True)) < 128
    return (255, 255, 255) if dark else (0, 0, 0)
