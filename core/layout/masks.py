"""Masks on grids: coverage and resampling by area, what is inside, boxes, pieces, edges and holes.

Shares are measured by area, never by sampling points, so grids of odd sizes and sizes that do not divide each other
give every cell exactly the share that lies in it.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from scipy import ndimage
from torch import Tensor

from ..drawing.resizing import mean_pooled

Array: TypeAlias = np.ndarray | Tensor
Box = tuple[float, float, float, float]

INSIDE = 0.5  # of a mask's own maximum: what is inside has at least so much
FAINTEST = 1 / 16  # a mask that is nowhere as opaque as this is empty
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)  # pixels that touch at a corner belong together


def to_numpy(values: Array) -> np.ndarray:
    """Give the values as a numpy array on the CPU; tensors are detached."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


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


def visible_boxes(boxes: Sequence[Box], height: int, width: int, finer: int) -> Tensor:
    """What is seen of the background and of boxes on a grid, as a partition of unity.

    They are laid over each other on a grid `finer` times as fine, then pooled by area. Between the pixels that an edge
    goes through nothing changes, so one number stands for all of these, and only what is seen is written: memory that
    nobody has written to takes no place.

    Args:
        boxes: x0, y0, x1, y1 in 0..1, farthest first.
        height: rows of the grid.
        width: columns of the grid.
        finer: parts of each cell along each side.

    Returns:
        float32 (n+1 h w), background first; sums to 1 in every cell.
    """
    rows = _Axis([(y0, y1) for _, y0, _, y1 in boxes], height, finer)
    columns = _Axis([(x0, x1) for x0, _, x1, _ in boxes], width, finer)
    planes = np.zeros((len(boxes) + 1, height, width), np.float32)
    uncovered = np.ones((len(rows.lengths), len(columns.lengths)))
    for number in reversed(range(len(boxes))):
        left = uncovered * (1 - np.outer(rows.covered[number], columns.covered[number]))
        _paint(planes[number + 1], rows, columns, uncovered - left)
        uncovered = left
    _paint(planes[0], rows, columns, uncovered)
    return torch.from_numpy(planes)


class _Axis:
    """One side of a grid, cut where boxes' edges go through it.

    Attributes:
        lengths: of the parts of the fine grid between cuts, in its pixels: (m).
        covered: share of each part's pixels that each box covers: (n m).
        starts: first cell of every group of cells that are alike, and the number of cells: (g + 1).
        shares: of the parts in a cell of each group: (g m), each row sums to 1.
    """

    def __init__(self, intervals: Sequence[tuple[float, float]], cells: int, finer: int) -> None:
        edges = np.array(intervals).reshape(-1, 2) * (cells * finer)
        cuts = np.unique(np.concatenate([[0, cells * finer], np.floor(edges).ravel(), np.ceil(edges).ravel()]))
        self.lengths = np.diff(cuts)
        self.covered = _shared(edges[:, :1], edges[:, 1:], cuts) / self.lengths
        self.starts = np.unique(np.concatenate([np.floor(cuts / finer), np.ceil(cuts / finer)])).astype(int)
        first = self.starts[:-1, None] * finer
        self.shares = _shared(first, first + finer, cuts) / finer


