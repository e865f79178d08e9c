"""Layouts: a canvas, a prompt, and an ordered list of regions. The one type that every method reads."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from einops import reduce
from torch import Tensor

from .masks import is_same_aspect, visible_boxes
from .region import (
    KEYS,
    LARGEST_SIDE,
    MOST_REGIONS,
    CanvasError,
    LayoutError,
    Region,
    check_text,
    describe,
    read_loras,
)

__all__ = ["Layout", "LayoutError", "Region", "layouts_of"]

SMALLEST_SIDE = 16  # pixels; ComfyUI's own limit for a picture
FINEST = 4096  # pixels along the longer side on which masks are laid over each other


@dataclass(frozen=True)
class Layout:
    """What lies where on a canvas.

    Attributes:
        width: canvas, pixels.
        height: canvas, pixels.
        prompt: the global prompt; "" becomes the phrases and the background, joined.
        background: the background's own prompt.
        regions: in the order they were written; `sorted_regions` gives painter's order.

    Raises:
        LayoutError: a value that cannot be meant.
    """

    width: int
    height: int
    prompt: str
    background: str
    regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        for key in ("width", "height"):
            check_side(key, getattr(self, key))
        for key in ("prompt", "background"):
            check_text(getattr(self, key), f"The layout's {key}")
        object.__setattr__(self, "regions", tuple(self.regions))
        if not self.regions:
            raise LayoutError("The layout is empty. Write one region per line, such as: a dog: 0.1 0.3 0.5 0.8")
        if len(self.regions) > MOST_REGIONS:
            raise LayoutError(f"The layout has {len(self.regions)} regions; at most {MOST_REGIONS} are possible.")
        for region in self.regions:
            if region.mask is not None and not is_same_aspect(*region.mask.shape, self.height, self.width):
                height, width = region.mask.shape
                raise CanvasError(
                    f'The region "{region.phrase}" has a mask of {width} x {height} pixels, which is not the shape of '
                    f"the canvas ({self.width} x {self.height}). Give the mask or the canvas the other's aspect ratio."
                )
        if not self.prompt.strip():
            phrases = [region.phrase for region in self.regions]
            joined = ", ".join(phrases[:-1]) + " and " + phrases[-1] if len(phrases) > 1 else phrases[0]
            object.__setattr__(self, "prompt", f"{joined} {self.background}".strip())

    def sorted_regions(self) -> tuple[Region, ...]:
        """Regions in painter's order, farthest first; of equal orders the earlier in the list is farther."""
        return tuple(sorted(self.regions, key=lambda region: region.order))

    def largest_first(self) -> "Layout":
        """Give the same layout with larger regions behind smaller ones wherever orders leave it open."""

        def area(region: Region) -> float:
            if region.mask is not None:
                return float(region.mask.mean())
            x0, y0, x1, y1 = region.box
            return (x1 - x0) * (y1 - y0)

        ranked = sorted(range(len(self.regions)), key=lambda i: (self.regions[i].order, -area(self.regions[i])))
        orders = {i: order for order, i in enumerate(ranked)}
        return replace(self, regions=tuple(replace(region, order=orders[i]) for i, region in enumerate(self.regions)))

    def in_front_of(self, other: "Layout") -> "Layout":
        """Give both layouts' regions on one canvas, these in front; prompt and background are the other's.

        Raises:
            LayoutError: another canvas.
        """
        if (self.width, self.height) != (other.width, other.height):
            raise LayoutError(
                f"The layouts have different canvases: {other.width} x {other.height} and {self.width} x {self.height} "
                "pixels. Give them the same width and height."
            )
        front = max(region.order for region in other.regions) + 1 - min(region.order for region in self.regions)
        nearer = (replace(region, order=region.order + front) for region in self.regions)
        return replace(other, regions=(*other.regions, *nearer))

    def masks(self, height: int, width: int) -> Tensor:
        """Every region's own mask on a grid, hidden parts included.

        Args:
            height: rows of the grid.
            width: columns of the grid.

        Returns:
            float32 (n h w), painter's order: the exact share of every cell that lies in the region.
        """
        return torch.stack([region.mask_on(height, width) for region in self.sorted_regions()])

    def visible_masks(
        self, height: int, width: int, through: Callable[[Sequence[Region]], Iterable[Region]] = iter
    ) -> Tensor:
        """What is seen of the background and of every region on a grid, as a partition of unity.

        The regions are laid over each other on a grid at least as fine as the canvas (masks: no finer than `FINEST`),
        then pooled by area. So two boxes that touch in the middle of a cell share that cell between them and the
        background gets none of it.

        Args:
            height: rows of the grid.
            width: columns of the grid.
            through: goes through the regions one by one, such as a progress bar that hears when the run is cancelled.

        Returns:
            float32 (n+1 h w), background first, then painter's order; sums to 1 in every cell.
        """
        finer = max(1, math.ceil(self.height / height), math.ceil(self.width / width))
        regions = self.sorted_regions()
        if all(region.mask is None for region in regions):
            return visible_boxes([region.box for region in through(regions)], height, width, finer)
        finer = max(1, min(finer, FINEST // max(height, width)))
        uncovered = torch.ones(height * finer, width * finer)
        planes = torch.from_numpy(np.zeros((len(regions) + 1, height, width), np.float32))
        for place, region in zip(range(len(regions), 0, -1), through(regions[::-1]), strict=True):
            left = uncovered * (1 - region.mask_on(*uncovered.shape))
            # As a difference, not a product: the parts then add up to what there was, to the last bit but one.
            seen = _pool(uncovered - left, finer)
            # Only the rows where it is seen: memory that nobody has written to takes no place.
            if len(rows := seen.any(1).nonzero()):
                planes[place, rows[0] : rows[-1] + 1] = seen[rows[0] : rows[-1] + 1]
            uncovered = left
        planes[0] = _pool(uncovered, finer)
        return planes

    def fingerprint(self) -> str:
        """Sixteen letters that two layouts share only if they are equal, to say later what was made of which."""
        said = hashlib.sha256(repr((self.width, self.height, self.prompt, self.background)).encode())
        for region in self.regions:
            said.update(repr([getattr(region, key) for key in KEYS if key != "mask"]).encode())
            if region.mask is not None:
                said.update(repr(tuple(region.mask.shape)).encode() + region.mask.numpy().tobytes())
        return said.hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Give the layout as JSON values; `layout_from_data` in reading.py gives back an equal layout."""
        data = {"width": self.width, "height": self.height, "prompt": self.prompt, "background": self.background}
        return data | {"regions": [region.to_dict() for region in self.regions]}


def layouts_of(layout: "Layout | Sequence[Layout]", pictures: int) -> list["Layout"]:
    """Give every picture of a batch its layout.

    Args:
        layout: one for all pictures, or one for each.
        pictures: how many there are.

    Raises:
        LayoutError: another number of layouts.
    """
    if isinstance(layout, Layout):
        return [layout] * pictures
    if len(layout) != pictures:
        raise LayoutError(
            f"There are {len(layout)} layouts for {pictures} pictures. Give as many pictures, or one layout for all."
        )
    return list(layout)


def check_side(key: str, side: object) -> int:
    """Give a side of the canvas if it is one.

    Raises:
        LayoutError: not a whole number of pixels that a picture can have.
    """
    if type(side) is not int or not SMALLEST_SIDE <= side <= LARGEST_SIDE:
        raise LayoutError(
            f"The layout's {key} is {describe(side)}; expected whole pixels from {SMALLEST_SIDE} to {LARGEST_SIDE}."
        )
    return side


def _pool(mask: Tensor, factor: int) -> Tensor:
    if factor == 1:
        return mask
    return reduce(mask.double(), "(h r) (w c) -> h w", "mean", r=factor, c=factor).float()


def refuse_loras(layouts: Iterable[Layout], method: str, instead: str = "Layered Rendering") -> None:
    """Say that a method cannot keep a LoRA to a region, where one is asked for; ignoring it would look like a failure.

    Raises:
        LayoutError: a region that wears a LoRA.
    """
    for layout in layouts:
        for region in layout.regions:
            if read_loras(region.lora):
                raise LayoutError(
                    f'The region "{region.phrase}" wears a LoRA ({region.lora}), but {method} has no pass of the model '
                    f"for each region that a LoRA could be kept to. Use {instead} for it, connect a layout without "
                    "lora= here, or load the LoRA for the whole picture."
                )
