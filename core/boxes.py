"""ComfyUI's own bounding boxes: read in every shape that its nodes produce, written in the official one.

The official value is a dictionary x, y, width, height in pixels with optional metadata; detectors and editors hand it
on alone, in lists, in lists of lists (one per frame), as JSON text, or as elements with a box on a 0..1000 grid.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .masks import Box
from .region import LayoutError, describe

if TYPE_CHECKING:
    from .layout import Layout

NAME_KEYS = ("text", "name", "label", "desc")  # where editors and detectors keep what a box is called
GRID = 1000  # elements count from 0 to this along each side
SLACK = 0.5  # pixels by which a rounded box may leave the canvas


def read_bounding_boxes(value: Any, width: int, height: int) -> list[dict[str, Any]]:  # noqa: ANN401 - see above
    """Read bounding boxes of any known shape into regions' keys.

    Args:
        value: a dictionary, a list, a list of lists with one frame, or JSON text of these.
        width: canvas, pixels.
        height: canvas, pixels.

    Returns:
        One dictionary per box in the given order: "box" in 0..1 and, where the box has a name, "phrase".

    Raises:
        LayoutError: not a bounding box, more than one frame, or a box outside the canvas.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise LayoutError(f"The connected boxes are not valid JSON: {error}.") from None
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


def _read_one(box: Any, width: int, height: int) -> dict[str, Any]:  # noqa: ANN401 - see the module
    if not isinstance(box, Mapping):
        raise LayoutError(f"A connected box is {describe(box)}; expected x, y, width and height in pixels.")
    metadata = box.get("metadata") if isinstance(box.get("metadata"), Mapping) else {}
    names = [str(source[key]).strip() for source in (metadata, box) for key in NAME_KEYS if source.get(key)]
    read = {"box": _corners(box, width, height)}
    return read | ({"phrase": names[0]} if names else {})


def _corners(box: Mapping[str, Any], width: int, height: int) -> Box:
    try:
        if "bbox" in box:
            y0, x0, y1, x1 = (float(value) / GRID for value in box["bbox"])
        else:
            x0, y0 = float(box["x"]) / width, float(box["y"]) / height
            x1, y1 = x0 + float(box["width"]) / width, y0 + float(box["height"]) / height
    except (KeyError, TypeError, ValueError):
        raise LayoutError(
            f"A connected box is {describe(dict(box))}; expected x, y, width and height in pixels."
        ) from None
    slack = (SLACK / width, SLACK / height)
    corners = tuple(_rounded(value, slack[i % 2]) for i, value in enumerate((x0, y0, x1, y1)))
    if not all(0 <= value <= 1 for value in corners):
        raise LayoutError(f"The connected box {describe(dict(box))} leaves the canvas of {width} x {height} pixels.")
    return corners


def _rounded(value: float, slack: float) -> float:
    """A coordinate that lies on the canvas up to rounding, on the canvas."""
    near = min(max(value, 0.0), 1.0)
    return near if math.isfinite(value) and abs(near - value) <= slack else value


def write_bounding_boxes(layout: "Layout") -> list[list[dict[str, Any]]]:
    """Give every region's box in ComfyUI's official shape, painter's order, one frame.

    Returns:
        One list of dictionaries x, y, width, height (whole pixels, at least one) with the phrase in the metadata. For
        a region with a mask it is the box around what the mask covers.
    """
    boxes = []
    for region, mask in zip(layout.sorted_regions(), layout.masks(layout.height, layout.width), strict=True):
        if region.mask is None:
            x0, y0, x1, y1 = region.box
            x0, x1, y0, y1 = x0 * layout.width, x1 * layout.width, y0 * layout.height, y1 * layout.height
        else:
            rows, columns = mask.amax(1).nonzero().flatten().tolist(), mask.amax(0).nonzero().flatten().tolist()
            x0, x1, y0, y1 = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
        left, top = min(round(x0), layout.width - 1), min(round(y0), layout.height - 1)
        boxes.append(
            {
                "x": left,
                "y": top,
                "width": max(round(x1) - left, 1),
                "height": max(round(y1) - top, 1),
                "metadata": {"text": region.phrase, "name": region.phrase},
            }
        )
    return [boxes]
