"""The README's plots, drawn from the result files: `python commands/launcher.py evaluation.pages.plots`.

Every picture carries the digest of the rows that it shows, so that a test can tell an old one.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ...commands.environment import CLONE
from ..result_rows import RESULTS, read_results
from ..sets.sets import LAYOUT_SETS
from .growth_pages import draw_growth
from .tables import HEADINGS

FOLDER = CLONE / "assets"
DIGEST = "Results"  # keyword of the digest inside the PNG
MEASURES = ("ap50", "bleed", "clip")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
DOTS_PER_INCH = 110


@dataclass(frozen=True)
class Plot:
    """A plot: which rows it shows, how, and the command that measures them."""

    draw: Callable[[Sequence[dict]], Figure]
    text: str
    command: str


def draw_sweeps(rows: Sequence[dict], measures: Sequence[str] = MEASURES) -> Figure:
    """A column per sweep, a row per measure, a line per method; names instead of numbers are drawn as points."""
    names = list(dict.fromkeys(row["sweep"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(2.9 * len(names) + 0.6, 6.2), layout="constrained")
    grid = figure.subplots(len(measures), len(names), sharey="row", sharex="col", squeeze=False)
    for column, name in enumerate(names):
        of_sweep = [row for row in rows if row["sweep"] == name]
        values = list(dict.fromkeys(row["value"] for row in of_sweep))
        words = any(isinstance(value, str) for value in values)
        for axes, measure in zip(grid[:, column], measures, strict=True):
            for method in methods:
                shown = [row for row in of_sweep if row["method"] == method and row[measure] is not None]
                x = [values.index(row["value"]) if words else row["value"] for row in shown]
                look = "o" if words else "o-"
                colour = COLOURS[methods.index(method) % len(COLOURS)]
                axes.plot(x, [row[measure] for row in shown], look, markersize=4, color=colour, label=method)
            if words:
                axes.set_xticks(range(len(values)), [value or "(none)" for value in values])
                axes.set_xlim(-0.5, len(values) - 0.5)
            elif min(values) > 0 and max(values) > 20 * min(values):
                axes.set_xscale("log")
                axes.set_xticks(values, map(str, values))
                axes.minorticks_off()
        grid[-1, column].set_xlabel(name)
    _label(grid[:, 0], measures, along_y=True)
    # A method has no line in the sweeps that do not vary it, but an entry everywhere.
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(methods))
    return figure


def draw_ablation(rows: Sequence[dict]) -> Figure:
    """A row per method, a column per measure, a point per number of objects."""
    rows = [row for row in rows if row["set"] in LAYOUT_SETS]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure = Figure(figsize=(9.0, 0.4 * len(methods) + 1.4), layout="constrained")
    grid = figure.subplots(1, len(MEASURES), sharey=True)
    for axes, measure in zip(grid, MEASURES, strict=True):
        for colour, set_name in zip(COLOURS, LAYOUT_SETS, strict=False):
            shown = [row for row in rows if row["set"] == set_name and row[measure] is not None]
            y = [methods.index(row["method"]) for row in shown]
            axes.plot([row[measure] for row in shown], y, "o", color=colour, label=set_name)
        axes.set_yticks(range(len(methods)), methods)
    grid[0].invert_yaxis()  # the first method at the top
    _label(grid, MEASURES, along_y=False)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(LAYOUT_SETS))
    return figure


def _label(panels: Sequence[Axes], measures: Sequence[str], along_y: bool) -> None:
    for axes, measure in zip(panels, measures, strict=True):
        better = "lower is better" if measure == "bleed" else "higher is better"
        label = f"{HEADINGS.get(measure, measure)}\n({better})"
        if along_y:
            axes.set_ylabel(label)
        else:
            axes.set_xlabel(label)


# The results file, the picture and the README's marker have the plot's name.
PLOTS = {
    "sweeps": Plot(
        draw_sweeps,
        "One setting at a time on the tuning layouts",
        "python stage.py evaluate --sweep all",
    ),
    "ablation": Plot(
        draw_ablation,
        "Layered rendering, and what becomes of it when one part is changed",
        "python stage.py evaluate --ablation",
    ),
    "sali_sweeps": Plot(
        partial(draw_sweeps, measures=("box_iou", "ap50", "clip")),
        "Spatial latents and attention guidance, one setting at a time on the tuning layouts",
        "python stage.py evaluate --sweep sali",
    ),
    "tcig_sweeps": Plot(
        partial(draw_sweeps, measures=("mask_iou", "presence", "clip")),
        "TCIG's second stage at every strength, from its drafts and from flat drawings, on the tuning layouts",
        "python stage.py evaluate tcig --tuning",
    ),
    "growth": Plot(
        draw_growth,
        "What a step costs as regions, canvas, tokens and layers grow",
        "python stage.py bench growth",
    ),
}


def picture_of(name: str) -> Path:
    """Where a plot lies."""
    return FOLDER / f"{name}.png"


def digest(rows: Sequence[dict]) -> str:
    """Name rows by what is in them."""
    return hashlib.sha256(json.dumps(list(rows)).encode()).hexdigest()[:16]


def shown_digest(path: Path) -> str | None:
    """The digest of the rows that a plot shows, None in a picture that is not a plot of ours."""
    with Image.open(path, formats=["PNG"]) as picture:
        return picture.info.get(DIGEST)


def write(name: str) -> Path:
    """Draw a plot from its result file.

    Raises:
        FileNotFoundError: there are no such results.
    """
    rows, path = read_results(RESULTS / f"{name}.json")["rows"], picture_of(name)
    path.parent.mkdir(exist_ok=True)
    PLOTS[name].draw(rows).savefig(path, dpi=DOTS_PER_INCH, metadata={DIGEST: digest(rows)})
    return path


def redraw(results: Path) -> list[Path]:
    """Draw the plots of a committed result file that has just been written; nothing for other files."""
    return [write(results.stem)] if results.parent == RESULTS and results.stem in PLOTS else []


def main(argv: Sequence[str] | None = None) -> int:
    """Draw every plot that has results; returns the exit status."""
    for name in PLOTS:
        for path in redraw(RESULTS / f"{name}.json") if (RESULTS / f"{name}.json").exists() else ():
            print(f"written: {path}")
    return 0
