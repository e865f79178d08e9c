"""Depth of a foreground and of the background behind it, the way Compose and Conquer reads them: near is bright.

Compose and Conquer (Lee et al., ICLR 2024, arXiv 2401.09048) trains on depth of the cut-out foreground and depth of the
background without it, what was hidden included. A pair comes from two depth pictures, from one and a mask, or from a
layout, whose regions become planes that face the viewer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..layout.layout import Layout
from ..layout.masks import fill_hole, grown, inside_of

WHOLE, CUT_OUT, MASKED = "v1", "v2", "v3"
VARIANTS = (CUT_OUT, WHOLE, MASKED)  # the published default first
GROUND = 0.2  # disparity of the ground plane at the bottom of the picture; at the top it is 0, infinitely far
FARTHEST, NEAREST = 0.3, 1.0  # disparities of a layout's planes, spread evenly in painter's order
SOMETHING = 0.1  # reconstructed: stretched depth above which an unmasked foreground is taken to be there


class DepthPairError(ValueError):
    """Depths, masks or a layout that make no pair; the message says what to change."""


@dataclass(frozen=True)
class DepthPair:
    """Foreground and background depth (b 1 h w) in 0..1, and the foreground's mask (b 1 h w), 0 or 1."""

    foreground: Tensor
    background: Tensor
    mask: Tensor


