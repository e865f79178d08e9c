"""Rows of results as text tables, for the terminal and for the README (Markdown reads both ways)."""

from collections.abc import Sequence

from ..result_rows import BENCH_KEYS

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


def table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns, words to the left and numbers to the right."""
    columns = list(zip(headings, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    words = [not any(cell.removeprefix("-")[:1].isdigit() for cell in column[1:]) for column in columns]

    def line(row: Sequence[str]) -> str:
        parts = (c.ljust(w) if left else c.rjust(w) for c, w, left in zip(row, widths, words, strict=True))
        return "| " + " | ".join(parts) + " |"

    rule = "|".join("-" * (w + 1) + ("-" if left else ":") for w, left in zip(widths, words, strict=True))
    return "\n".join([line(headings), f"|{rule}|", *map(line, cells)])


def results_table(rows: Sequence[dict]) -> str:
    """A table of DESIGN's result rows, without the columns that apply to no row."""
    keys = [key for key in ROW_KEYS if any(row[key] is not None for row in rows)]
    cells = []
    for row in rows:
        shown = {**row, "kid": None if row["kid"] is None else 1000 * row["kid"]}
        cells.append([number(shown[key], 2 if key in ("kid", "seconds") else 3) for key in keys])
    return table([HEADINGS.get(key, key) for key in keys], cells)


def sweeps_table(rows: Sequence[dict]) -> str:
    """A table of sweeps, one line per value and method."""
    keys = ("sweep", "method", "value", "pictures", "box_iou", "ap50", "mask_iou", "bleed", "presence", "clip")
    cells = [[str(row[key]) or "(none)" if key == "value" else number(row[key]) for key in keys] for row in rows]
    return table([HEADINGS.get(key, key) for key in keys], cells)


def measures_table(measures: Sequence[dict]) -> str:
    """A table of the base family's own numbers beside what is asked of them."""
    cells = [[m["name"], number(m["value"]), m["unit"], number(m["target"])] for m in measures]
    return table(["what", "value", "unit", "asked for"], cells)


def bench_table(rows: Sequence[dict]) -> str:
    """A table of speed rows."""
    return table(BENCH_KEYS, [[number(row[key], 2) for key in BENCH_KEYS] for row in rows])
