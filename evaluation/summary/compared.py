"""One method minus another on the same layouts and noise, with intervals of the differences.

Both are drawn together: what a layout gives to or takes from both of them is no difference.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from ..records.lines import PictureLine
from .bootstrap import intervals
from .estimate import Estimate
from .set_scores import SCORES, SetScores, measures_of
from .verdicts import better_or_worse

COUNTED = "evaluations"  # the same for every layout of as many things: rows say it, and no interval is needed
ALL = "all sets"  # pictures of every set weigh the same
Pairs = Sequence[tuple[str, str]]  # method, and what it is compared with


class Compared:
    """The methods of one run.

    Args:
        lines: of its pictures.
        sets: names of those that count.
    """

    def __init__(self, lines: Iterable[PictureLine], sets: Sequence[str]) -> None:
        self._lines: dict[tuple[str, str], dict[tuple[int, int], PictureLine]] = {}
        self._sets = sets
        self._known: dict[tuple[str, str, tuple[str, ...]], tuple[int, dict[str, Estimate], dict[str, Estimate]]] = {}
        measures: dict[str, None] = {}
        for line in lines:
            if line.set_name in sets:
                measures |= dict.fromkeys(line.measures)
                self._lines.setdefault((line.set_name, line.method), {})[line.item, line.number] = line
        self._measures = tuple(measures)

    def difference(self, method: str, against: str, score: str) -> Estimate:
        """A score of a method minus that of another, all sets at once."""
        return self._compare(method, against, self._sets)[1][score]

    def gain(self, method: str, against: str, score: str) -> Estimate:
        """By which share of the other's a method's score is larger, all sets at once."""
        return self._compare(method, against, self._sets)[2][score]

    def rows(self, pairs: Pairs) -> list[dict]:
        """Differences of every score for result files: of all sets at once, then of each; none where a method lacks."""
        scopes = {ALL: self._sets} | ({name: (name,) for name in self._sets} if len(self._sets) > 1 else {})
        found = []
        for method, against in pairs:
            for scope, sets in scopes.items():
                pictures, differences, _ = self._compare(method, against, sets)
                for score, each in differences.items():
                    if each.value is not None and score != COUNTED:
                        low, high = each.interval or (None, None)
                        found.append(
                            {
                                "method": method,
                                "against": against,
                                "set": scope,
                                "score": score,
                                "pictures": pictures,
                                "difference": each.value,
                                "low": low,
                                "high": high,
                                "verdict": better_or_worse(each.interval, score),
                            }
                        )
        return found

    def _compare(
        self, method: str, against: str, sets: Sequence[str]
    ) -> tuple[int, dict[str, Estimate], dict[str, Estimate]]:
        """Number of pictures that both painted, differences and gains by score."""
        key = (method, against, tuple(sets))
        if key not in self._known:
            self._known[key] = self._measured(method, against, sets)
        return self._known[key]

    def _measured(
        self, method: str, against: str, sets: Sequence[str]
    ) -> tuple[int, dict[str, Estimate], dict[str, Estimate]]:
        scores: list[tuple[SetScores, SetScores]] = []
        layouts: list[int] = []
        for name in sets:
            ours, theirs = (self._lines.get((name, each), {}) for each in (method, against))
            if shared := [key for key in ours if key in theirs]:
                items = list(dict.fromkeys(item for item, _ in shared))
                both = ([each[key] for key in shared] for each in (ours, theirs))
                scores.append(tuple(SetScores(of_one, items, measures=self._measures) for of_one in both))
                layouts.append(len(items))
        names = (*SCORES, *self._measures)
        if not scores:
            nothing = dict.fromkeys(names, Estimate(None, None))
            return 0, nothing, nothing
        statistic = partial(_difference_and_gain, scores)
        values = statistic(*(np.ones((1, number)) for number in layouts))[:, 0]
        found = [Estimate.of(*each) for each in zip(values, *intervals(statistic, layouts), strict=True)]
        number = len(names)
        by_score = (dict(zip(names, part, strict=True)) for part in (found[:number], found[number:]))
        return sum(ours.pictures for ours, _ in scores), *by_score


def _difference_and_gain(scores: Sequence[tuple[SetScores, SetScores]], *times: np.ndarray) -> np.ndarray:
    ours, theirs = (
        pooled(
            [pair[side].of(drawn) for pair, drawn in zip(scores, times, strict=True)],
            [s[side].pictures for s in scores],
        )
        for side in (0, 1)
    )
    ratio = np.divide(ours, theirs, out=np.full_like(ours, np.nan), where=theirs != 0)
    return np.concatenate([ours - theirs, ratio - 1])


def pooled(values: Sequence[np.ndarray], pictures: Sequence[int]) -> np.ndarray:
    """Mean of the scores (k r) of several sets; pictures weigh the same, and a set without a score does not count."""
    stacked = np.stack(values)
    weights = np.where(np.isfinite(stacked), np.reshape(pictures, (-1, 1, 1)), 0)
    with np.errstate(invalid="ignore"):
        return (np.nan_to_num(stacked) * weights).sum(0) / weights.sum(0)


def quotient(ours: Sequence[PictureLine], theirs: Sequence[PictureLine], score: str) -> Estimate:
    """A score of one set over that of another one, which has other layouts: their draws are apart."""
    items = [list(dict.fromkeys(line.item for line in lines)) for lines in (ours, theirs)]
    measures = measures_of((*ours, *theirs))
    both = [SetScores(lines, its, measures=measures) for lines, its in zip((ours, theirs), items, strict=True)]
    row = both[0].names.index(score)

    def statistic(*times: np.ndarray) -> np.ndarray:
        first, second = (each.of(drawn)[row] for each, drawn in zip(both, times, strict=True))
        return np.divide(first, second, out=np.full_like(first, np.nan), where=second != 0)[None]

    layouts = [len(its) for its in items]
    (value,) = statistic(*(np.ones((1, number)) for number in layouts))[:, 0]
    (low,), (high,) = intervals(statistic, layouts)
    return Estimate.of(value, low, high)
