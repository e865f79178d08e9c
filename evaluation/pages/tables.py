"""Rows of results as text tables, for the terminal and for the README (Markdown reads both ways)."""

from collections.abc import Sequence

from ..graphs.told import TOLD
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
OURS, HEADLINE = "lrdiff", ("box_iou", "ap50", "presence")  # the method and the scores of the README's table
DIFFERENCE_HEADINGS = ("method", "against", "score", "pictures", "difference", "method is")
# Of results in which inputs of the nodes still have the names and units that they had before they were made alike.
UNITS_OF_THEN = (
    "Painted before inputs had one name and one unit in all nodes: a strength of 1 of Layered Rendering and Edit "
    "Picture in Layers is 0.6 here, one of Soft Guidance 10; `end_at` is `t0` here, TCIG Refine's `denoise` is "
    "`strength`."
)
HEADINGS = {
    "box_iou": "box IoU",
    "ap50": "AP@0.5",
    "mask_iou": "mask IoU",
    "clip": "CLIP",
    "kid": "KID x 1000",
    "seconds": "s / picture",
    "evaluations": "rows / picture",
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
    if key == "evaluations":
        return number(value, 0)
    if key in ("kid", "seconds") or key.startswith(DECIBELS):
        return with_interval(value, interval, 1)
    return number(value) if key in NO_SCORES else with_interval(value, interval)


def results_table(rows: Sequence[dict]) -> str:
    """A table of DESIGN's result rows and of what else was measured, without the columns that apply to no row."""
    measured = dict.fromkeys(key for row in rows for key in row if key not in (*ROW_KEYS, "intervals"))
    keys = [key for key in (*ROW_KEYS, *measured) if any(row.get(key) is not None for row in rows)]
    return table([HEADINGS.get(key, key) for key in keys], [[_score(row, key) for key in keys] for row in rows])


def told_table(rows: Sequence[dict]) -> str:
    """What the methods of result rows hear of a layout, where they come from, and what a picture costs in each set."""
    methods = dict.fromkeys(row["method"] for row in rows if row["method"] in TOLD)
    sets = dict.fromkeys(row["set"] for row in rows)
    cost = {(row["method"], row["set"]): row.get("evaluations") for row in rows}
    cells = [
        [name, ", ".join(TOLD[name].hears), TOLD[name].origin, *(number(cost.get((name, each)), 0) for each in sets)]
        for name in methods
    ]
    return table(["method", "is told", "is", *(f"rows / picture, {each}" for each in sets)], cells)


def sweeps_table(rows: Sequence[dict]) -> str:
    """A table of sweeps, one line per value and method."""
    keys = ("sweep", "method", "value", "pictures", "box_iou", "ap50", "mask_iou", "bleed", "presence", "clip")
    cells = [[str(row[key]) or "(none)" if key == "value" else _score(row, key) for key in keys] for row in rows]
    return table([HEADINGS.get(key, key) for key in keys], cells)


def defaults_table(measures: Sequence[dict]) -> str:
    """A table of defaults beside the other values of their sweeps, with a remark where these have other names today."""
    shown = measures_table(measures)
    was_t0 = any("default t0 " in each["name"] for each in measures)
    return f"{shown}\n\n{UNITS_OF_THEN}" if was_t0 else shown


def comparisons_table(rows: Sequence[dict]) -> str:
    """A table of paired differences, method minus reference, of all sets at once; else, if they are apart, of each."""
    whole = [row for row in rows if row["set"] == ALL]
    return table(DIFFERENCE_HEADINGS, [_difference(row) for row in whole]) if whole else differences_by_set_table(rows)


def headline_table(rows: Sequence[dict]) -> str:
    """The same of the pack's main method alone, and of where things are."""
    return comparisons_table([row for row in rows if row["method"] == OURS and row["score"] in HEADLINE])


def _difference(row: dict) -> list[str]:
    difference = with_interval(row["difference"], (row["low"], row["high"]))
    return [
        row["method"],
        row["against"],
        HEADINGS.get(row["score"], row["score"]),
        number(row["pictures"]),
        ("+" if row["difference"] >= 0 else "") + difference,
        row["verdict"],
    ]


def differences_by_set_table(rows: Sequence[dict]) -> str:
    """A table of paired differences of each set, where sets ask for things that are not of one kind."""
    cells = [[row["set"], *_difference(row)] for row in rows if row["set"] != ALL]
    return table(["set", *DIFFERENCE_HEADINGS], cells)


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
