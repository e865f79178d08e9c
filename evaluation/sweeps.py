"""One setting at a time on the tuning set: where the methods' defaults come from, and the competitor's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from .graphs.builder import Method
from .graphs.lrdiff import ALL_PHRASES, LRDiff
from .graphs.methods import METHODS
from .graphs.sali import METHODS as SALI_METHODS
from .graphs.sali import ODE, SDE
from .judging.scoring import layout_lines, score, spread
from .judging.yardsticks import Yardsticks
from .painter import Painter
from .records.lines import PictureLine
from .result_rows import read_results, write_results
from .sets.sets import TUNING_SET, Item, load_set
from .summary.rows import summary_row

KEY = ("sweep", "value", "method")
SALI_FILE = "sali_sweeps"
SCORES = ("ap50", "box_iou", "mask_iou", "bleed", "presence", "clip", "pictures")
INTERVALS = "intervals"  # of the scores, where they were measured
# What the settings that are not varied stand at: the defaults as they were before the sweeps.
BEFORE = LRDiff(t0=0.5, strength=0.6)
STARTS: dict[str, Method] = {
    "lrdiff": BEFORE,
    "lrdiff_dynamic": replace(BEFORE, strength=1.0, delta="dynamic"),
    "lrdiff_trajectories": replace(BEFORE, mode="trajectories"),
    "lrdiff_crop": replace(BEFORE, crop=True),
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
    "strength": Sweep((0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0), ("lrdiff", "lrdiff_dynamic")),
    "top_k": Sweep((1, 5, 20, 80, 160), ("lrdiff_dynamic",)),
    "t0": Sweep((0.1, 0.2, 0.3, 0.5, 0.7, 0.9), ("lrdiff", "lrdiff_dynamic", "lrdiff_trajectories")),
    "mode": Sweep(("paper", "trajectories"), ("lrdiff", "lrdiff_dynamic")),
    "background_negative": Sweep(("", ALL_PHRASES), ("lrdiff", "lrdiff_trajectories")),
    "crop_margin": Sweep((0, 2, 4, 8), ("lrdiff_crop",)),
    "bootstrapped": Sweep((0.0, 0.2, 0.4, 0.6, 0.8), ("multidiffusion",)),
    "inversion_steps": Sweep((2, 5, 10, 20, 50), ("spatial_latent",), SALI_FILE),
    "guidance_iterations": Sweep((1, 3, 5, 10), ("chen",), SALI_FILE),
    "guidance_strength": Sweep((0.0, 0.1, 0.2, 0.3, 0.5, 1.0), ("chen",), SALI_FILE),
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


def measure(painter: Painter, yardsticks: Yardsticks, items: Sequence[Item], seeds: int) -> Callable[[Point], dict]:
    """Make the function that paints and scores a point; points with the same settings are painted once."""
    known: dict[Method, dict] = {}

    def row_of(point: Point) -> dict:
        settings = settings_of(point)
        if settings not in known:
            lines: list[PictureLine] = []
            for item in items:
                painted = score(yardsticks, point[2], TUNING_SET, item, *painter.paint(settings, item, seeds))
                lines += layout_lines(yardsticks, painted, with_features=False)
            known[settings] = summary_row(point[2], TUNING_SET, lines)
        return dict(zip(KEY, point, strict=True)) | {key: known[settings][key] for key in (*SCORES, INTERVALS)}

    return row_of


def collect(
    names: Sequence[str], row_of: Callable[[Point], dict], pictures: int, path: Path | None, resume: bool
) -> list[dict]:
    """Measure sweeps and keep a result file up to date after every point.

    Args:
        names: of the sweeps.
        row_of: measures a point.
        pictures: how many each point is measured on.
        path: the file; rows of other sweeps stay in it. None writes nothing.
        resume: take the rows of these sweeps that the file already has, where they are of as many pictures.

    Returns:
        The rows of the named sweeps.
    """
    before = read_results(path)["rows"] if path is not None and path.exists() else []
    kept = {tuple(row[key] for key in KEY): row for row in before}
    wanted = points(names)
    if not resume:
        kept = {point: row for point, row in kept.items() if point not in wanted}
    todo = [point for point in wanted if kept.get(point, {}).get("pictures") != pictures]
    with tqdm(todo, unit="value") as bar:
        for point in bar:
            bar.set_description(" ".join(map(str, point)))
            kept[point] = row_of(point)
            if path is not None:
                write_results(path, {"rows": [kept[point] for point in points(tuple(SWEEPS)) if point in kept]})
    return [kept[point] for point in wanted]


def run(
    painter: Painter,
    yardsticks: Yardsticks,
    names: Sequence[str],
    *,
    layouts: int | None,
    seeds: int,
    path: Path | None,
    resume: bool,
) -> list[dict]:
    """Sweep on the tuning set; see `collect`.

    Args:
        painter: of an `evaluation_server`.
        yardsticks: the judges.
        names: of the sweeps.
        layouts: of the tuning set; None takes all.
        seeds: pictures per layout.
        path: the result file.
        resume: go on where an earlier run stopped.
    """
    items = spread(load_set(TUNING_SET), layouts)
    return collect(names, measure(painter, yardsticks, items, seeds), len(items) * seeds, path, resume)
