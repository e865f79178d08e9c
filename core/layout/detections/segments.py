"""SEGS, as the Impact Pack's detectors and those of its kin give them, read as regions.

A value is ((height, width), segments). A segment has the attributes `cropped_mask`, (h w) in 0..1 or None, its place
`crop_region`, x0, y0, x1, y1 in pixels, and mostly `bbox` and `label`. It is known by these alone; no pack is imported.
"""

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from ..masks import is_empty, resample_by_area
from ..region import LARGEST_SIDE, MOST_MASK_PIXELS, MOST_REGIONS, LayoutError, describe
from .mask_batches import region_of

MOST_LETTERS = 200  # of a label that becomes a name
Place = tuple[int, int, int, int]
Segments = tuple[tuple[int, int], Sequence[object]]


def is_segments(value: object) -> TypeGuard[Segments]:
    """Whether a value is a picture's size and a list of segments."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    size, segments = value
    is_size = isinstance(size, list | tuple) and len(size) == 2 and all(_is_whole(side) for side in size)
    is_list = is_size and isinstance(segments, list | tuple)
    return is_list and all(hasattr(each, "crop_region") and hasattr(each, "cropped_mask") for each in segments)


def size_of_segments(value: Segments) -> tuple[int, int]:
    """Width and height in pixels of the picture that segments were found in.

    Raises:
        LayoutError: no picture's size.
    """
    height, width = (int(side) for side in value[0])
    if not all(0 < side <= LARGEST_SIDE for side in (height, width)) or height * width > MOST_MASK_PIXELS:
        raise LayoutError(
            f"The connected SEGS belong to a picture of {width} x {height} pixels; expected sides of 1 to "
            f"{LARGEST_SIDE} and at most {MOST_MASK_PIXELS} pixels. Detect in a smaller picture."
        )
    return width, height


def read_segments(value: Segments) -> list[dict[str, Any]]:
    """Read segments into regions' keys; larger ones lie behind smaller ones, and empty ones are left out.

    Args:
        value: the picture's size and its segments.

    Returns:
        One dictionary per segment in the given order: "box" in 0..1 or "mask" (h w), "order", and "phrase" where it has
        a label.

    Raises:
        LayoutError: a size or a segment that cannot be read, or more of them than a layout has regions.
    """
    width, height = size_of_segments(value)
    if len(value[1]) > MOST_REGIONS:
        raise LayoutError(
            f"{len(value[1])} segments are connected to boxes; at most {MOST_REGIONS} are possible. Raise the "
            "detector's threshold, or filter the SEGS."
        )
    regions, areas = [], []
    for number, segment in enumerate(value[1], 1):
        mask = _placed(segment, number, height, width)
        if mask is None:
            continue
        label = getattr(segment, "label", None)
        phrase = " ".join(label.split())[:MOST_LETTERS] if isinstance(label, str) else ""
        regions.append(region_of(mask) | ({"phrase": phrase} if phrase else {}))
        areas.append(float(mask.sum(dtype=torch.float64)))
    farthest_first = sorted(range(len(areas)), key=lambda place: -areas[place])
    for order, place in enumerate(farthest_first):
        regions[place]["order"] = order
    return regions


def _placed(segment: object, number: int, height: int, width: int) -> Tensor | None:
    """A segment's mask (height width) on its picture; None where nothing of it is there."""
    x0, y0, x1, y1 = _region(segment, number)
    size = (y1 - y0, x1 - x0)
    # A crop that is larger than the picture many times over would fill the memory, and none is.
    if size[0] * size[1] > MOST_MASK_PIXELS:
        raise LayoutError(f"Segment {number} has a crop of {size[1]} x {size[0]} pixels, of {width} x {height}.")
    cropped = _cropped(segment, number, size)
    placed = torch.zeros(height, width)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if left >= right or top >= bottom:
        return None
    placed[top:bottom, left:right] = cropped[top - y0 : bottom - y0, left - x0 : right - x0]
    return None if is_empty(placed) else placed


def _region(segment: object, number: int) -> Place:
    corners = _numbers(segment.crop_region)
    if corners is None or corners[0] >= corners[2] or corners[1] >= corners[3]:
        raise LayoutError(
            f"Segment {number} of the connected SEGS has the crop_region {describe(segment.crop_region)}; expected "
            "left, top, right and bottom in pixels."
        )
    return corners


def _cropped(segment: object, number: int, size: tuple[int, int]) -> Tensor:
    """The segment's own mask on its crop; one of a detector of boxes alone is its box."""
    found = segment.cropped_mask
    if found is None:
        return _boxed(segment, number, size)
    values = torch.as_tensor(np.asarray(found)) if not isinstance(found, Tensor) else found.detach().cpu()
    is_level = values.dtype == torch.uint8 and bool((values > 1).any())
    values = values.float() / (255 if is_level else 1)
    while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or 0 in values.shape:
        raise LayoutError(
            f"Segment {number} of the connected SEGS has a mask of the shape {tuple(values.shape)}; expected "
            "(height, width). SEGS of one picture are read, not those of a video."
        )
    if not torch.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise LayoutError(f"Segment {number} of the connected SEGS has a mask beyond 0 to 1; expected 1 inside.")
    return resample_by_area(values, *size)


def _boxed(segment: object, number: int, size: tuple[int, int]) -> Tensor:
    x0, y0, x1, y1 = _region(segment, number)
    corners = _numbers(getattr(segment, "bbox", None)) or (x0, y0, x1, y1)
    mask = torch.zeros(size)
    mask[max(corners[1] - y0, 0) : max(corners[3] - y0, 0), max(corners[0] - x0, 0) : max(corners[2] - x0, 0)] = 1
    return mask


def _numbers(values: object) -> Place | None:
    """Four numbers as whole pixels, or None."""
    try:
        corners = tuple(round(float(value)) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return corners if len(corners) == 4 else None


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
