"""Layouts as ComfyUI's own values, for the nodes of others: bounding boxes, elements, stacks of layers, references."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ..drawing.resizing import resized
from .boxes import GRID
from .layer_stack import FINEST
from .layout import Layout
from .masks import FAINTEST, Box, outer_box
from .region import Region, colour_to_hex, colour_to_rgb

GREY = (0.5, 0.5, 0.5)  # of a layer that has neither a picture nor a colour
REFERENCE_SIDE = 512  # pixels of each side of a picture in a batch of references
PLAIN_SIDE = 64  # the same, where all of them are plain colours


def write_bounding_boxes(layout: Layout) -> list[list[dict[str, Any]]]:
    """Give every region's box in ComfyUI's official shape, painter's order, one frame.

    Returns:
        One list of dictionaries x, y, width, height (whole pixels, at least one); the metadata hold the phrase as text
        and name, the longer prompt as desc, the colour as palette and the painter's order as z_index. For a region with
        a mask it is the box around what is inside of that, at least half of its maximum.
    """
    boxes = []
    for order, region in enumerate(layout.sorted_regions()):
        x0, y0, x1, y1 = pixel_box(layout, region)
        metadata = {"type": "obj", "text": region.phrase, "name": region.phrase, "desc": region.prompt or region.phrase}
        metadata |= {"palette": [colour_to_hex(region.colour)]} if region.colour else {}
        box = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
        boxes.append(box | {"metadata": metadata | {"z_index": order}})
    return [boxes]


def write_elements(layout: Layout) -> list[dict[str, Any]]:
    """Give every region as an element: [ymin, xmin, ymax, xmax] on a grid of 0..1000, painter's order."""
    elements = []
    for box in write_bounding_boxes(layout)[0]:
        x0, x1 = (round(GRID * x / layout.width) for x in (box["x"], box["x"] + box["width"]))
        y0, y1 = (round(GRID * y / layout.height) for y in (box["y"], box["y"] + box["height"]))
        element = {"type": "obj", "bbox": [y0, x0, y1, x1], "desc": box["metadata"]["desc"]}
        palette = box["metadata"].get("palette")
        elements.append(element | ({"color_palette": palette} if palette else {}))
    return elements


def write_json_prompt(layout: Layout) -> str:
    """Give a layout as the JSON that Ideogram 4 takes for its prompt, and that ComfyUI's builder of it makes.

    Its model was trained on captions of this form: what the picture is, the background, and every element with its
    box [ymin, xmin, ymax, xmax] on a grid of 0..1000, farthest first; compact, in this order of keys.

    Returns:
        One line, for a text encoder. The style, which a layout does not have, is left out.
    """
    caption = {
        "high_level_description": layout.prompt,
        "compositional_deconstruction": {"background": layout.background, "elements": write_elements(layout)},
    }
    return json.dumps(caption, ensure_ascii=False, separators=(",", ":"))


def write_layers(layout: Layout, pictures: Mapping[str, Tensor]) -> dict[str, Any]:
    """Give every region as a layer, painter's order: its reference picture, or its colour.

    Args:
        layout: what lies where.
        pictures: (h w 3 or 4) in 0..1 for each region's `reference`; a region without one becomes a plain colour.

    Returns:
        {"version": 1, "canvas": (width, height), "layers": [...]}. A region with a mask is transparent outside it. The
        picture of a very large region is a whole part of its size; x, y, w and h are its place all the same.
    """
    layers = []
    for order, region in enumerate(layout.sorted_regions()):
        # A mask's soft edge belongs to the layer, though not to the region's box.
        reach = None if region.mask is None else outer_box(region.mask, FAINTEST)
        x0, y0, x1, y1 = pixel_box(layout, region, reach)
        coarser = math.ceil(max(y1 - y0, x1 - x0) / FINEST)
        size = (math.ceil((y1 - y0) / coarser), math.ceil((x1 - x0) / coarser))
        picture = pictures.get(region.reference)
        if picture is None:
            picture = torch.tensor(colour_to_rgb(region.colour) or GREY).expand(*size, 3)
        else:
            picture = cover(picture, *size)
        item = {"image": picture[None], "type": "raster", "x": x0, "y": y0, "w": x1 - x0, "h": y1 - y0}
        if region.mask is not None:
            grid = (math.ceil(layout.height / coarser), math.ceil(layout.width / coarser))
            own = Image.fromarray(region.mask_on(*grid).numpy())
            sides = zip((x0, y0, x1, y1), own.size * 2, (layout.width, layout.height) * 2, strict=True)
            place = tuple(pixel * new / old for pixel, new, old in sides)
            own = own.resize(size[::-1], Image.Resampling.BILINEAR, place)
            item["mask"] = 1 - torch.from_numpy(np.array(own))[None]
        layers.append(item | {"name": region.phrase, "z_index": order})
    return {"version": 1, "canvas": (layout.width, layout.height), "layers": layers}


def reference_batch(layout: Layout, pictures: Mapping[str, Tensor]) -> Tensor:
    """One square picture for every region, painter's order: its reference picture on white, or its colour, or grey.

    Args:
        layout: what lies where.
        pictures: (h w 3 or 4) in 0..1 for each region's `reference`.

    Returns:
        (n s s 3) float32 in 0..1.
    """
    side = REFERENCE_SIDE if any(region.reference in pictures for region in layout.regions) else PLAIN_SIDE
    squares = []
    for region in layout.sorted_regions():
        picture = pictures.get(region.reference)
        if picture is None:
            squares.append(torch.tensor(colour_to_rgb(region.colour) or GREY).expand(side, side, 3))
            continue
        opaque = picture[..., 3:] if picture.shape[-1] == 4 else 1.0
        squares.append(cover(picture[..., :3] * opaque + (1 - opaque), side, side))
    return torch.stack(squares)


def cover(picture: Tensor, height: int, width: int) -> Tensor:
    """Scale a picture (h w c) until it covers a rectangle and cut off evenly what hangs over: (height width c)."""
    old_height, old_width = picture.shape[:2]
    factor = max(height / old_height, width / old_width)
    # Cut roughly first: of a long thin picture, scaled whole, almost all would hang over and fill the memory.
    margin = math.ceil(1 / factor) + 1  # what the scaling looks at beyond the edge
    top, left = (
        max(0, math.floor((old - new / factor) / 2) - margin) for old, new in ((old_height, height), (old_width, width))
    )
    picture = picture[top : old_height - top, left : old_width - left]
    size = (max(height, round(picture.shape[0] * factor)), max(width, round(picture.shape[1] * factor)))
    scaled = resized(rearrange(picture, "h w c -> 1 c h w"), size)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return rearrange(scaled[0, :, top : top + height, left : left + width], "c h w -> h w c")


def pixel_box(layout: Layout, region: Region, box: Box | None = None) -> tuple[int, int, int, int]:
    """A region's box, or another one, in whole pixels of the canvas, at least one along each side: x0, y0, x1, y1."""
    x0, y0, x1, y1 = box or region.outer_box()
    left, top = min(round(x0 * layout.width), layout.width - 1), min(round(y0 * layout.height), layout.height - 1)
    return left, top, max(round(x1 * layout.width), left + 1), max(round(y1 * layout.height), top + 1)
