"""ComfyUI's own bounding boxes: read in every shape that its nodes produce.

The official value is a dictionary x, y, width, height in pixels with optional metadata; detectors and editors hand it
on alone, in lists, in lists of lists (one per frame), as JSON text, or as elements with a box on a 0..1000 grid. A
stack of layers has places too, see `layer_stack`, and so has what detectors find, see `detections`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .detections.corners import is_corners, plain_values, read_corners
from .detections.mask_batches import is_masks, read_masks, size_of_masks
from .detections.segments import is_segments, read_segments, size_of_segments
from .layer_stack import canvas_of, is_layers, read_layers
from .masks import Box, is_same_aspect
from .region import CanvasError, LayoutError, describe
from .text import BYTE_ORDER_MARK

NAME_KEYS = ("text", "name", "label", "desc")  # where editors and detectors keep what a box is called
PALETTE_KEYS = ("palette", "color_palette")
GRID = 1000  # elements count from 0 to this along each side
SLACK = 0.5  # pixels by which a rounded box may leave the canvas


def read_bounding_boxes(value: object, width: int, height: int) -> list[dict[str, Any]]:
    """Read bounding boxes of any known shape into regions' keys.

    Args:
        value: a dictionary, a list, a list of lists with one frame, elements, layers, or JSON text of these; a batch of
            masks, SEGS, or bare corners.
        width: canvas, pixels.
        height: canvas, pixels.

    Returns:
        One dictionary per box in the given order: "box" in 0..1 or "mask" or both, and, where the box has them,
        "phrase", "order" (its z_index) and "colour" (the first of its palette).

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
    if is_segments(value):
        return read_segments(value)
    if is_masks(value):
        return read_masks(value)
    labels: object = None
    if isinstance(value, Mapping) and isinstance(plain_values(value.get("boxes")), Sequence):
        value, labels = value["boxes"], value.get("labels")
    value = plain_values(value)
    if is_corners(value):
        value = [value]
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence):
        raise LayoutError(f"The connected boxes are {describe(value)}; expected boxes with x, y, width and height.")
    frames = [plain_values(frame) for frame in value]
    if frames and all(isinstance(each, Sequence) and not isinstance(each, str) for each in frames):
        if not is_corners(frames[0]):
            if len(frames) > 1:
                raise LayoutError(
                    f"The connected boxes belong to {len(frames)} frames; expected those of one picture. Detect in one "
                    "picture."
                )
            frames, labels = [plain_values(box) for box in frames[0]], _of_first_frame(labels)
    read = [_read_one(box, width, height) for box in frames]
    names = labels if isinstance(labels, Sequence) and len(labels) == len(read) else [None] * len(read)
    said = [{"phrase": name.strip()} if isinstance(name, str) and name.strip() else {} for name in names]
    return [name | box for name, box in zip(said, read, strict=True)]


def canvas_of_boxes(value: object, width: int, height: int) -> tuple[int, int] | None:
    """Width and height in pixels of the picture that connected boxes are for, where they say so themselves.

    Args:
        value: in any shape that `read_bounding_boxes` knows.
        width: canvas that masks of the same shape keep.
        height: the same.

    Raises:
        LayoutError: SEGS of no picture's size, or what is no batch of masks.
    """
    if is_layers(value):
        return canvas_of(value)
    found = size_of_segments(value) if is_segments(value) else size_of_masks(value) if is_masks(value) else None
    # A segmenter may work on another scale than the canvas; only the shape has to be the same.
    return (width, height) if found and is_same_aspect(*found[::-1], height, width) else found


def _of_first_frame(labels: object) -> object:
    is_frames = isinstance(labels, Sequence) and len(labels) == 1 and not isinstance(labels[0], str)
    return labels[0] if is_frames else labels


def _read_one(box: object, width: int, height: int) -> dict[str, Any]:
    if is_corners(box):
        return {"box": _on_canvas(read_corners(box, width, height), box, width, height)}
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
    return _on_canvas((x0, y0, x1, y1), dict(box), width, height)


def _on_canvas(corners: Box, box: object, width: int, height: int) -> Box:
    slack = (SLACK / width, SLACK / height)
    near = tuple(_rounded(value, slack[i % 2]) for i, value in enumerate(corners))
    if not all(0 <= value <= 1 for value in near):
        raise CanvasError(
            f"The connected box {describe(box)} leaves the canvas of {width} x {height} pixels. Give the canvas the "
            "size of the picture that it was found in; Layout Canvas takes that of its image where nothing is drawn."
        )
    return near


def _rounded(value: float, slack: float) -> float:
    """A coordinate that lies on the canvas up to rounding, on the canvas."""
    near = min(max(value, 0.0), 1.0)
    return near if math.isfinite(value) and abs(near - value) <= slack else value
