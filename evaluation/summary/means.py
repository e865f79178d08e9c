"""Means of pictures' own numbers, and spreads, differences and ratios of such means, with intervals over items.

For what is no score of a row: numbers of several pictures of an item together, shares by kind, ratios. Items of
different sets are drawn apart; pictures weigh the same.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ..records.lines import PictureLine
from .bootstrap import intervals
from .estimate import Estimate

Value = Callable[[PictureLine], float | None]
# Set, item, and numbers of one of its pictures, as many in each.
Entry = tuple[str, int, Sequence[float]]
NOTHING = Estimate(None, None)


def estimate(entries: Iterable[Entry], of: Callable[[np.ndarray], np.ndarray] = lambda means: means[0]) -> Estimate:
    """A function of means over pictures.

    Args:
        entries: see `Entry`.
        of: means (k r) of k numbers in r draws -> (r); the first mean itself, if nothing is said.
    """
    sets: dict[str, dict[int, list[Sequence[float]]]] = {}
    for name, item, numbers in entries:
        sets.setdefault(name, {}).setdefault(item, []).append(numbers)
    if not sets:
        return NOTHING
    sums = [np.array([np.sum(each, 0) for each in items.values()], float) for items in sets.values()]
    counts = [np.array([len(each) for each in items.values()], float) for items in sets.values()]

    def statistic(*times: np.ndarray) -> np.ndarray:
        totals = sum(drawn @ each for drawn, each in zip(times, sums, strict=True))
        pictures = sum(drawn @ each for drawn, each in zip(times, counts, strict=True))
        with np.errstate(invalid="ignore", divide="ignore"):
            return of(totals.T / pictures)[None]

    items = [len(each) for each in counts]
    (value,) = statistic(*(np.ones((1, number)) for number in items))[:, 0]
    (low,), (high,) = intervals(statistic, items)
    return Estimate.of(value, low, high)


def _known(lines: Iterable[PictureLine], value: Value) -> list[tuple[PictureLine, float]]:
    return [(line, float(found)) for line in lines if (found := value(line)) is not None]


def mean_of(lines: Iterable[PictureLine], value: Value) -> Estimate:
    """Mean over the pictures to which the value applies."""
    return estimate((line.set_name, line.item, (number,)) for line, number in _known(lines, value))


def spread_of(lines: Iterable[PictureLine], value: Value) -> Estimate:
    """Standard deviation over the pictures to which the value applies."""
    entries = [(line.set_name, line.item, (number, number**2)) for line, number in _known(lines, value)]
    return estimate(entries, lambda means: np.sqrt((means[1] - means[0] ** 2).clip(0)))


def _shared(ours: Iterable[PictureLine], theirs: Iterable[PictureLine]) -> list[tuple[PictureLine, PictureLine]]:
    """Pictures of the same items and noise."""
    known = {line.key[1:]: line for line in theirs}
    return [(line, known[line.key[1:]]) for line in ours if line.key[1:] in known]


def difference_of(ours: Iterable[PictureLine], theirs: Iterable[PictureLine], value: Value) -> Estimate:
    """Mean of a value minus that of the same items and noise elsewhere, where it applies to both."""
    pairs = [(line, value(line), value(other)) for line, other in _shared(ours, theirs)]
    return estimate((line.set_name, line.item, (a - b,)) for line, a, b in pairs if a is not None and b is not None)


def ratio_of(ours: Iterable[PictureLine], theirs: Iterable[PictureLine], value: Value) -> Estimate:
    """Mean of a value over that of the same items and noise elsewhere; each of those to which it applies."""
    entries = [
        (line.set_name, line.item, (a or 0, a is not None, b or 0, b is not None))
        for line, other in _shared(ours, theirs)
        for a, b in [(value(line), value(other))]
    ]
    return estimate(entries, lambda means: _over(_over(means[0], means[1]), _over(means[2], means[3])))


def _over(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A quotient, NaN where nothing is divided by."""
    return np.divide(first, second, out=np.full_like(first, np.nan), where=second != 0)
