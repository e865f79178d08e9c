"""One setting at a time on the tuning set: where the methods' defaults come from, and the competitor's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..core.layered_rendering.parts import DEFAULT_MARGIN
from .graphs.builder import Method
from .graphs.lrdiff import ALL_PHRASES, LRDiff
from .graphs.methods import METHODS
from .graphs.sali import METHODS as SALI_METHODS
from .graphs.sali import ODE, SDE
from .judging.scoring import layout_lines, score, spread
from .judging.yardsticks import Yardsticks
from .painter import Painter
from .records.lines import Key
from .records.pictures import PictureRecords
from .result_rows import read_results, write_results
from .sets.sets import TUNING_SET, Item, load_set
from .summary.compared import Compared
from .summary.rows import summary_row

KEY = ("sweep", "value", "method")
NAMED = "{2}, {0} = {1}"  # the method of a point's pictures
SALI_FILE = "sali_sweeps"
SCORES = ("ap50", "box_iou", "mask_iou", "bleed", "presence", "clip", "pictures")
INTERVALS = "intervals"  # of the scores, where they were measured
LOSS_AT_DEFAULT = -0.10  # of AP@0.5, against the best other value of a sweep: what is asked of the defaults
# What the settings that are not varied stand at: the defaults.
STARTS: dict[str, Method] = {
    "lrdiff": LRDiff(),
    "lrdiff_colours": LRDiff(source="colour", colours="true"),
    "lrdiff_trajectories": LRDiff(mode="trajectories"),
    "lrdiff_crop": LRDiff(crop=True, crop_margin=DEFAULT_MARGIN),
    "multidiffusion": METHODS["multidiffusion"],
    **SALI_METHODS,
}


@dataclass(frozen=True)
class Sweep:
    """The values of a setting, the methods whose other settings stay as they are, and the file that keeps the rows."""

    values: tuple[float | int | str, ...]
    methods: tuple[str, ...]
    file: str = "sweeps"


SWEEPS = {  # by setting
    "strength": Sweep((0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0), ("lrdiff", "lrdiff_colours")),
    "top_k": Sweep((1, 5, 20, 80, 160), ("lrdiff",)),
    "end_at": Sweep((0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0), ("lrdiff", "lrdiff_trajectories", "multidiffusion")),
    "mode": Sweep(("paper", "trajectories"), ("lrdiff", "lrdiff_colours")),
    "background_negative": Sweep(("", ALL_PHRASES), ("lrdiff", "lrdiff_trajectories", "multidiffusion")),
    "crop_margin": Sweep((0, 2, 4, 8, 12, 16), ("lrdiff_crop",)),
    "bootstrapped": Sweep((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), ("multidiffusion",)),
    "inversion_steps": Sweep((2, 5, 10, 20, 50), ("spatial_latent",), SALI_FILE),
    "guidance_iterations": Sweep((1, 3, 5, 10), ("chen",), SALI_FILE),
    "guidance_strength": Sweep((0.0, 0.1, 0.2, 0.3, 0.5, 1.0), ("chen",), SALI_FILE),
    "eta": Sweep((0.0, 0.1, 0.3, 1.0, 3.0, 10.0), ("sali_regularised",), SALI_FILE),
    "background": Sweep(("drawn", "grey noise", "white"), ("spatial_latent",), SALI_FILE),
    "start": Sweep((ODE, SDE), ("spatial_latent",), SALI_FILE),
}

Point = tuple[str, float | int | str, str]  # as `KEY`


def points(names: Sequence[str]) -> list[Point]:
    """Every value of these sweeps with every method that it is tried on, in the order of result files."""
    chosen = {name: sweep for name, sweep in SWEEPS.items() if name in names}
    return [
        (name, value, method) for name, sweep in chosen.items() for method in sweep.methods for value in sweep.values
    ]


def settings_of(point: Point) -> Method:
    """The method that paints a point."""
    name, value, method = point
    return replace(STARTS[method], **{name: value})


def keys_of(point: Point, item: Item, seeds: int) -> list[Key]:
    """What names the pictures of a point for an item; points with the same settings have the same pictures."""
    return [(NAMED.format(*_painted_as(point)), TUNING_SET, item.seed, number) for number in range(seeds)]


def _painted_as(point: Point) -> Point:
    """The first point with the same settings."""
    settings = settings_of(point)
    return next(each for each in points(tuple(SWEEPS)) if settings_of(each) == settings)


def paint(
    painter: Painter, yardsticks: Yardsticks, records: PictureRecords, point: Point, items: Sequence[Item], seeds: int
) -> None:
    """Paint and judge what the records lack of a point."""
    for item in items:
        keys = keys_of(point, item, seeds)
        if not records.has_all(keys):
            painting = painter.paint(settings_of(point), item, seeds)
            painted = score(yardsticks, keys[0][0], TUNING_SET, item, *painting)
            records.add(layout_lines(yardsticks, painted, with_features=False))


def row_of(records: PictureRecords, point: Point, items: Sequence[Item], seeds: int) -> dict | None:
    """The row of a point, None while pictures of it are missing."""
    lines = [records.get(key) for item in items for key in keys_of(point, item, seeds)]
    if None in lines:
        return None
    row = summary_row(point[2], TUNING_SET, lines)
    return dict(zip(KEY, point, strict=True)) | {key: row[key] for key in (*SCORES, INTERVALS)}


def defaults_beside_the_best(records: PictureRecords, names: Sequence[str]) -> list[dict]:
    """AP@0.5 at a default against the best other value of its sweep, a measure for each method and setting.

    The best of many values is the best by chance too, so that a default loses no more than is shown.
    """
    compared, measures = Compared(records, (TUNING_SET,)), []
    for name, sweep in SWEEPS.items():
        for method in sweep.methods if name in names else ():
            default = (name, getattr(STARTS[method], name), method)
            tried = {(name, value, method): value for value in sweep.values}
            if tried.pop(default, None) is not None and tried:
                called = {point: NAMED.format(*_painted_as(point)) for point in (default, *tried)}
                gains = {point: compared.gain(called[default], called[point], "ap50") for point in tried}
                # What is no quotient, because the other has no AP at all, is no rival.
                best = min(tried, key=lambda point: np.inf if gains[point].value is None else gains[point].value)
                shown = f"AP@0.5, {method}: default {name} {default[1]!r} against {best[1]!r}, the best of the others"
                measures.append(gains[best].measure(shown, "relative", LOSS_AT_DEFAULT))
    return measures


def run(
    painter: Painter,
    yardsticks: Yardsticks,
    names: Sequence[str],
    records: PictureRecords,
    *,
    layouts: int | None,
    seeds: int,
    path: Path | None,
) -> dict[str, list[dict]]:
    """Sweep on the tuning set, and keep a result file up to date after every point, and measures at the end.

    Args:
        painter: of an `evaluation_server`.
        yardsticks: the judges.
        names: of the sweeps.
        records: that keep the pictures' scores.
        layouts: of the tuning set; None takes all.
        seeds: pictures per layout.
        path: the result file; rows of other sweeps stay in it. None writes nothing.

    Returns:
        The rows of the named sweeps, and how the defaults do in all sweeps that are whole.
    """
    items, every, wanted = spread(load_set(TUNING_SET), layouts), points(tuple(SWEEPS)), points(names)
    before = read_results(path)["rows"] if path is not None and path.exists() else []
    if any(row["sweep"] not in SWEEPS for row in before):
        before = []  # painted when settings had other names and units, so that equal values are not the same
    kept = {tuple(row[key] for key in KEY): row for row in before}
    rows = {point: row for point in every if (row := row_of(records, point, items, seeds)) is not None}
    with tqdm(wanted, unit="value") as bar:
        for point in bar:
            bar.set_description(" ".join(map(str, point)))
            paint(painter, yardsticks, records, point, items, seeds)
            rows[point] = rows.get(point) or row_of(records, point, items, seeds)
            if path is not None:
                shown = {point: row for point in every if (row := rows.get(point) or kept.get(point)) is not None}
                # Rows of which no pictures are kept are of another run, so that the file is not of this one alone.
                origin = {"provenance": [records.provenance]} if shown.keys() <= rows.keys() else {}
                write_results(path, origin | {"rows": list(shown.values())})
    whole = [name for name in SWEEPS if all(point in rows for point in points((name,)))]
    measures = defaults_beside_the_best(records, whole)
    if path is not None and measures:
        write_results(path, read_results(path) | {"measures": measures})
    return {"rows": [rows[point] for point in wanted], "measures": measures}
