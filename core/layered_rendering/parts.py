"""Parts of the canvas that layers are evaluated on, instead of all of it, and sizes that several of them share.

reconstructed: all of it; the paper evaluates every layer on the whole canvas. Parts of one size are one evaluation of
the network, so a part may grow to the size of others where that costs less than an evaluation of its own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

from torch import Tensor

# Latent cells. U-Nets halve their grid two or three times, and where that leaves a remainder they have the skip's size;
# transformers take patches of one or two cells. Finer sides would seldom meet.
PART_STEP = 4
# Latent cells around a region. reconstructed: the paper evaluates every layer on the whole canvas. On the tuning
# layouts, told boxes and names alone, 8 cells place as many things as the whole canvas does; 4 and 2 place fewer.
DEFAULT_MARGIN = 8
# Latent cells, of one row, that cost as much as one more evaluation. A line through times on one core says 310 of the
# embedded U-Net, 270 of SD 1.5's shape with 96 channels; but two small ones took as long as one of 480 cells more.
EVALUATION = 512

Size: TypeAlias = tuple[int, int]  # rows and columns of latent cells


@dataclass(frozen=True)
class Part:
    """A rectangle of latent cells.

    Attributes:
        height: rows.
        width: columns.
        top: first row.
        left: first column.
    """

    height: int
    width: int
    top: int
    left: int

    @property
    def size(self) -> Size:
        """Rows and columns."""
        return self.height, self.width

    @property
    def area(self) -> tuple[int, int, int, int]:
        """As ComfyUI has it: rows, columns, top and left."""
        return self.height, self.width, self.top, self.left

    def grown(self, size: Size, canvas: Size) -> "Part":
        """A part of a size that is no smaller, on the canvas, with this one as near to its middle as can be."""
        (top, height), (left, width) = (
            (min(max(0, first - (new - old) // 2), whole - new), new)
            for first, old, new, whole in zip((self.top, self.left), self.size, size, canvas, strict=True)
        )
        return Part(height, width, top, left)


def part_around(seen: Tensor, margin: int) -> Part:
    """The part with what is seen in its middle, and at least a margin, as far as the canvas goes.

    Args:
        seen: bool (h w), somewhere true.
        margin: in latent cells. The sides are then rounded up to whole steps of `PART_STEP`.
    """
    ranges = []
    for along, whole in ((seen.any(1), seen.shape[0]), (seen.any(0), seen.shape[1])):
        cells = along.nonzero().flatten()
        first, end = int(cells[0]), int(cells[-1]) + 1
        length = min(whole, -(-(end - first + 2 * margin) // PART_STEP) * PART_STEP)
        ranges.append((length, min(max(0, (first + end - length) // 2), whole - length)))
    (height, top), (width, left) = ranges
    return Part(height, width, top, left)


def shared_sizes(sizes: Sequence[Size], rows: Sequence[int]) -> list[Size]:
    """Sizes for parts that could be evaluated together: each as large as before or larger.

    The two sizes whose union saves most become one, until none saves anything; `cost_of_sizes` never goes up.

    Args:
        sizes: of the parts.
        rows: of the network that each part takes, such as a prompt and a negative prompt.
    """
    chosen = list(sizes)
    while True:
        taken = Counter[Size]()
        for size, number in zip(chosen, rows, strict=True):
            taken[size] += number
        unions = ((_saved(taken, one, other), one, other) for one, other in combinations(taken, 2))
        saved, one, other = max(unions, default=(0, None, None), key=lambda union: union[0])
        if saved <= 0:
            return chosen
        chosen = [_union(one, other) if size in (one, other) else size for size in chosen]


def cost_of_sizes(sizes: Sequence[Size], rows: Sequence[int]) -> int:
    """What parts of these sizes cost, in rows times latent cells; attention's share that grows faster is left out."""
    cells = sum(height * width * number for (height, width), number in zip(sizes, rows, strict=True))
    return cells + EVALUATION * len(set(sizes))


def _union(one: Size, other: Size) -> Size:
    return max(one[0], other[0]), max(one[1], other[1])


def _saved(taken: Counter[Size], one: Size, other: Size) -> int:
    """What becomes cheaper if two sizes become one, which may be a third that is there."""
    union = _union(one, other)
    evaluations = 1 if union in (one, other) or union not in taken else 2
    grown = sum(taken[size] * (union[0] * union[1] - size[0] * size[1]) for size in (one, other))
    return EVALUATION * evaluations - grown
