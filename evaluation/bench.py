"""`python stage.py bench`: speed at a real ComfyUI server after warm-up, as ratios to a baseline of the same run."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from tqdm import tqdm

from ..commands.comfy_server import ComfyServer, PromptFailed, PromptRejected
from ..commands.environment import current_environment
from ..commands.messages import SetupProblem
from .cli import RESULTS, write_results
from .methods import STEPS
from .painting import Painter
from .sets import LAYOUT_SETS, Item, load_set
from .tables import bench_table
from .yardsticks import ROOT

REPEATS = 5  # of every measurement; the median counts
ROW_KEYS = ("name", "value", "unit", "baseline", "ratio")


def first_of_boxes(set_name: str) -> Item:
    """A set's first layout of boxes of medium size: the same one in every run."""
    return next(item for item in load_set(set_name) if item.tags == ("boxes", "medium"))


def measure_in_turns(jobs: dict[str, Callable[[int], float]], repeats: int = REPEATS) -> dict[str, float]:
    """Run every job once to warm up, then all of them in turns.

    Args:
        jobs: each takes the turn's number, so that no turn asks for what the server still has in its cache, and
            returns seconds.
        repeats: turns that count.

    Returns:
        Each job's median.
    """
    times: dict[str, list[float]] = {name: [] for name in jobs}
    with tqdm(total=len(jobs) * (repeats + 1), unit="run") as bar:
        for turn in range(repeats + 1):
            for name, job in jobs.items():
                bar.set_description(name)
                seconds = job(turn)
                if turn:
                    times[name].append(seconds)
                bar.update()
    return {name: median(values) for name, values in times.items()}


def _row(name: str, seconds: float, baseline: float | None = None) -> dict:
    """One row with DESIGN's keys; the unit is seconds of one picture."""
    ratio = None if baseline is None else round(seconds / baseline, 3)
    values = (name, round(seconds, 3), "s", None if baseline is None else round(baseline, 3), ratio)
    return dict(zip(ROW_KEYS, values, strict=True))


def _job(painter: Painter, method: str, item: Item) -> Callable[[int], float]:
    """Seconds of one picture of a layout, with other noise each turn."""
    return lambda turn: painter.paint(method, replace(item, seed=item.seed + turn), 1)[1]


def bench_picture(painter: Painter) -> list[dict]:
    """A plain picture with CFG."""
    item, name = first_of_boxes(LAYOUT_SETS[0]), f"picture, {STEPS} steps with CFG"
    times = measure_in_turns({name: _job(painter, "plain", item)})
    return [_row(name, times[name])]


def bench_layered(painter: Painter) -> list[dict]:
    """Layered rendering with 1, 2 and 3 regions against a plain picture."""
    items = [first_of_boxes(name) for name in LAYOUT_SETS]
    jobs = {"plain": _job(painter, "plain", items[0])}
    for item in items:
        jobs[f"layered rendering, regions: {len(item.layout.regions)}"] = _job(painter, "lrdiff", item)
    times = measure_in_turns(jobs)
    return [_row(name, seconds, times["plain"]) for name, seconds in times.items() if name != "plain"]


BENCHES: dict[str, Callable[[Painter], list[dict]]] = {"picture": bench_picture, "layered": bench_layered}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    Raises:
        SetupProblem: the models are missing, or the server refuses a graph or fails at one.
    """
    parser = argparse.ArgumentParser(prog="stage.py bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHES)}; default: all of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here instead of evaluation/results")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"there is no bench {unknown[0]!r}; choose from {', '.join(BENCHES)}")
    names = [name for name in BENCHES if name in (options.names or BENCHES)]
    try:
        with ComfyServer(current_environment(), ROOT) as server:
            rows = [row for name in names for row in BENCHES[name](Painter(server))]
    except (PromptFailed, PromptRejected) as error:
        raise SetupProblem(str(error)) from error
    print(bench_table(rows))
    path = options.json or (RESULTS / "bench.json" if len(names) == len(BENCHES) else None)
    if path is not None:
        write_results(path, {"rows": rows})
        print(f"written: {path}")
    return 0
