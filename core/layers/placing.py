"""Puts one layer on a canvas: flipped, scaled, turned, moved and faded, with straight colours in and out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..drawing.resizing import resized
from ..layout.layer_stack import layer_number

# Text2Layer (arXiv 2307.09781), section 3: the foreground is what the picture shows where the mask is above this.
FOREGROUND_FROM = 0.1
CLEAR = 1e-4  # opacity below which a resampled colour is not known; far below one step of 8 bits (1/255)


@dataclass(frozen=True)
class Place:
    """Where a layer's picture lies, with the names and meanings of ComfyUI's stacks of layers.

    Attributes:
        x: of its left edge in pixels of the canvas.
        y: of its upper edge.
        w: width in pixels of the canvas; 0 is the picture's own.
        h: height, the same.
        rotation: radians, clockwise about its middle.
        flip_h: left and right exchanged.
        flip_v: top and bottom exchanged.
        opacity: 0..1, times its own.
        z_index: higher lies nearer.
    """

    x: float = 0.0
    y: float = 0.0
    w: float = 0.0
    h: float = 0.0
    rotation: float = 0.0
    flip_h: bool = False
    flip_v: bool = False
    opacity: float = 1.0
    z_index: int = 0

    @classmethod
    def of_item(cls, item: Mapping[str, Any]) -> "Place":
        """Read it from an item of a stack of layers.

        Raises:
            LayoutError: something else than numbers.
        """
        x, y, w, h, rotation = (layer_number(item, key, 0.0) for key in ("x", "y", "w", "h", "rotation"))
        opacity = min(max(layer_number(item, "opacity", 1.0), 0.0), 1.0)
        flips = bool(item.get("flip_h")), bool(item.get("flip_v"))
        return cls(x, y, w, h, rotation, *flips, opacity, int(layer_number(item, "z_index", 0)))


def placed(rgba: Tensor, place: Place, height: int, width: int) -> Tensor:
    """Draw a layer's picture on an empty canvas.

    Whole pixels at the picture's own size are copied bit for bit. Everything else is resampled bilinearly, weighted by
    opacity, so that the colour of transparent pixels never shows at an edge; smaller sizes are averaged first.

    Args:
        rgba: (h w 4) in 0..1, straight colour.
        place: where it goes; the part beyond the canvas is never drawn, so it may be of any size.
        height: of the canvas.
        width: of the canvas.

    Returns:
        (height width 4) in 0..1, straight colour; 0 where the layer is not.
    """
    flips = [axis for axis, flip in ((0, place.flip_v), (1, place.flip_h)) if flip]
    rgba = rgba.flip(flips) if flips else rgba
    if place.opacity < 1:
        rgba = torch.cat([rgba[..., :3], rgba[..., 3:] * place.opacity], -1)
    own_height, own_width = rgba.shape[:2]
    high, wide = place.h or own_height, place.w or own_width
    if high < 0 or wide < 0:
        return rgba.new_zeros(height, width, 4)
    is_whole = (high, wide) == (own_height, own_width) and place.x == int(place.x) and place.y == int(place.y)
    if is_whole and place.rotation == 0:
        return _pasted(rgba, int(place.y), int(place.x), height, width)
    return _resampled(rgba, place, high, wide, height, width)


def _pasted(rgba: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    own_height, own_width = rgba.shape[:2]
    if (top, left, own_height, own_width) == (0, 0, height, width):
        return rgba
    canvas = rgba.new_zeros(height, width, 4)
    rows = slice(max(top, 0), min(top + own_height, height))
    columns = slice(max(left, 0), min(left + own_width, width))
    if rows.start < rows.stop and columns.start < columns.stop:
        part = rgba[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        canvas[rows, columns] = part
    return canvas


def _resampled(rgba: Tensor, place: Place, high: float, wide: float, height: int, width: int) -> Tensor:
    source = rearrange(torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1), "h w c -> 1 c h w")
    fewer = tuple(min(own, max(1, round(side))) for own, side in zip(rgba.shape[:2], (high, wide), strict=True))
    if fewer != tuple(rgba.shape[:2]):
        source = resized(source, fewer)
    # From a pixel's middle on the canvas to its place in the picture: turned back, then scaled back.
    rows = torch.arange(height, dtype=torch.float64, device=rgba.device)[:, None] + 0.5 - (place.y + high / 2)
    columns = torch.arange(width, dtype=torch.float64, device=rgba.device)[None] + 0.5 - (place.x + wide / 2)
    cos, sin = math.cos(place.rotation), math.sin(place.rotation)
    across, down = cos * columns + sin * rows, cos * rows - sin * columns
    grid = torch.stack([across * 2 / wide, down * 2 / high], -1)[None].to(source)
    found = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    # The share of a pixel that lies on the picture, exact where it is not turned.
    sides = ((wide, across), (high, down))
    shares = [(side / 2 + 0.5 - along.abs()).clamp(0, min(1.0, side)) for side, along in sides]
    alpha = (found[3] * (shares[0] * shares[1]).to(found)).clamp(0, 1)
    colour = (found[:3] / found[3].clamp(min=CLEAR)).clamp(0, 1)
    colour = torch.where((alpha > 0) & (found[3] > CLEAR), colour, 0.0)
    return rearrange(torch.cat([colour, alpha[None]]), "c h w -> h w c")


def keep_inside(foreground: Tensor, mask: Tensor) -> Tensor:
    """A foreground as Text2Layer's training has it (section 3): (b 3 h w), (b 1 h w) -> (b 3 h w).

    What lies outside is black. # reconstructed: the paper does not say what fills it.
    """
    return torch.where(mask > FOREGROUND_FROM, foreground, 0.0)  # whatever lies outside, NaN too
