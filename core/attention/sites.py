"""Where attention happens in a network, named alike in every host, and which of these sites are read."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DOWN, MIDDLE, UP = "down", "middle", "up"  # parts of a U-Net
BLOCK = "block"  # the only part of a transformer
CROSS, SELF = "cross", "self"

MIDDLE_AND_FIRST_UP = "middle and first up"
QUARTER, HALF = "quarter of the latent", "half of the latent"
FIRST_DOWN = "first of each down stage"
FOUND, MIDDLE_BLOCKS, ALL_BLOCKS = "found", "middle blocks", "all blocks"
OF_UNETS = (MIDDLE_AND_FIRST_UP, QUARTER, HALF, FIRST_DOWN)
OF_TRANSFORMERS = (FOUND, MIDDLE_BLOCKS, ALL_BLOCKS)
PLACES = (*OF_UNETS, *OF_TRANSFORMERS)
SHARES = {QUARTER: 4, HALF: 2}  # how many times smaller than the latent a grid's sides are
# Ours: where published choices overlap; early blocks mix the text, late ones paint.
MIDDLE_FROM, MIDDLE_TO = 0.25, 0.55
_NUMBERS = re.compile(r"\s*\d+\s*(-\s*\d+\s*)?(,\s*\d+\s*(-\s*\d+\s*)?)*")


@dataclass(frozen=True)
class Site:
    """Where an attention happens, the same in every host for the same network.

    Attributes:
        part: "down", "middle" or "up" of a U-Net; "block" of a transformer.
        number: 0, 1, ... among the attentions of this stream in this part, in the order of evaluation.
        stream: "cross" (to the prompt) or "self" (to the picture).
        grid: rows and columns of the queries, of one frame.
        frames: of a video; its queries are frame behind frame.
        blocks: how many of these a transformer has; 0: not said.
    """

    part: str
    number: int
    stream: str
    grid: tuple[int, int]
    frames: int = 1
    blocks: int = 0

    @property
    def depth(self) -> float:
        """How deep in a transformer, 0..1."""
        return self.number / max(1, self.blocks)


class SiteCounter:
    """Numbers the attentions of one forward pass; a host makes a new one for every pass."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], int] = {}

    def next(self, part: str, stream: str, grid: tuple[int, int], frames: int = 1, blocks: int = 0) -> Site:
        """Name the attention that is evaluated now."""
        number = self._seen.get((part, stream), 0)
        self._seen[part, stream] = number + 1
        return Site(part, number, stream, grid, frames, blocks)


def choose_sites(sites: Iterable[Site], which: str, latent: tuple[int, int]) -> frozenset[Site]:
    """Choose where maps are read, of both streams.

    Args:
        sites: of one whole forward pass, in the order of evaluation.
        which: "middle and first up" (Chen et al., arXiv 2304.03373: every attention of the middle, and those of the
            first up grid that has cross-attention: 8 x 8 and 16 x 16 of 64 x 64), "quarter of the latent" (BoxDiff and
            Attention Refocusing: all attentions of the grid with cross-attention that is nearest to a quarter of the
            latent's sides: 16 x 16 of 64 x 64), "half of the latent" (the same a level finer), or "first of each down
            stage" (LRDiff, arXiv 2311.18435: the first cross-attention after each down-sampling). Of a transformer:
            "middle blocks" (every second of those from a quarter to 55 % of the depth), "all blocks", numbers such as
            "8-12" or "3, 5", counted from 0, or "found" (those that `block_choice` finds; before that, all). Each kind
            of network takes the other's choices too, so that a graph outlives a change of checkpoint: a transformer
            reads a U-Net's places as "found", a U-Net reads "found" and "middle blocks" as "quarter of the latent".
        latent: rows and columns of the latent.

    Raises:
        ValueError: an unknown choice.
    """
    check_choice(which)
    sites = list(sites)
    if any(site.part == BLOCK for site in sites):
        return frozenset(site for site in sites if _is_chosen_block(site, which))
    cross = [site for site in sites if site.stream == CROSS]
    if which == ALL_BLOCKS:
        return frozenset(sites)
    if which not in PLACES:
        numbers = block_numbers(which)
        streams = (cross, [site for site in sites if site.stream == SELF])
        return frozenset(site for stream in streams for i, site in enumerate(stream) if i in numbers)
    which = QUARTER if which in OF_TRANSFORMERS else which
    if which == MIDDLE_AND_FIRST_UP:
        first_up = next((site.grid for site in cross if site.part == UP), None)
        return frozenset(s for s in sites if s.part == MIDDLE or (s.part == UP and s.grid == first_up))
    if which in SHARES:
        nearest = min((site.grid for site in cross), key=lambda grid: _distance(grid, latent, which), default=None)
        return frozenset(site for site in sites if site.grid == nearest)
    first: dict[tuple[int, int], Site] = {}
    for site in cross:
        if site.part == DOWN:
            first.setdefault(site.grid, site)
    return frozenset(first.values())


