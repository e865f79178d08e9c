"""Batches of masks, as SAM and other segmenters give them, read as regions.

A mask that is nothing but a rectangle becomes a box, which is easier to edit and covers the same. Soft ones stay soft.
"""

import math
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ..masks import is_empty, resample_by_area
from ..region import MOST_REGIONS, LayoutError

FINEST = 2048  # pixels along the longer side of a mask that is kept; as of layers


def is_masks(value: object) -> TypeGuard[Tensor]:
    """Whether a value is a mask or a batch of them, and not a table of corners."""
    return isinstance(value, Tensor) and value.ndim >= 2 and not (value.ndim == 2 and value.shape[-1] == 4)


def size_of_masks(masks: Tensor) -> tuple[int, int]:
    """Width and height of masks in pixels."""
    height, width = _planes(masks).shape[1:]
    return width, height


def read_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Read a batch of masks into regions' keys; empty ones are left out.

    Args:
        masks: (h w), (n h w) or (n 1 h w) in 0..1, farthest first.

    Returns:
        One dictionary per mask: "box" in 0..1 where it is a rectangle, else "mask" (h w).

    Raises:
        LayoutError: no masks, values that are no mask's, or more of them than a layout has regions.
    """
    planes = _planes(masks)
    if not torch.isfinite(planes).all():
        raise LayoutError(
            "The connected masks have values that are not finite (NaN or infinite). Look at the node that makes them."
        )
    low, high = planes.aminmax() if planes.numel() else (0.0, 0.0)
    if low < 0 or high > 1:
        raise LayoutError(
            f"The connected masks have values from {low:g} to {high:g}; expected 0 outside to 1 inside. Connect masks, "
            "not a segmenter's raw scores."
        )
    shown = [plane for plane in planes if not is_empty(plane)]
    if len(shown) > MOST_REGIONS:
        raise LayoutError(
            f"{len(shown)} masks are connected to boxes; at most {MOST_REGIONS} are possible. Raise the segmenter's "
            "threshold, or take fewer masks out of the batch."
        )
    return [region_of(plane) for plane in shown]


def region_of(mask: Tensor) -> dict[str, Any]:
    """A mask (h w) that is not empty as a region's place: "box" where it is a rectangle, else "mask"."""
    height, width = mask.shape
    rows, columns = (torch.nonzero(mask.amax(axis)).flatten().tolist() for axis in (1, 0))
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    if bool((mask[y0:y1, x0:x1] == 1).all()):
        return {"box": (x0 / width, y0 / height, x1 / width, y1 / height)}
    coarser = math.ceil(max(height, width) / FINEST)
    return {"mask": resample_by_area(mask, math.ceil(height / coarser), math.ceil(width / coarser))}


def _planes(masks: Tensor) -> Tensor:
    """Masks as float32 (n h w) on the CPU."""
    planes = masks.squeeze(1) if masks.ndim == 4 and masks.shape[1] == 1 else masks
    planes = planes[None] if planes.ndim == 2 else planes
    if planes.ndim != 3 or 0 in planes.shape[1:]:
        raise LayoutError(
            f"What is connected to boxes has the shape {tuple(masks.shape)}; expected masks of (number, height, "
            "width). A picture goes to image; Convert Image to Mask makes a mask of it."
        )
    return planes.detach().float().cpu()
