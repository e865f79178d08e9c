"""What is seen of boxes that lie over each other, exactly, at the cost of their few edges and not of pixels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .masks import Box


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
