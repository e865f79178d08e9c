"""A thing that shall be in its place, and its region on the grids of attention."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..layout.masks import resample_by_area
from ..weights.differentiable import normal_copy

TINY = torch.finfo(torch.float32).tiny
TOP_SHARE = 0.2  # BoxDiff's P: the strongest of so many cells of a region, or of the rest, count
EDGE = 1  # BoxDiff's L: cells on either side of a box's edges that its corner term looks at


@dataclass(frozen=True)
class Target:
    """One thing that shall be in its place.

    Attributes:
        columns: of the recorded tokens, those of its phrase.
        mask: float (h w) in 0..1, any grid.
        weight: multiplies its part of the energy.
    """

    columns: tuple[int, ...]
    mask: Tensor
    weight: float = 1.0
    _on_grids: dict[tuple[object, ...], "Place"] = field(default_factory=dict, init=False, repr=False, compare=False)

    def on(self, grid: tuple[int, int], like: Tensor) -> "Place":
        """Its region on a grid, where a tensor is; made once."""
        key = grid, like.device, like.dtype
        if key not in self._on_grids:
            self._on_grids[key] = _placed(self.mask, grid, like)
        return self._on_grids[key]


@dataclass(frozen=True)
class Place:
    """A region on a grid, and what energies need of it as plain numbers.

    Attributes:
        mask: (h w).
        inside: how many of the strongest cells inside count.
        outside: how many outside.
        outlines: the region projected on the columns and on the rows, and which of these are near its edges.
    """

    mask: Tensor
    inside: int
    outside: int
    outlines: tuple[tuple[Tensor, Tensor], ...]


@torch.inference_mode(False)
@torch.no_grad()
def _placed(mask: Tensor, grid: tuple[int, int], like: Tensor) -> Place:
    """A region on a grid; one that is smaller than a cell fills the cell that it lies in most.

    Counted on the CPU, for every number that is read on a GPU waits for it.
    """
    mask = resample_by_area(normal_copy(mask).cpu(), *grid)
    mask = mask / mask.amax().clamp(min=TINY)
    inside, outside = (max(1, int(TOP_SHARE * float(part.sum()))) for part in (mask, 1 - mask))
    outlines = []
    for axis in (0, 1):
        outline = mask.amax(axis)
        filled = (outline >= 0.5).nonzero().flatten().tolist()
        near = torch.zeros_like(outline)
        for edge in (filled[0], filled[-1] + 1) if filled else ():
            near[max(0, edge - EDGE) : edge + EDGE + 1] = 1
        outlines.append((outline.to(like), near.to(like)))
    return Place(mask.to(like), inside, outside, tuple(outlines))
