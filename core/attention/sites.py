"""Where attention happens in a U-Net, named alike in every host, and which of these sites are read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DOWN, MIDDLE, UP = "down", "middle", "up"
CROSS, SELF = "cross", "self"

MIDDLE_AND_FIRST_UP = "middle and first up"
QUARTER, HALF = "quarter of the latent", "half of the latent"
FIRST_DOWN = "first of each down stage"
PLACES = (MIDDLE_AND_FIRST_UP, QUARTER, HALF, FIRST_DOWN)
SHARES = {QUARTER: 4, HALF: 2}  # how many times smaller than the latent a grid's sides are


@dataclass(frozen=True)
class Site:
    """Where an attention happens, the same in every host for the same network.

    Attributes:
        part: "down", "middle" or "up".
        number: 0, 1, ... among the attentions of this stream in this part, in the order of evaluation.
        stream: "cross" (to the prompt) or "self" (to the picture).
        grid: rows and columns of the queries.
    """

    part: str
    number: int
    stream: str
    grid: tuple[int, int]


class SiteCounter:
    """Numbers the attentions of one forward pass; a host makes a new one for every pass."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], int] = {}

    def next(self, part: str, stream: str, grid: tuple[int, int]) -> Site:
        """Name the attention that is evaluated now."""
        number = self._seen.get((part, stream), 0)
        self._seen[part, stream] = number + 1
        return Site(part, number, stream, grid)


def choose_sites(sites: Iterable[Site], which: str, latent: tuple[int, int]) -> frozenset[Site]:
    """Choose where maps are read, of both streams.

    Args:
        sites: of one whole forward pass, in the order of evaluation.
        which: "middle and first up" (Chen et al., arXiv 2304.03373: every attention of the middle, and those of the
            first up grid that has cross-attention: 8 x 8 and 16 x 16 of 64 x 64), "quarter of the latent" (BoxDiff and
            Attention Refocusing: all attentions of the grid with cross-attention that is nearest to a quarter of the
            latent's sides: 16 x 16 of 64 x 64), "half of the latent" (the same a level finer), or "first of each down
            stage" (LRDiff, arXiv 2311.18435: the first cross-attention after each down-sampling).
        latent: rows and columns of the latent.

    Raises:
        ValueError: an unknown choice.
    """
    sites = list(sites)
    cross = [site for site in sites if site.stream == CROSS]
    if which == MIDDLE_AND_FIRST_UP:
        first_up = next((site.grid for site in cross if site.part == UP), None)
        return frozenset(s for s in sites if s.part == MIDDLE or (s.part == UP and s.grid == first_up))
    if which in SHARES:
        nearest = min((site.grid for site in cross), key=lambda grid: _distance(grid, latent, which), default=None)
        return frozenset(site for site in sites if site.grid == nearest)
    if which == FIRST_DOWN:
        first: dict[tuple[int, int], Site] = {}
        for site in cross:
            if site.part == DOWN:
                first.setdefault(site.grid, site)
        return frozenset(first.values())
    raise ValueError(f'There is no choice of attentions "{which}"; known: {", ".join(PLACES)}.')


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
