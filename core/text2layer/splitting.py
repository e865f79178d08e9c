"""Splits a picture into foreground, background and mask, as Text2Layer makes its training set.

Text2Layer (arXiv 2307.09781), section on data: F copies the picture's pixels where m > 0.1; B is the picture with a
dilated mask inpainted under an empty prompt. How far it is dilated, what fills the rest of F, and how the inpainted
part is joined to the picture are not stated.
"""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..layout.masks import fill_hole, is_same_aspect, resample_by_area, soften
from .split_quality import Measure, is_good, measure_background

THRESHOLD = 0.1  # the paper's: F is copied where the mask is above it
DILATION = 12  # pixels; reconstructed: more than the 8 of a latent cell, so that no cell holds some of the object


class SplitError(ValueError):
    """A picture and a mask that do not go together; the message says what to change."""


def checked_masks(masks: Tensor, images: Tensor) -> Tensor:
    """One mask of the pictures' size for each of them.

    Args:
        masks: (b or 1 h w) or (h w) in 0..1, of any resolution of the pictures' shape.
        images: (b h w 3).

    Returns:
        float32 (b h w) on the pictures' device; 0 where they are not above 0.1, which is background in the paper too.

    Raises:
        SplitError: as many masks as pictures, or one, are expected; or another shape, or a mask without an object.
    """
    masks = masks.float().reshape(-1, *masks.shape[-2:]).to(images.device)
    number, height, width = images.shape[:3]
    if len(masks) not in (1, number):
        raise SplitError(f"{len(masks)} masks for {number} pictures; expected one for each, or one for all.")
    rows, columns = masks.shape[1:]
    if not is_same_aspect(rows, columns, height, width):
        raise SplitError(
            f"The mask has {columns} x {rows} pixels, which is not the shape of the picture ({width} x {height}). "
            "Connect a mask of the same picture."
        )
    masks = resample_by_area(masks, height, width).clamp(0, 1).expand(number, height, width)
    empty = [index + 1 for index, mask in enumerate(masks) if not (mask > THRESHOLD).any()]
    if empty:
        raise SplitError(
            f"The mask of picture {empty[0]} is empty (nothing above {THRESHOLD}). Connect a mask that is 1 on the "
            "object; a mask of Load Image is 0 there, so put Invert Mask between."
        )
    if bool((masks > THRESHOLD).flatten(1).all(1).any()):
        raise SplitError(f"A mask covers the whole picture (all above {THRESHOLD}), so there is no background in it.")
    return torch.where(masks > THRESHOLD, masks, torch.zeros_like(masks))


def cut_foreground(images: Tensor, masks: Tensor, backgrounds: Tensor | None = None) -> Tensor:
    """F: the object's pixels where the mask is above 0.1, zeros elsewhere (reconstructed: the fill).

    Args:
        images: (b h w 3) in 0..1.
        masks: (b h w) in 0..1.
        backgrounds: (b h w 3), taken out of half-covered pixels, F = (I - (1 - m) B) / m, so that m F + (1 - m) B is I
            and no rim of the old background is seen before another one. None copies the pixels, as in the paper.

    Returns:
        (b h w 3) in 0..1, straight colour.
    """
    masks = masks[..., None]
    colours = images
    if backgrounds is not None:
        colours = ((images - (1 - masks) * backgrounds) / masks.clamp(min=THRESHOLD)).clamp(0, 1)
        colours = torch.where(masks < 1, colours, images)
    return torch.where(masks > THRESHOLD, colours, torch.zeros_like(images))


def hole_to_fill(masks: Tensor, dilation: int) -> Tensor:
    """How much of the inpainted picture the background takes: 1 on the object, falling to 0 over the dilation.

    reconstructed: the joining. The dilated rim shows background before and after, so that it can fade between both,
    and no seam is seen.

    Args:
        masks: (b h w) in 0..1.
        dilation: pixels around the object (made even).

    Returns:
        float32 (b h w); above 0 is what is inpainted.
    """
    return torch.stack([soften((mask > THRESHOLD).float(), dilation) for mask in masks])


def without_object(images: Tensor, holes: Tensor) -> Tensor:
    """The pictures with the hole continued smoothly from around it, so that no colour of the object remains.

    What an inpainting run starts from; also a background of its own where that is smooth.

    Args:
        images: (b h w 3) in 0..1.
        holes: (b h w), above 0 where nothing is known.
    """
    channels = rearrange(images, "b h w c -> (b c) 1 h w")
    holes = repeat((holes > 0).to(images), "b h w -> (b c) 1 h w", c=images.shape[-1])
    return rearrange(fill_hole(channels, holes), "(b c) 1 h w -> b h w c", b=len(images))


def join_background(images: Tensor, filled: Tensor, holes: Tensor) -> Tensor:
    """B: the pictures themselves outside the hole, bit for bit, and what was filled in inside: (b h w 3)."""
    return torch.lerp(images, filled.to(images), holes[..., None].to(images))


def fill_until_good(
    images: Tensor,
    masks: Tensor,
    holes: Tensor,
    fill: Callable[[int, Sequence[int]], Tensor],
    tries: int,
) -> tuple[Tensor, list[list[Measure]]]:
    """Fill holes again where the result is bad, and keep the best of each picture.

    Args:
        images: (b h w 3) in 0..1.
        masks: (b h w) in 0..1, 1 on the object.
        holes: (b h w), above 0 where it is filled.
        fill: from the number of the try and the numbers of k pictures to their backgrounds (k h w 3).
        tries: at most.

    Returns:
        Backgrounds (b h w 3) with the fewest bad measures, the earliest of equals, and their measures.
    """
    found: dict[int, tuple[Tensor, list[Measure]]] = {}
    for attempt in range(tries):
        bad = [index for index in range(len(images)) if index not in found or not is_good(found[index][1])]
        if not bad:
            break
        for index, background in zip(bad, fill(attempt, bad), strict=True):
            measures = measure_background(images[index], masks[index], background, holes[index])
            if index not in found or _problems(measures) < _problems(found[index][1]):
                found[index] = background, measures
    backgrounds, measures = zip(*(found[index] for index in range(len(images))), strict=True)
    return torch.stack(backgrounds), list(measures)


def _problems(measures: Sequence[Measure]) -> int:
    return sum(not measure.passed for measure in measures)
