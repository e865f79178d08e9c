"""Rows of results of the lines of pictures alone, so that a run that was stopped and continued has the same ones."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ..records.lines import PictureLine
from .bootstrap import intervals
from .estimate import Estimate
from .kernel_distance import KID_PICTURES, kid
from .set_scores import SetScores, measures_of

REFERENCE = "reference"  # method of the real scenes that KID compares with; they have no row


def real_features(lines: Iterable[PictureLine]) -> dict[int, np.ndarray]:
    """Features (n d) of the real scenes among the lines, by their number of things."""
    found: dict[int, list[np.ndarray]] = {}
    for line in lines:
        if line.method == REFERENCE:
            found.setdefault(line.objects, []).append(line.features)
    return {objects: np.stack(features) for objects, features in found.items()}


def summary_rows(
    lines: Iterable[PictureLine], sets: Sequence[str], methods: Sequence[str], *, by_tag: bool = True
) -> list[dict]:
    """A row per set and method, then, if asked, one per kind and category of the set ("objects_2/masks").

    Args:
        lines: of all pictures of a run; others than those of the named sets and methods do not count.
        sets: their names, in the order of rows.
        methods: names, in the order of rows.
        by_tag: whether parts of sets have rows too.
    """
    lines = list(lines)
    real = real_features(lines)
    return [row for name in sets for row in _rows_of_set(lines, name, methods, by_tag, real)]


def _rows_of_set(
    lines: Sequence[PictureLine], name: str, methods: Sequence[str], by_tag: bool, real: dict[int, np.ndarray]
) -> Iterator[dict]:
    of_set = [line for line in lines if line.set_name == name and line.method in methods]
    tags = [line.tags for line in of_set] if by_tag else []
    names = dict.fromkeys(tag for place in zip(*tags, strict=True) for tag in place)
    for tag in (None, *names):
        for method in methods:
            chosen = [line for line in of_set if line.method == method and (tag is None or tag in line.tags)]
            if chosen and tag is None:
                numbers = {line.objects for line in chosen}  # real scenes to compare with have one number of things
                yield summary_row(method, name, chosen, real.get(numbers.pop()) if len(numbers) == 1 else None)
            elif chosen:
                yield summary_row(method, f"{name}/{tag}", chosen)


def summary_row(method: str, name: str, lines: Sequence[PictureLine], real: np.ndarray | None = None) -> dict:
    """One row of results: scores and measures under their names, and "intervals" with low and high end of each.

    Args:
        method: what painted the pictures.
        name: of the set or its part.
        lines: of its pictures.
        real: (n d), features of real scenes to compare with; None leaves KID out, as too few pictures do.
    """
    enough = real is not None and len(lines) >= KID_PICTURES and all(line.features is not None for line in lines)
    items = list(dict.fromkeys(line.item for line in lines))
    scores = SetScores(lines, items, real if enough else None, measures_of(lines))
    (values,) = scores.of(np.ones((1, len(items)))).T
    if enough:
        distance = kid(np.stack([line.features for line in lines]), real)
        values[scores.names.index("kid")] = np.nan if distance is None else distance
    ends = intervals(scores.of, [len(items)])
    found = {name: Estimate.of(*each) for name, *each in zip(scores.names, values, *ends, strict=True)}
    return {
        "method": method,
        "set": name,
        "pictures": len(lines),
        **{score: each.value for score, each in found.items()},
        "intervals": {score: list(each.interval) for score, each in found.items() if each.interval is not None},
    }
