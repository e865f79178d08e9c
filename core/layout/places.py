"""Gives the regions of a layout's text their places: connected masks, connected boxes, and shapes to draw.

The regions are still JSON values here; what is wrong with them is found when they are built.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .region import LayoutError, describe
from .shapes import LARGEST_DRAWING, draw_shape, is_shape


def with_masks(regions: list[Any], masks: Sequence[Tensor] | None) -> list[Any]:
    """Put connected masks in place of their numbers, or one on each region where no number is used."""
    count = len(masks) if masks is not None else 0
    numbers = [region["mask"] for region in regions if _is_mask_number(region)]
    for number in numbers:
        if not 1 <= number <= count:
            raise LayoutError(
                f'The layout says "mask {describe(number)}", but {count} masks are connected. Connect it or use a box.'
            )
    if numbers and (unused := sorted(set(range(1, count + 1)) - set(numbers))):
        raise LayoutError(f'Mask {unused[0]} is connected but no region says "mask {unused[0]}".')
    if count and regions and not numbers:
        if count != len(regions):
            raise LayoutError(
                f"{count} masks are connected for {len(regions)} regions. Connect one for each region in order, or "
                'write "mask 1" behind the regions that have one.'
            )
        regions = [{**region, "mask": k} if isinstance(region, dict) else region for k, region in enumerate(regions, 1)]
    return [{**region, "mask": masks[region["mask"] - 1]} if _is_mask_number(region) else region for region in regions]


def with_shape(region: Any, height: int, width: int) -> Any:  # noqa: ANN401 - JSON holds anything
    """Draw a mask that is written as a shape, at the canvas' size or a whole part of it."""
    if not isinstance(region, dict) or not is_shape(region.get("mask")):
        return region
    coarser = math.ceil(max(height, width) / LARGEST_DRAWING)
    size = (math.ceil(height / coarser), math.ceil(width / coarser))
    return {**region, "mask": draw_shape(region["mask"], *size, f'The region "{region.get("phrase", "")}"')}


def _is_mask_number(region: Any) -> bool:  # noqa: ANN401 - JSON holds anything
    return isinstance(region, dict) and type(region.get("mask")) is int


def with_boxes(regions: list[Any], boxes: list[dict[str, Any]]) -> list[Any]:
    """Give connected boxes to the regions without a place, in order; without regions the boxes' phrases name them."""
    if not boxes:
        return regions
    if not regions:
        if any("phrase" not in box for box in boxes):
            raise LayoutError("The connected boxes have no names. Write a phrase per line for each of them.")
        return boxes
    waiting = [r for r in regions if isinstance(r, dict) and r.get("box") is None and r.get("mask") is None]
    if len(waiting) != len(boxes):
        raise LayoutError(
            f"{len(boxes)} boxes are connected, but {len(waiting)} regions of the layout have no place of their own. "
            "Write one phrase per line for each box, without numbers."
        )
    for region, box in zip(waiting, boxes, strict=True):
        region |= {key: box[key] for key in ("box", "mask") if key in box}
    return regions
