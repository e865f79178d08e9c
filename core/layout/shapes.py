"""Masks written as shapes, so that a layout stays a short text: ellipses and polygons."""

import math
from typing import Any, TypeGuard

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .masks import is_empty, resample_by_area
from .region import LayoutError, describe

SHAPES = ("ellipse", "polygon", "polygons")
FINEST = 8  # samples along each side of a pixel; a hundredth of a pixel's area is seen
LARGEST_DRAWING = 4096  # pixels along a side; larger canvases are drawn with fewer samples


def is_shape(mask: object) -> TypeGuard[dict[str, Any]]:
    """Whether a mask in a layout's JSON is written as a shape."""
    return isinstance(mask, dict) and len(mask) == 1 and next(iter(mask)) in SHAPES


def draw_shape(shape: dict[str, Any], height: int, width: int, name: str) -> Tensor:
    """Draw a shape as a mask.

    Args:
        shape: {"ellipse": [x0, y0, x1, y1]}, the box that it fills, or {"polygon": [x, y, x, y, x, y, ...]}, its
            corners in order, or {"polygons": [[x, y, ...], ...]}, several that belong together; all in 0..1 of the
            canvas.
        height: rows of the mask.
        width: columns of the mask.
        name: how errors call what it belongs to.

    Returns:
        float32 (height width) in 0..1, the share of every pixel that the shape covers.

    Raises:
        LayoutError: other numbers than such a shape has.
    """
    ((kind, values),) = shape.items()
    parts = values if kind == "polygons" and isinstance(values, list) else [values]
    outlines = [_points("ellipse" if kind == "ellipse" else "polygon", part, name) for part in parts]
    finer = max(1, min(FINEST, LARGEST_DRAWING // max(height, width)))
    # Only the part of the canvas that they lie in: a small thing on a large canvas is drawn as fast as on a small one.
    rows, columns = (
        _window([point[axis] for points in outlines for point in points], side)
        for axis, side in ((1, height), (0, width))
    )
    part = ((columns.stop - columns.start) * finer, (rows.stop - rows.start) * finer)
    canvas = Image.new("L", part)
    draw = ImageDraw.Draw(canvas)
    for points in outlines:
        scaled = [((x * width - columns.start) * finer, (y * height - rows.start) * finer) for x, y in points]
        if kind == "ellipse":
            (x0, y0), (x1, y1) = scaled
            draw.ellipse((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), fill=1)
        else:
            # Pillow draws a pixel for every corner, so a side on the far edge of a pixel needs the one before.
            draw.polygon([(min(x, part[0] - 1), min(y, part[1] - 1)) for x, y in scaled], fill=1)
    mask = torch.zeros(height, width)
    drawn = torch.from_numpy(np.asarray(canvas, np.float32))
    mask[rows, columns] = resample_by_area(drawn, drawn.shape[0] // finer, drawn.shape[1] // finer)
    if is_empty(mask):
        raise LayoutError(f"{name} has the {kind} {describe(values)}, which has no area to speak of.")
    return mask


def _window(places: list[float], side: int) -> slice:
    """The pixels of one side of the canvas that places in 0..1 along it span, with one to spare."""
    first = max(0, min(math.floor(min(places, default=0) * side) - 1, side - 1))
    return slice(first, max(first + 1, min(side, math.ceil(max(places, default=0) * side) + 1)))


def _points(kind: str, values: object, name: str) -> list[tuple[float, float]]:
    wanted = "four numbers x0 y0 x1 y1" if kind == "ellipse" else "three or more corners x y x y x y"
    problem = f"{name} has the {kind} {describe(values)}; expected {wanted} in 0..1 of the canvas"
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise LayoutError(f"{problem}.")
    if len(values) % 2 or (len(values) != 4 if kind == "ellipse" else len(values) < 6):
        raise LayoutError(f"{problem}.")
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in values):
        raise LayoutError(f"{problem}, not pixels.")
    points = list(zip(values[::2], values[1::2], strict=True))
    if kind == "ellipse" and (points[0][0] >= points[1][0] or points[0][1] >= points[1][1]):
        raise LayoutError(f"{problem}, top left corner first.")
    return points
