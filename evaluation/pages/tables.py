"""Rows of results as text tables, for the terminal and for the README (Markdown reads both ways)."""

from collections.abc import Sequence

from ..result_rows import BENCH_KEYS
from ..summary.compared import ALL

ROW_KEYS = (
    "method",
    "set",
    "pictures",
    "box_iou",
    "ap50",
    "mask_iou",
    "bleed",
    "presence",
    "clip",
    "kid",
    "seconds",
)
NO_SCORES = ("method", "set", "pictures")  # of a row's keys
DECIBELS = "PSNR"  # what begins so is worth a digit behind the point
HEADINGS = {
    "box_iou": "box IoU",
    "ap50": "AP@0.5",
    "mask_iou": "mask IoU",
    "clip": "CLIP",
    "kid": "KID x 1000",
    "seconds": "s / picture",
}


def number(value: float | int | str | None, digits: int = 3) -> str:
    """A cell: "-" for what does not apply, whole numbers and words as they are."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def with_interval(value: float | None, interval: Sequence[float | None] | None, digits: int = 2) -> str:
    """A cell with a 95 % interval behind the number, "0.61 [0.55, 0.66]"; without one, a digit more instead."""
    if value is None or interval is None or None in interval:
        return number(value, digits + 1)
    return f"{value:.{digits}f} [{', '.join(f'{end:.{digits}f}' for end in interval)}]"


def table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, words to the left and numbers to the right."""
    columns = list(zip(headings, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    words = [not any(cell.lstrip("+-")[:1].isdigit() for cell in column[1:]) for column in columns]

    def line(row: Sequence[str]) -> str:
        parts = (c.ljust(w) if left else c.rjust(w) for c, w, left in zip(row, widths, words, strict=True))
        return "| " + " | ".join(parts) + " |"

    rule = "|".join("-" * (w + 1) + ("-" if left else ":") for w, left in zip(widths, words, strict=True))
    return "\n".join([line(headings), f"|{rule}|", *map(line, cells)])


def _score(row: dict, key: str) -> str:
    """A score of a row with its interval; rows painted before there were intervals have none."""
    value, interval = row.get(key), row.get("intervals", {}).get(key)
    if key == "kid":
        value = None if value is None else 1000 * value
        interval = interval and [1000 * end for end in interval]
    if key in ("kid", "seconds") or key.startswith(DECIBELS):
        return with_interval(value, interval, 1)
    return number(value) if key in NO_SCORES else with_interval(value, interval)


def results_table(rows: Sequence[dict]) -> str:
    """A table of DESIGN's result rows and of what else was measured, without the columns that apply to no row."""
    measured = dict.fromkeys(key for row in rows for key in row if key not in (*ROW_KEYS, "intervals"))
    keys = [key for key in (*ROW_KEYS, *measured) if any(row.get(key) is not None for row in rows)]
    return table([HEADINGS.get(key, key) for key in keys], [[_score(row, key) for key in keys] for row in rows])


def sweeps_table(rows: Sequence[dict]) -> str:
    """A table of sweeps, one line per value and method."""
    keys = ("sweep", "method", "value", "pictures", "box_iou", "ap50", "mask_iou", "bleed", "presence", "clip")
    cells = [[str(row[key]) or "(none)" if key == "value" else _score(row, key) for key in keys] for row in rows]
    return table([HEADINGS.get(key, key) for key in keys], cells)


def comparisons_table(rows: Sequence[dict]) -> str:
    """A table of paired differences, method minus reference, of all sets at once; else, if they are apart, of each."""
    whole = [row for row in rows if row["set"] == ALL]
    keys = ("method", "against") if whole else ("method", "against", "set")
    cells = [
        [
            *(row[key] for key in keys),
            HEADINGS.get(row["score"], row["score"]),
            number(row["pictures"]),
            ("+" if row["difference"] >= 0 else "") + with_interval(row["difference"], (row["low"], row["high"])),
            row["verdict"],
        ]
        for row in whole or rows
    ]
    return table([*keys, "score", "pictures", "difference", "method is"], cells)


def measures_table(measures: Sequence[dict]) -> str:
    """A table of single numbers beside what is asked of them, and whether their interval says that it is met."""
    judged = any("verdict" in each for each in measures)
    headings = ["what", "value", "unit", "asked for", *(["verdict"] if judged else [])]
    cells = []
    for each in measures:
        interval = (each["low"], each["high"]) if "low" in each else None
        verdict = [number(each.get("verdict"))] if judged else []
        cells.append(
            [each["name"], with_interval(each["value"], interval), each["unit"], number(each["target"]), *verdict]
        )
    return table(headings, cells)


def bench_table(rows: Sequence[dict]) -> str:
    """A table of speed rows."""
    return table(BENCH_KEYS, [[number(row[key], 2) for key in BENCH_KEYS] for row in rows])


def judges_table(answers: Sequence[dict]) -> str:
    """What judges say of pictures of which everything is known, a column for each judge."""
    keys = list(answers[0])
    return table(["asked of", *keys[1:]], [[number(row[key]) for key in keys] for row in answers])
