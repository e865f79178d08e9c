"""Pictures on other grids: torch's own operations, and the same out of others where a device lacks them.

A Mac's GPU has no adaptive pooling between sizes that do not divide, and no resizing that takes all pixels into
account. Both are linear along each side, so two products with matrices do the same.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor

LACKING = "mps"  # type of a device that lacks them


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize pictures (b c h w) linearly to (b c *size); where they shrink, every pixel counts (antialiased)."""
    # Where one side becomes a single pixel, torch 2.11 repeats the first row of the other instead of resizing it.
    if pictures.device.type != LACKING and 1 not in size:
        wide = pictures.float() if pictures.element_size() < 4 else pictures  # halves it does not have on a CPU
        return F.interpolate(wide, tuple(size), mode="bilinear", antialias=True).to(pictures)
    return resized_by_matrices(pictures, size)


def mean_pooled(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """The mean of each cell of a grid over pictures: (b c h w) -> (b c *size). Cells may share pixels."""
    if pictures.device.type != LACKING:
        return F.adaptive_avg_pool2d(pictures, tuple(size))
    return mean_pooled_by_matrices(pictures, size)


def largest_pooled(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest value of each cell of a grid over pictures: (b c h w) -> (b c *size). Cells may share pixels."""
    if pictures.device.type != LACKING:
        return F.adaptive_max_pool2d(pictures, tuple(size))
    return largest_pooled_by_places(pictures, size)


def resized_by_matrices(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """As `resized`, on any device: a triangle as wide as two new pixels, or two old ones where those are wider."""
    return _along_both_sides(pictures, size, _triangles)


def mean_pooled_by_matrices(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """As `mean_pooled`, on any device."""
    return _along_both_sides(pictures, size, _means)


def largest_pooled_by_places(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """As `largest_pooled`, on any device: each cell's rows looked up, then its columns."""
    for axis, cells in ((-2, size[0]), (-1, size[1])):
        first, behind = _cells(pictures.shape[axis], cells)
        reach = torch.arange(int((behind - first).max()))
        # What a smaller cell has fewer is its last pixel again.
        places = torch.minimum(first[:, None] + reach, behind[:, None] - 1).flatten().to(pictures.device)
        found = pictures.index_select(axis, places).unflatten(axis, (cells, len(reach)))
        pictures = found.amax(axis)
    return pictures


def _along_both_sides(pictures: Tensor, size: tuple[int, int], weights: Callable[[int, int], Tensor]) -> Tensor:
    rows, columns = (weights(old, new).to(pictures) for old, new in zip(pictures.shape[-2:], size, strict=True))
    return einsum(rows, pictures, columns, "i h, b c h w, j w -> b c i j")


def _triangles(old: int, new: int) -> Tensor:
    """Share of every old pixel in every new one: float32 (new old)."""
    scale = old / new
    middles = scale * (torch.arange(new, dtype=torch.float64) + 0.5)
    distances = torch.arange(old, dtype=torch.float64) + 0.5 - middles[:, None]
    shares = (1 - distances.abs() / max(scale, 1)).clamp(min=0)
    return (shares / shares.sum(1, keepdim=True)).float()


def _means(old: int, new: int) -> Tensor:
    """1 over its number of pixels wherever a pixel belongs to a cell: float32 (new old)."""
    first, behind = _cells(old, new)
    pixels = torch.arange(old)
    inside = ((pixels >= first[:, None]) & (pixels < behind[:, None])).float()
    return inside / inside.sum(1, keepdim=True)


def _cells(old: int, new: int) -> tuple[Tensor, Tensor]:
    """First pixel of each cell, and the first one behind it: (new,) each."""
    number = torch.arange(new)
    return number * old // new, -(-(number + 1) * old // new)
