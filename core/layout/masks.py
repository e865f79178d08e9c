"""Masks on grids: exact area coverage, resampling by area, and painter's order as a partition of unity.

Everything is measured by area, never by sampling points, so grids of odd sizes and sizes that do not divide each other
give every cell exactly the share that lies in it.
"""

import torch
import torch.nn.functional as F
from einops import einsum, reduce
from torch import Tensor

Box = tuple[float, float, float, float]


def box_coverage(box: Box, height: int, width: int) -> Tensor:
    """Share of every grid cell that a box covers.

    Args:
        box: x0, y0, x1, y1 in 0..1 of the canvas.
        height: rows of the grid.
        width: columns of the grid.

    Returns:
        float32 (h w) in 0..1; exactly 1 in cells that lie inside.
    """
    x0, y0, x1, y1 = box
    rows, columns = _interval_coverage(y0, y1, height), _interval_coverage(x0, x1, width)
    return einsum(rows, columns, "h, w -> h w").float()


def _interval_coverage(start: float, end: float, cells: int) -> Tensor:
    """Share of each of `cells` equal parts of 0..1 that lies between start and end: float64 (cells,)."""
    left = torch.arange(cells, dtype=torch.float64)
    return (torch.clamp(left + 1, max=end * cells) - torch.clamp(left, min=start * cells)).clamp(min=0)


def resample_by_area(masks: Tensor, height: int, width: int) -> Tensor:
    """Resample masks to another grid so that every cell holds the mean of what lies in it.

    Smaller grids pool, larger grids repeat, and where cells straddle they are split by area. Sums over masks are kept,
    so a partition of unity stays one, and a mask of ones stays exactly ones.

    Args:
        masks: float (... h w).
        height: rows of the new grid.
        width: columns of the new grid.

    Returns:
        float32 (... height width); the input itself where the size already agrees.
    """
    old_height, old_width = masks.shape[-2:]
    if (old_height, old_width) == (height, width):
        return masks.float()
    if old_height % height == 0 and old_width % width == 0:
        rows, columns = old_height // height, old_width // width
        return reduce(masks.double(), "... (h r) (w c) -> ... h w", "mean", r=rows, c=columns).float()
    # Whole numbers until the last division: their sums are exact, so ones stay ones.
    rows, columns = _shared_lengths(old_height, height), _shared_lengths(old_width, width)
    pooled = rows.to(masks.device) @ masks.double() @ columns.to(masks.device).mT
    return (pooled / (old_height * old_width)).float()


def _shared_lengths(old: int, new: int) -> Tensor:
    """Length that each new cell shares with each old one, where a new cell is `old` long: float64 (new old)."""
    new_start, old_start = torch.arange(new)[:, None] * old, torch.arange(old)[None] * new
    shared = torch.minimum(new_start + old, old_start + new) - torch.maximum(new_start, old_start)
    return shared.clamp(min=0).double()


def is_same_aspect(height: int, width: int, canvas_height: int, canvas_width: int) -> bool:
    """Whether a grid is the canvas at another resolution, to within the rounding of one of its sides."""
    return (
        abs(canvas_width * height - canvas_height * width) < canvas_height
        or abs(canvas_width * height - canvas_height * width) < canvas_width
    )


def grown(inside: Tensor, pixels: int) -> Tensor:
    """A binary mask (h w) grown by so many pixels to all sides; below 0 shrunk, but not from the picture's edge.

    Columns and rows are pooled one after the other, so that many pixels cost little more than few.
    """
    if pixels == 0:
        return inside
    size = 2 * abs(pixels) + 1
    grid = inside[None, None] if pixels > 0 else 1 - inside[None, None]
    # Max pooling pads with minus infinity: beyond the edge there is neither what is in the mask nor what is not.
    grid = F.max_pool2d(F.max_pool2d(grid, (size, 1), 1, (abs(pixels), 0)), (1, size), 1, (0, abs(pixels)))[0, 0]
    return grid if pixels > 0 else 1 - grid


def outer_box(mask: Tensor) -> Box:
    """The box around what a mask (h w) covers at all: x0, y0, x1, y1 in 0..1; the mask must not be empty."""
    rows, columns = mask.amax(1).nonzero().flatten().tolist(), mask.amax(0).nonzero().flatten().tolist()
    height, width = mask.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
