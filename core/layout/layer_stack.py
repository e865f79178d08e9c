"""ComfyUI's own stacks of layers (LAYERS), read as regions; writing.py writes them.

A stack is {"version": 1, "canvas": (width, height), "layers": items}. An item has an image (b h w c), its place x, y,
w, h in pixels of the canvas, and may have a mask (1 is transparent), z_index, name, opacity, visible, flip_h, flip_v
and rotation (radians, clockwise about its middle). Equal z_index: the later lies nearer.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .masks import is_empty
from .region import LARGEST_SIDE, MOST_REGIONS, LayoutError, describe

FINEST = 2048  # pixels along the longer side of a mask that is made from a layer, and of a layer that is made
MOST = 1e9  # of any number of a layer, either side of 0; beyond it no picture is meant, and floats overflow


def is_layers(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value is a stack of layers."""
    return isinstance(value, Mapping) and isinstance(value.get("layers"), list | tuple)


def canvas_of(document: Mapping[str, Any]) -> tuple[int, int] | None:
    """Width and height of a stack of layers in pixels, where it says so."""
    canvas = document.get("canvas")
    is_pair = isinstance(canvas, list | tuple) and len(canvas) == 2
    return tuple(canvas) if is_pair and all(type(side) is int and side > 0 for side in canvas) else None


def read_layers(document: Mapping[str, Any], width: int, height: int) -> list[dict[str, Any]]:
    """Read the visible layers of a stack into regions' keys; what lies outside the canvas is cut off.

    Args:
        document: the stack.
        width: canvas in pixels where the stack does not say.
        height: the same.

    Returns:
        One dictionary per layer, farthest first: "box" in 0..1, "order", "phrase" where it has a name, and where it is
        partly transparent a "mask" (h w) of the canvas.

    Raises:
        LayoutError: another version, more layers than a layout has regions, or a layer that cannot be read.
    """
    if document.get("version", 1) != 1:
        raise LayoutError(f"The connected layers have version {describe(document['version'])}; expected 1.")
    canvas = canvas_of(document) or (width, height)
    if max(canvas) > LARGEST_SIDE:
        raise LayoutError(
            f"The connected layers have a canvas of {describe(canvas)} pixels; expected at most {LARGEST_SIDE} a side."
        )
    items = [item for item in document["layers"] if isinstance(item, Mapping) and item.get("visible", True)]
    frames = [len(item["image"]) if isinstance(item.get("image"), Tensor) else 1 for item in items]
    # Before the first mask is built: a short text can hold thousands of layers.
    if sum(frames) > MOST_REGIONS:
        raise LayoutError(f"{sum(frames)} connected layers are visible; at most {MOST_REGIONS} are possible.")
    regions = []
    stack = sorted(zip(items, frames, strict=True), key=lambda pair: int(layer_number(pair[0], "z_index", 0)))
    for item, count in stack:
        for frame in range(count):
            region = _read_layer(item, frame, canvas)
            if region is not None:
                regions.append(region | {"order": len(regions)})
    return regions


def layer_number(item: Mapping[str, Any], key: str, default: float) -> float:
    """A number of a layer's, or the default where it has none.

    Raises:
        LayoutError: something else than a number, or one beyond `MOST`.
    """
    value = item.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST:
        raise LayoutError(f'A connected layer has "{key}": {describe(value)}; expected a number of at most {MOST:g}.')
    return value


def _read_layer(item: Mapping[str, Any], frame: int, canvas: tuple[int, int]) -> dict[str, Any] | None:
    """A region's box, mask and phrase; None for a layer of which the canvas shows nothing."""
    image, x, y = item.get("image"), layer_number(item, "x", 0), layer_number(item, "y", 0)
    own = (image.shape[2], image.shape[1]) if isinstance(image, Tensor) else (0, 0)
    wide, high = (layer_number(item, key, 0) or side for key, side in zip("wh", own, strict=True))
    if wide <= 0 or high <= 0:
        return None
    turn = layer_number(item, "rotation", 0)
    middle = (x + wide / 2, y + high / 2)
    half_x = (abs(math.cos(turn)) * wide + abs(math.sin(turn)) * high) / 2
    half_y = (abs(math.sin(turn)) * wide + abs(math.cos(turn)) * high) / 2
    x0, x1 = ((middle[0] + side * half_x) / canvas[0] for side in (-1, 1))
    y0, y1 = ((middle[1] + side * half_y) / canvas[1] for side in (-1, 1))
    x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in (x0, y0, x1, y1))
    if x0 >= x1 or y0 >= y1:
        return None
    region: dict[str, Any] = {"box": (x0, y0, x1, y1)}
    opacity = min(max(layer_number(item, "opacity", 1.0), 0.0), 1.0)
    alpha = _alpha(item, frame)
    is_turned = not math.isclose(math.sin(2 * turn), 0, abs_tol=1e-6)
    if alpha is not None or opacity < 1 or is_turned:
        alpha = torch.ones(1, 1) if alpha is None else alpha
        region["mask"] = _placed(opacity * alpha, item, (wide, high), middle, turn, canvas)
        if is_empty(region["mask"]):
            return None
    name = item.get("name")
    return region | ({"phrase": name.strip()} if isinstance(name, str) and name.strip() else {})


def _alpha(item: Mapping[str, Any], frame: int) -> Tensor | None:
    """How opaque each pixel of a layer's picture is, (h w) in 0..1; None where it is opaque all over."""
    image, mask = item.get("image"), item.get("mask")
    alpha = image[frame, ..., 3] if isinstance(image, Tensor) and image.shape[-1] == 4 else None
    if isinstance(mask, Tensor) and (len(mask) == 1 or frame < len(mask)):
        opaque = 1 - mask[frame if len(mask) > 1 else 0].float()
        size = opaque.shape if alpha is None else alpha.shape
        opaque = F.interpolate(opaque[None, None], size=tuple(size), mode="bilinear")[0, 0]
        alpha = opaque if alpha is None else alpha * opaque
    return None if alpha is None or bool((alpha >= 1).all()) else alpha.float().cpu().clamp(0, 1)


def _placed(
    alpha: Tensor,
    item: Mapping[str, Any],
    size: tuple[float, float],
    middle: tuple[float, float],
    turn: float,
    canvas: tuple[int, int],
) -> Tensor:
    """A layer's opacity (h w) on the canvas: flipped, scaled, turned and put in its place, as far as it is seen there.

    The part beyond the canvas is never drawn, so a layer may be of any size.
    """
    scale = 1 / max(1, math.ceil(max(canvas) / FINEST))
    picture = Image.fromarray(alpha.numpy().astype(np.float32))
    if item.get("flip_h"):
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if item.get("flip_v"):
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    wanted = [side * scale for side in size]
    # Averaged down first: the transformation below takes only the nearest four pixels.
    fewer = tuple(min(own, max(1, round(side))) for own, side in zip(picture.size, wanted, strict=True))
    picture = picture.resize(fewer, Image.Resampling.BILINEAR)
    # From a place on the ground to a place in the picture: to the layer's middle, turned back, scaled back.
    cos, sin = math.cos(turn), math.sin(turn)
    rows = []
    for own, side, (along_x, along_y) in zip(fewer, wanted, ((cos, sin), (-sin, cos)), strict=True):
        start = own / 2 - (along_x * middle[0] + along_y * middle[1]) * scale * own / side
        rows += [along_x * own / side, along_y * own / side, start]
    ground = tuple(math.ceil(side * scale) for side in canvas)
    placed = picture.transform(ground, Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(placed, np.float32)).clamp(0, 1)
