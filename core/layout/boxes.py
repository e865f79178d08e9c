"""ComfyUI's own bounding boxes: read in every shape that its nodes produce.

The official value is a dictionary x, y, width, height in pixels with optional metadata; detectors and editors hand it
on alone, in lists, in lists of lists (one per frame), as JSON text, or as elements with a box on a 0..1000 grid. A
stack of layers has places too; see `layer_stack`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .layer_stack import is_layers, read_layers
from .masks import Box
from .region import CanvasError, LayoutError, describe
from .text import BYTE_ORDER_MARK

NAME_KEYS = ("text", "name", "label", "desc")  # where editors and detectors keep what a box is called
PALETTE_KEYS = ("palette", "color_palette")
GRID = 1000  # elements count from 0 to this along each side
SLACK = 0.5  # pixels by which a rounded box may leave the canvas


def read_bounding_boxes(value: object, width: int, height: int) -> list[dict[str, Any]]:
    """Read bounding boxes of any known shape into regions' keys.

    Args:
        value: a dictionary, a list, a list of lists with one frame, elements, layers, or JSON text of these.
        width: canvas, pixels.
        height: canvas, pixels.

    Returns:
        One dictionary per box in the given order: "box" in 0..1 and, where the box has them, "phrase", "order" (its
        z_index), "colour" (the first of its palette) and "mask" (layers only).

    Raises:
        LayoutError: not a bounding box, more than one frame, or a box outside the canvas.
    """
    if isinstance(value, str):
        try:
            value = value.removeprefix(BYTE_ORDER_MARK)
            value = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError) as error:
            raise LayoutError(f"The connected boxes are not valid JSON: {error}.") from None
    if is_layers(value):
        return read_layers(value, width, height)
    if isinstance(value, Mapping) and isinstance(value.get("boxes"), Sequence):
        value = value["boxes"]
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence):
        raise LayoutError(f"The connected boxes are {describe(value)}; expected boxes with x, y, width and height.")
    if value and all(isinstance(frame, Sequence) and not isinstance(frame, str) for frame in value):
        if len(value) > 1:
            raise LayoutError(f"The connected boxes belong to {len(value)} frames; expected those of one picture.")
        value = value[0]
    return [_read_one(box, width, height) for box in value]


def _read_one(box: object, width: int, height: int) -> dict[str, Any]:
    if not isinstance(box, Mapping):
        raise LayoutError(f"A connected box is {describe(box)}; expected x, y, width and height in pixels.")
    metadata = box.get("metadata") if isinstance(box.get("metadata"), Mapping) else {}
    names = [str(source[key]).strip() for source in (metadata, box) for key in NAME_KEYS if source.get(key)]
    palettes = [source[key] for source in (metadata, box) for key in PALETTE_KEYS if source.get(key)]
    read: dict[str, Any] = {"box": _corners(_content(box, metadata), width, height)}
    if names:
        read["phrase"] = names[0]
    if type(metadata.get("z_index")) is int:
        read["order"] = metadata["z_index"]
    if palettes and isinstance(palettes[0], list | tuple) and isinstance(palettes[0][0], str):
        read["colour"] = palettes[0][0]
    return read


def _content(box: Mapping[str, Any], metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The box around what a padded layer really shows, where its node says so."""
    rect = metadata.get("content_rect")
    is_rect = isinstance(rect, list | tuple) and len(rect) == 4 and all(type(side) in (int, float) for side in rect)
    if not is_rect or rect[2] <= 0 or rect[3] <= 0 or not all(type(box.get(key)) in (int, float) for key in "xy"):
        return box
    return {"x": box["x"] + rect[0], "y": box["y"] + rect[1], "width": rect[2], "height": rect[3]}


def _corners(box: Mapping[str, Any], width: int, height: int) -> Box:
    try:
        if "bbox" in box:
            y0, x0, y1, x1 = (float(value) / GRID for value in box["bbox"])
            x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
        else:
            x0, y0 = float(box["x"]) / width, float(box["y"]) / height
            x1, y1 = x0 + float(box["width"]) / width, y0 + float(box["height"]) / height
    except (KeyError, TypeError, ValueError, OverflowError):
        raise LayoutError(
            f"A connected box is {describe(dict(box))}; expected x, y, width and height in pixels."
        ) from None
    slack = (SLACK / width, SLACK / height)
    corners = tuple(_rounded(value, slack[i % 2]) for i, value in enumerate((x0, y0, x1, y1)))
    if not all(0 <= value <= 1 for value in corners):
        raise CanvasError(f"The connected box {describe(dict(box))} leaves the canvas of {width} x {height} pixels.")
    return corners


def _rounded(value: float, slack: float) -> float:
    """A coordinate that lies on the canvas up to rounding, on the canvas."""
    near = min(max(value, 0.0), 1.0)
    return near if math.isfinite(value) and abs(near - value) <= slack else value
