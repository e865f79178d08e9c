"""Bootstrap intervals over layouts, by scipy: percentiles of scores of sets drawn again with repetition.

Layouts of different sets are drawn apart, so that every draw has as many of each set. Percentiles: where every layout
has the same score, the interval is that score, and where a score has a bound, the interval stays within it.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

DRAWS, LEVEL, SEED = 10_000, 0.95, 20
AT_ONCE = 1000  # draws in memory
# How often each layout of each set is drawn, (r n) each -> any numbers of statistics of every draw (k r).
Statistic = Callable[..., np.ndarray]


def intervals(statistic: Statistic, layouts: Sequence[int], draws: int = DRAWS) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals of statistics of one or several sets; the same draws for the same numbers of layouts.

    Args:
        statistic: see `Statistic`.
        layouts: number of layouts of each set.
        draws: how many.

    Returns:
        Low and high ends (k); NaN where a set has fewer than two layouts, or a draw lacks all that a statistic is of.
    """
    if min(layouts) < 2:
        ends = np.full(len(statistic(*(np.ones((1, number)) for number in layouts))), np.nan)
        return ends, ends

    def of_indices(*drawn: np.ndarray, axis: int) -> np.ndarray:
        return statistic(*(_times(indices, number) for indices, number in zip(drawn, layouts, strict=True)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # NaN says it, for those statistics alone
        found = bootstrap(
            tuple(np.arange(number) for number in layouts),
            of_indices,
            n_resamples=draws,
            batch=AT_ONCE,
            vectorized=True,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(SEED),
        )
    return found.confidence_interval.low, found.confidence_interval.high


def _times(indices: np.ndarray, number: int) -> np.ndarray:
    """How often each of so many layouts stands in each row of indices (r n): (r number)."""
    rows = len(indices)
    placed = indices.astype(int) + number * np.arange(rows)[:, None]
    return np.bincount(placed.ravel(), minlength=rows * number).reshape(rows, number)