def check_choice(which: str) -> None:
    """Refuse what is no choice of sites.

    Raises:
        ValueError: an unknown choice.
    """
    if which not in PLACES and not _NUMBERS.fullmatch(which):
        raise ValueError(
            f'There is no choice of attentions "{which}"; known: {", ".join(PLACES)}, and numbers of blocks, such as '
            "8-12."
        )


def block_numbers(which: str) -> frozenset[int]:
    """Numbers that a person has written: "8-12, 15" -> 8, 9, 10, 11, 12, 15."""
    spans = [[int(end) for end in span.split("-")] for span in which.split(",")]
    return frozenset(number for span in spans for number in range(span[0], span[-1] + 1))


def _is_chosen_block(site: Site, which: str) -> bool:
    if which == MIDDLE_BLOCKS:
        first = math.ceil(MIDDLE_FROM * site.blocks)
        return MIDDLE_FROM <= site.depth <= MIDDLE_TO and (site.number - first) % 2 == 0
    return which in PLACES or site.number in block_numbers(which)


def _is_past_blocks(site: Site, which: str) -> bool:
    if which == MIDDLE_BLOCKS:
        return site.depth > MIDDLE_TO
    return which not in PLACES and site.number > max(block_numbers(which))


def _distance(grid: tuple[int, int], latent: tuple[int, int], which: str) -> float:
    """How far a grid is from the asked share of the latent's sides; only comparisons matter."""
    cells = grid[0] * grid[1] / (latent[0] * latent[1] / SHARES[which] ** 2)
    return max(cells, 1 / cells)


def is_past(site: Site, seen: Sequence[Site], which: str, latent: tuple[int, int]) -> bool:
    """Whether a forward pass that has come to `site` has nothing more to give.

    A U-Net goes from fine to coarse grids and back, so this is certain long before its end. One attention too late is
    the price of not knowing the network; a recorder that knows the sites stops right behind the last.

    Args:
        site: that is to be evaluated now.
        seen: all before it, in the order of evaluation.
        which: as in `choose_sites`.
        latent: rows and columns of the latent.
    """
    if site.part == BLOCK:
        return _is_past_blocks(site, which)
    if which == ALL_BLOCKS or which not in PLACES:
        return False
    which = QUARTER if which in OF_TRANSFORMERS else which
    if which == FIRST_DOWN:
        return site.part != DOWN
    grids = {s.grid for s in choose_sites(seen, which, latent) if s.part == UP or which in SHARES}
    if site.part != UP or not grids or site.grid in grids:
        return False
    return which == MIDDLE_AND_FIRST_UP or all(
        site.grid[0] * site.grid[1] > grid[0] * grid[1]
        and _distance(site.grid, latent, which) > _distance(grid, latent, which)
        for grid in grids
    )