def _shared(starts: np.ndarray, ends: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Length that intervals (n 1) share with the parts between cuts (m + 1): (n m)."""
    return (np.minimum(ends, cuts[1:]) - np.maximum(starts, cuts[:-1])).clip(min=0)


def _paint(plane: np.ndarray, rows: _Axis, columns: _Axis, parts: np.ndarray) -> None:
    """Write the numbers of parts (m m') on a plane of cells (h w) of zeros, where they are not 0."""
    groups = (rows.shares @ parts @ columns.shares.T).astype(np.float32)
    widths = np.diff(columns.starts)
    for group, values in enumerate(groups):
        turns = np.flatnonzero(np.diff(np.concatenate([[False], values != 0, [False]])))
        for first, last in turns.reshape(-1, 2):
            line = np.repeat(values[first:last], widths[first:last])
            plane[rows.starts[group] : rows.starts[group + 1], columns.starts[first] : columns.starts[last]] = line


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
    if height % old_height == 0 and width % old_width == 0:
        return masks.float().repeat_interleave(height // old_height, -2).repeat_interleave(width // old_width, -1)
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


def is_empty(mask: Array) -> bool:
    """Whether a mask (... h w) is nowhere opaque enough to be meant: dust of rounding and compression is no thing."""
    return bool(mask.max() < FAINTEST)


def inside_of(masks: Array, share: float = INSIDE) -> Array:
    """Which pixels lie inside of masks (... h w), each by its own maximum: bool, of the same kind and shape.

    Whatever takes a box, an outline or a yes or no from a mask asks here. So a faint mask lies where a strong one of
    the same shape does, and dust around it moves nothing. As weights masks stay soft.

    Args:
        masks: in 0..1, or bool.
        share: of its maximum that a pixel needs at least.

    Returns:
        True where it is inside; nothing of an empty mask is.
    """
    if isinstance(masks, Tensor):
        values = masks.detach().float()
        highest = values.amax((-2, -1), keepdim=True)
    else:
        values = np.asarray(masks, np.float32)
        highest = values.max((-2, -1), keepdims=True)
    return (values >= share * highest) & (highest >= FAINTEST)


def outer_box(mask: Array, share: float = INSIDE) -> Box | None:
    """The smallest box around what lies inside of a mask (h w): x0, y0, x1, y1 in 0..1.

    Args:
        mask: in 0..1, or bool.
        share: of `inside_of`; `FAINTEST` for a cut that keeps a soft edge.

    Returns:
        None where the mask is empty.
    """
    counts = to_numpy(inside_of(mask, share))
    rows, columns = np.flatnonzero(counts.any(1)).tolist(), np.flatnonzero(counts.any(0)).tolist()
    if not rows:
        return None
    height, width = counts.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def largest_components(mask: Array, number: int = 1) -> list[np.ndarray]:
    """Connected components of a mask, largest first.

    Args:
        mask: (h w), bool or soft.
        number: how many to return at most.

    Returns:
        Up to `number` bool (h w) masks. Pixels that touch at a corner are connected. Of equally large components the
        one that comes first in reading order is first.
    """
    labels, found = ndimage.label(to_numpy(inside_of(mask)), EIGHT_NEIGHBOURS)
    if not found:
        return []
    sizes = np.bincount(labels.ravel(), minlength=found + 1)[1:]
    order = np.argsort(-sizes, kind="stable")[:number]
    return [labels == index + 1 for index in order]


def grown(inside: Tensor, pixels: int) -> Tensor:
    """Masks (... h w) grown by so many pixels to all sides, corners included.

    Args:
        inside: float; of a soft mask each pixel takes the highest value that lies so near.
        pixels: below 0 the masks shrink, but not from the picture's edge.
    """
    if pixels == 0:
        return inside
    reach, size = abs(pixels), 2 * abs(pixels) + 1
    planes = inside.reshape(-1, 1, *inside.shape[-2:])
    planes = planes if pixels > 0 else 1 - planes
    # Columns and rows one after the other, so that many pixels cost little more than few. Max pooling pads with minus
    # infinity: beyond the edge there is neither what is in the mask nor what is not.
    planes = F.max_pool2d(F.max_pool2d(planes, (size, 1), 1, (reach, 0)), (1, size), 1, (0, reach))
    return (planes if pixels > 0 else 1 - planes).reshape(inside.shape)


def soften(mask: Tensor, edge: int) -> Tensor:
    """Grow a mask by soft edges: as it is inside, falling to 0 over about `edge` pixels outside of it.

    reconstructed: no source says how the edited region is joined to the rest. A mask that is grown and then blurred by
    as much keeps all of its inside at 1, so nothing of the old thing stays, and its edge crosses several latent cells,
    so no seam is seen.

    Args:
        mask: (h w) in 0..1.
        edge: pixels; exactly 0 at this distance (rounded up to even) and beyond.

    Returns:
        float32 (h w), nowhere below the mask.
    """
    reach = (edge + 1) // 2
    if reach == 0:
        return mask.float()
    # By repeating the edge: a thing that leaves the picture is as thick beyond it, so nothing fades at the border.
    padded = F.pad(rearrange(mask.float(), "h w -> 1 1 h w"), (2 * reach,) * 4, mode="replicate")
    wide = grown(padded, reach)[..., reach:-reach, reach:-reach]
    size = 2 * reach + 1
    blurred = F.avg_pool2d(F.avg_pool2d(wide, (size, 1), stride=1), (1, size), stride=1)
    return torch.maximum(blurred.clamp(0, 1)[0, 0], mask)


def fill_hole(depth: Tensor, hole: Tensor) -> Tensor:
    """Continue depth, or one colour, smoothly into a hole: coarser and coarser means, the finest that reaches there.

    Args:
        depth: (b 1 h w).
        hole: (b 1 h w), 1 where it is not known; a picture that is all hole becomes 0.

    Returns:
        (b 1 h w), unchanged outside the hole.
    """
    height, width = depth.shape[-2:]
    known = 1 - hole
    if not hole.any() or min(height, width) == 1:
        return depth * known
    pooled = mean_pooled(torch.cat([depth * known, known], 1), ((height + 1) // 2, (width + 1) // 2))
    coarse_known = (pooled[:, 1:] > 0).to(depth.dtype)
    coarse = pooled[:, :1] / pooled[:, 1:].clamp(min=1e-6) * coarse_known
    filled = fill_hole(coarse, 1 - coarse_known)
    upper = F.interpolate(filled, (height, width), mode="bilinear", align_corners=False)
    return depth * known + upper * hole
