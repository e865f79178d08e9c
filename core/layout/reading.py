"""Layouts out of text and out of JSON values, with the connected masks and boxes put where the regions ask for them.

The regions are JSON values until the last step; what is wrong with one of them is found when it is built.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from .boxes import read_bounding_boxes
from .layout import Layout, check_side
from .region import MOST_REGIONS, LayoutError, Region, check_keys, describe
from .shapes import LARGEST_DRAWING, draw_shape, is_shape
from .text import read_layout_text

MOST_DRAWN_PIXELS = 2**26  # of all masks that are written as shapes together; with more of them each is coarser
MOST_MASK_PIXELS = 2**28  # of all masks that stand in a layout's text together; 1 GiB of memory
KEYS = ("width", "height", "prompt", "background", "regions")
EDITOR_KEY = "editor"  # in JSON only: what an editor keeps for itself


def parse_layout(
    text: str,
    *,
    width: int = 512,
    height: int = 512,
    prompt: str = "",
    background: str = "",
    masks: Sequence[Tensor] | None = None,
    boxes: object = None,
) -> Layout:
    """Build a layout from text: JSON (`Layout.to_dict`, or a list of regions) or one region per line.

    A line is `phrase: x0 y0 x1 y1`, `phrase: ellipse x0 y0 x1 y1`, `phrase: polygon x y x y x y`, `phrase: mask 2` or
    just `phrase`, which takes the next of the given masks or boxes. Behind it may stand, each after a `|`: a longer
    prompt, `colour=red`, `strength=1.5`, `order=2`, `lora=neon:0.8`. Empty lines and lines that begin with # mean
    nothing. A name may hold colons before a place, within brackets, "(a dog:1.2)", and anywhere where the masks are the
    only places.

    Args:
        text: JSON or lines; may be empty where `boxes` carry their own phrases.
        width: canvas, pixels, where the text does not say.
        height: canvas, pixels, where the text does not say.
        prompt: global prompt where the text does not say.
        background: background prompt where the text does not say.
        masks: (h w) each, counted from 1 by `mask k`; without such references one for each region, in order.
        boxes: ComfyUI's bounding boxes in any of their shapes, in pixels, for the regions without a place, in order.

    Raises:
        LayoutError: what is wrong, and in which line.
    """
    given = {"width": width, "height": height, "prompt": prompt, "background": background}
    read = read_layout_text(text, has_masks=bool(masks))
    said = {key: value for key, value in read.items() if value != "" or key not in given}
    return layout_from_data(given | said, masks, boxes)


def layout_from_data(
    data: Mapping[str, Any],
    masks: Sequence[Tensor] | None = None,
    boxes: object = None,
) -> Layout:
    """Build a layout from JSON values, giving the connected masks and boxes to the regions that ask for them.

    Args:
        data: as `Layout.to_dict` gives it; prompt and background may be left out, and a region's mask may be a number
            of the connected ones, a tensor (h w), runs or a shape.
        masks: (h w) each in 0..1, counted from 1.
        boxes: in any shape that `read_bounding_boxes` knows, in pixels.

    Raises:
        LayoutError: wrong values, or masks and boxes that do not fit the regions.
    """
    if not isinstance(data, Mapping):
        raise LayoutError(f"The layout is {describe(data)}; expected an object with the keys {', '.join(KEYS)}.")
    check_keys(data, (*KEYS, EDITOR_KEY), "The layout")
    for key in ("width", "height"):
        if key not in data:
            raise LayoutError(f'The layout has no "{key}"; expected the canvas in pixels.')
    regions = data.get("regions", [])
    if not isinstance(regions, list | tuple):
        raise LayoutError(f'The layout\'s "regions" is {describe(regions)}; expected a list.')
    shown = [dict(region) if isinstance(region, Mapping) else region for region in regions if not _is_hidden(region)]
    if len(shown) > MOST_REGIONS:
        raise LayoutError(f"The layout has {len(shown)} regions; at most {MOST_REGIONS} are possible.")
    if regions and not shown and boxes is None:
        raise LayoutError(f"All {len(regions)} regions of the layout are hidden. Show at least one.")
    width, height = check_side("width", data["width"]), check_side("height", data["height"])
    read = read_bounding_boxes(boxes, width, height) if boxes is not None else []
    if read and not shown:
        shown, read = _named(read), []
    regions = _with_boxes(_with_masks(shown, masks), read)
    return Layout(
        width=width,
        height=height,
        prompt=data.get("prompt", ""),
        background=data.get("background", ""),
        regions=tuple(_read_regions(regions, height, width)),
    )


def _is_hidden(region: object) -> bool:
    """Whether an editor has switched the region off."""
    hidden = region.get("hidden", False) if isinstance(region, Mapping) else False
    if type(hidden) is not bool:
        name = describe(region.get("phrase", ""))
        raise LayoutError(f'The region {name} has "hidden": {describe(hidden)}; expected true or false.')
    return hidden


def _with_masks(regions: list[Any], masks: Sequence[Tensor] | None) -> list[Any]:
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


def _is_mask_number(region: object) -> bool:
    return isinstance(region, dict) and type(region.get("mask")) is int


def _named(boxes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Connected boxes as regions, where there is no other that they could be the places of."""
    if any("phrase" not in box for box in boxes):
        raise LayoutError("The connected boxes have no names. Write a phrase per line for each of them.")
    return boxes


def _with_boxes(regions: list[Any], boxes: list[dict[str, Any]]) -> list[Any]:
    """Give connected boxes to the regions without a place, in order."""
    if not boxes:
        return regions
    waiting = [r for r in regions if isinstance(r, dict) and r.get("box") is None and r.get("mask") is None]
    if len(waiting) != len(boxes):
        raise LayoutError(
            f"{len(boxes)} boxes are connected, but {len(waiting)} regions of the layout have no place of their own. "
            "Write one phrase per line for each box, without numbers."
        )
    for region, box in zip(waiting, boxes, strict=True):
        region |= {key: box[key] for key in ("box", "mask") if key in box}
    return regions


def _read_regions(regions: list[Any], height: int, width: int) -> Iterator[Region]:
    """Build the regions one by one, so that masks without end in a short text are refused before they are built."""
    pixels, shapes = 0, sum(isinstance(data, dict) and is_shape(data.get("mask")) for data in regions)
    for data in regions:
        region = Region.from_dict(_with_shape(data, height, width, shapes))
        if region.mask is not None and not isinstance(data.get("mask"), Tensor):
            pixels += region.mask.numel()
        if pixels > MOST_MASK_PIXELS:
            raise LayoutError(
                f"The masks in the layout's text have more than {MOST_MASK_PIXELS} pixels together. Give them a lower "
                "resolution; it needs only the canvas' aspect ratio."
            )
        yield region


def _with_shape(region: object, height: int, width: int, shapes: int) -> object:
    """Draw a mask that is written as one of so many shapes, at the canvas' size or a whole part of it."""
    if not isinstance(region, dict) or not is_shape(region.get("mask")):
        return region
    fits = max(max(height, width) / LARGEST_DRAWING, math.sqrt(height * width * shapes / MOST_DRAWN_PIXELS))
    coarser = math.ceil(fits)
    size = (math.ceil(height / coarser), math.ceil(width / coarser))
    return {**region, "mask": draw_shape(region["mask"], *size, f'The region "{region.get("phrase", "")}"')}