def stretch(depth: Tensor) -> Tensor:
    """Stretch every picture's depth to 0..1, each by its own smallest and largest value.

    Args:
        depth: (b c h w), larger is nearer, any range.

    Returns:
        (b c h w) in 0..1; 0 everywhere where a picture has one depth only: it says nothing, as no depth does.
    """
    low, high = depth.amin((1, 2, 3), keepdim=True), depth.amax((1, 2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (depth - low) / torch.where(span > 0, span, torch.ones_like(span)), 0.0)


def draw_planes(masks: Tensor, disparities: Tensor, ground: Tensor) -> Tensor:
    """Draw objects as planes that face the viewer, before a ground plane that comes nearer towards the bottom.

    Args:
        masks: (b n h w) in 0..1, hidden parts included.
        disparities: (b n), 0 (infinitely far: not drawn) .. 1 (nearest); where masks overlap the nearest is seen.
        ground: (b) disparity of the ground plane at the bottom of the picture; 0 for none.

    Returns:
        disparity (b 1 h w) in 0..1.
    """
    planes = (masks * rearrange(disparities, "b n -> b n 1 1")).amax(1, keepdim=True)
    slope = torch.linspace(0.0, 1.0, masks.shape[-2], dtype=masks.dtype, device=masks.device)
    return torch.maximum(planes, rearrange(ground, "b -> b 1 1 1") * rearrange(slope, "h -> 1 1 h 1"))


def cut_foreground(depth: Tensor, mask: Tensor, variant: str) -> Tensor:
    """Foreground depth from the depth of a whole picture (published variants).

    Args:
        depth: (b 1 h w), larger is nearer, any range.
        mask: (b 1 h w), 1 is foreground.
        variant: v1: the whole picture's, stretched. v2: cut out, then stretched, so that the foreground spans 0..1 and
            all around it is infinitely far, as in training. v3: stretched, then cut out.

    Returns:
        (b 1 h w) in 0..1.
    """
    if variant == WHOLE:
        return stretch(depth)
    if variant == MASKED:
        return stretch(depth) * mask
    lowest = depth.amin((1, 2, 3), keepdim=True).clamp(max=0)  # what is cut away lies behind everything
    return stretch((depth - lowest) * mask)


def pair_from_two(
    foreground: Tensor | None, background: Tensor | None, mask: Tensor | None, variant: str = CUT_OUT
) -> DepthPair:
    """A pair from two depth pictures; the one that is missing becomes 0, which says nothing, as in training.

    Args:
        foreground: (b 1 h w), any range, near is bright.
        background: (b 1 h w), the scene without the foreground.
        mask: (b 1 h w) in 0..1, cut at half of its maximum; none: where the foreground's depth stands out.
        variant: how the foreground's depth is cut where there is a mask.

    Raises:
        DepthPairError: no depth at all.
    """
    there = next((depth for depth in (foreground, background) if depth is not None), None)
    if there is None:
        raise DepthPairError("Neither depth is connected. Connect foreground_depth, background_depth, or both.")
    nothing = torch.zeros_like(there)
    binary = None if mask is None else inside_of(mask).to(there.dtype)
    near = nothing
    if foreground is not None:
        near = stretch(foreground) if binary is None else cut_foreground(foreground, binary, variant)
    if binary is None:
        binary = (near > SOMETHING).to(there.dtype)
    return DepthPair(near, nothing if background is None else stretch(background), binary)


def pair_from_one(depth: Tensor, mask: Tensor, variant: str = CUT_OUT, margin: int = 0) -> DepthPair:
    """A pair from the depth of one picture and a mask; what the foreground hides is continued from around it.

    Args:
        depth: (b 1 h w), any range, near is bright.
        mask: (b 1 h w) in 0..1, cut at half of its maximum.
        variant: of the foreground's depth.
        margin: pixels around the foreground that the background does not keep either, because depth models blur there.
    """
    binary = inside_of(mask).to(depth.dtype)
    behind = fill_hole(depth, grown(binary, margin))
    return DepthPair(cut_foreground(depth, binary, variant), stretch(behind), binary)


def pair_from_layouts(
    layouts: Sequence[Layout], front: int, ground: float = GROUND, *, round_boxes: bool = False
) -> DepthPair:
    """A pair from layouts: regions as planes, the nearest of them as the foreground.

    Args:
        layouts: one for each picture, all with the same canvas.
        front: how many of the nearest regions are the foreground; their order decides among equals.
        ground: disparity of the ground plane at the bottom of the background; 0 for none.
        round_boxes: regions that have a box and no mask become the ellipse inside the box.

    Raises:
        DepthPairError: canvases differ, or no region is left for the foreground.
    """
    sizes = {(layout.height, layout.width) for layout in layouts}
    if len(sizes) > 1:
        found = ", ".join(f"{width} x {height}" for height, width in sorted(sizes))
        raise DepthPairError(f"The layouts have different canvases: {found}. Give all of a batch the same size.")
    pairs = [_pair_from_layout(layout, front, ground, round_boxes) for layout in layouts]
    return DepthPair(
        foreground=torch.cat([pair.foreground for pair in pairs]),
        background=torch.cat([pair.background for pair in pairs]),
        mask=torch.cat([pair.mask for pair in pairs]),
    )


def _pair_from_layout(layout: Layout, front: int, ground: float, round_boxes: bool) -> DepthPair:
    masks = layout.masks(layout.height, layout.width)
    if round_boxes:
        boxes = [None if region.mask is not None else region.box for region in layout.sorted_regions()]
        masks = torch.stack([m if b is None else _ellipse(b, m) for b, m in zip(boxes, masks, strict=True)])
    masks = inside_of(masks).float()[None]
    number = masks.shape[1]
    if not 1 <= front <= number:
        raise DepthPairError(f"front is {front}, but the layout has {number} regions; expected 1 to {number}.")
    disparities = torch.linspace(FARTHEST, NEAREST, number + 1)[1:][None]
    is_front = torch.arange(number) >= number - front
    nearer, farther = draw_planes(masks, disparities * is_front, torch.zeros(1)), disparities * ~is_front
    behind = draw_planes(masks, farther, torch.tensor([ground]))
    mask = (masks * is_front[None, :, None, None]).amax(1, keepdim=True)
    return DepthPair(_nearest_to_one(nearer), _nearest_to_one(behind), mask)


def _nearest_to_one(disparity: Tensor) -> Tensor:
    """`stretch`, but 0 stays infinitely far: planes that cover the whole picture would else say that nothing is there.

    Args:
        disparity: (b 1 h w) in 0..1.
    """
    highest = disparity.amax((1, 2, 3), keepdim=True)
    return disparity / torch.where(highest > 0, highest, torch.ones_like(highest))


def _ellipse(box: tuple[float, float, float, float], like: Tensor) -> Tensor:
    """The ellipse inside a box, 0 or 1 at pixel centres: (h w)."""
    height, width = like.shape
    x0, y0, x1, y1 = box
    y, x = ((torch.arange(n) + 0.5) / n for n in (height, width))
    across = ((x - (x0 + x1) / 2) / ((x1 - x0) / 2)).square()
    down = ((y - (y0 + y1) / 2) / ((y1 - y0) / 2)).square()
    return (repeat(across, "w -> h w", h=height) + rearrange(down, "h -> h 1") <= 1).float()
