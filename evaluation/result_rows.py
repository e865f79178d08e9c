"""Rows and single numbers of results, and the files that keep them.

A file is JSON with one row per line, so that a change shows as a change of that row.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ..core.scores.layout_score import RegionScore, summarize
from ..core.scores.metrics import mean_or_none

RESULTS = Path(__file__).parent / "results"
DIGITS = 6  # of the numbers in result files
BENCH_DIGITS = 3
BENCH_KEYS = ("name", "value", "unit", "baseline", "ratio")


def result_row(
    method: str,
    set_name: str,
    regions: Sequence[Sequence[RegionScore]] | None = None,
    images: dict[str, float | None] | None = None,
    seconds: Sequence[float | None] = (),
    **given: float | int | None,
) -> dict:
    """One row of results with DESIGN's keys in their order; None for what does not apply.

    Args:
        method: what painted the pictures.
        set_name: what was asked for.
        regions: region scores of every picture.
        images: see `yardsticks.image_scores`.
        seconds: per picture.
        given: "pictures" and "presence" where they do not follow from `regions`.
    """
    layout = summarize(regions or ())
    row = {"method": method, "set": set_name, "pictures": len(regions or ()), **layout}
    row |= {**(images or {"clip": None, "kid": None}), "seconds": mean_or_none(seconds)} | given
    return {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in row.items()}


def measure(name: str, value: float | None, unit: str = "", target: float | None = None) -> dict:
    """Give a single number as result files keep it: its name, value and unit, and what is asked of it."""
    rounded = None if value is None else round(value, DIGITS)
    return {"name": name, "value": rounded, "unit": unit, "target": target}


def bench_row(name: str, value: float, baseline: float | None = None, unit: str = "s") -> dict:
    """One row of speed or memory with DESIGN's keys in their order; without a baseline it has no ratio."""
    ratio = None if baseline is None else value / baseline if baseline else 0.0
    rounded = [None if number is None else round(number, BENCH_DIGITS) for number in (value, baseline, ratio)]
    return dict(zip(BENCH_KEYS, (name, rounded[0], unit, *rounded[1:]), strict=True))


def read_results(path: Path) -> dict[str, list[dict]]:
    """Read a result file.

    Raises:
        FileNotFoundError: there is none.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def write_results(path: Path, content: dict[str, list[dict]]) -> None:
    """Write results; numbers have to be finite.

    Raises:
        ValueError: a number that JSON does not know.
    """
    lists = []
    for key, rows in content.items():
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
        lists.append(f'"{key}": [\n{lines}\n]')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{" + ",\n".join(lists) + "}\n", encoding="utf-8")
