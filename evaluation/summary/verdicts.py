"""What an interval says: on which side of a target, or of nothing, it lies as a whole."""

from typing import Literal

MET, MISSED, OPEN = "met", "missed", "not told apart"
BETTER, WORSE = "better", "worse"
MORE, LESS = "more", "less"  # of a change, of which neither is better
LOWER_IS_BETTER = ("bleed", "kid", "seconds", "other look", "no look")  # the last two of regions that wear one
ERROR, CHANGE = "error", "change"  # last words of measures' names that are better when lower, or have no better side
Interval = tuple[float, float]


def verdict(interval: Interval | None, target: float | None, *, at: Literal["least", "most"] = "least") -> str | None:
    """Whether a target is met.

    Args:
        interval: of the value.
        target: what was asked for.
        at: whether the value is to be at least or at most as large.

    Returns:
        "met" where the whole interval is on the right side, "missed" where it is on the wrong one, otherwise "not told
        apart", also where the interval is a point: all layouts scored the same, of which a bootstrap says nothing.
        None without an interval or a target.
    """
    if interval is None or target is None:
        return None
    if interval[0] == interval[1]:
        return OPEN
    low, high = interval if at == "least" else (-interval[1], -interval[0])
    bound = target if at == "least" else -target
    return MET if low >= bound else MISSED if high < bound else OPEN


def better_or_worse(interval: Interval | None, score: str) -> str:
    """Whether a difference of a score, method minus reference, is on one side of nothing; of a change, which side."""
    low, high = interval if interval is not None else (0.0, 0.0)
    if low <= 0 <= high or low == high:
        return OPEN
    if score.endswith(CHANGE):
        return MORE if low > 0 else LESS
    lower = score in LOWER_IS_BETTER or score.endswith(ERROR)
    return BETTER if (low > 0) != lower else WORSE
