"""`python stage.py bench`: speed after warm-up, as ratios to a baseline of the same run; most at a real server."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from tqdm import tqdm

from ...commands.comfy_api import PromptFailed, PromptRejected
from ...commands.comfy_server import ComfyServer
from ...commands.environment import CLONE, current_environment
from ...commands.messages import SetupProblem
from ...core.layout.layout import Layout
from ...core.layout.region import Region
from ...sticker_world.shipped import CHECKPOINT_FILE
from ...sticker_world.world.concepts import CANVAS
from ..graphs.builder import STEPS, Graph
from ..graphs.lrdiff import LRDiff
from ..graphs.methods import METHODS
from ..graphs.plain import plain_prompt
from ..pages.growth_pages import growth_table
from ..pages.tables import bench_table
from ..painter import Painter
from ..records.provenance import provenance
from ..result_rows import RESULTS, bench_row, read_results, write_results
from ..sets.sets import LAYOUT_SETS, Item, load_set
from .growth import RESULTS_FILE, bench_growth
from .guidance import bench_guidance
from .joint import bench_joint
from .soft import bench_soft
from .tcig import bench_tcig

MILLISECONDS = 1000.0
REPEATS = 5  # of every measurement; the median counts
# Four boxes of a tenth of the canvas each, apart from each other and not on the grid of latent cells.
SIDE = 0.1**0.5
QUARTERS = [(x, y, x + SIDE, y + SIDE) for y in (0.09, 0.59) for x in (0.09, 0.59)]
THINGS = {"a dog": "#c58c76", "a cat": "#f3a04b", "a duck": "#a9a19e", "a frog": "#a1be72"}


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


def _step_row(name: str, seconds: float, baseline: float) -> dict:
    return bench_row(name, MILLISECONDS * seconds, MILLISECONDS * baseline, "ms")


def _job(painter: Painter, method: str, item: Item) -> Callable[[int], float]:
    """Seconds of one picture of a layout, with other noise each turn."""
    masks = painter.masks(item)
    return lambda turn: painter.paint_graph(METHODS[method](item.layout, item.seed + turn, 1, masks))[1]


def _step_job(painter: Painter, graph: Callable[..., Graph]) -> Callable[[int], float]:
    """Seconds of one sampler step: what `STEPS` more steps cost, so that nothing before and after them counts.

    Args:
        painter: of a running server.
        graph: (seed, steps) -> graph.
    """

    def seconds(seed: int, steps: int) -> float:
        pictures, each = painter.paint_graph(graph(seed, steps))
        return each * len(pictures)

    def job(turn: int) -> float:
        seed = 3 * turn
        seconds(seed, 1)  # from here on the server has the prompts and layers in its cache, for both that count
        short = seconds(seed + 1, 1)
        return (seconds(seed + 2, 1 + STEPS) - short) / STEPS

    return job


def rows_of_step(layout: Layout) -> int:
    """Rows of the model in a layered step: each layer with its prompt and its negative prompt."""
    return 2 * (1 + len(layout.regions))


def four_boxes() -> Layout:
    """The layout that `crop` is measured on."""
    regions = tuple(
        Region(phrase, box=box, colour=colour) for (phrase, colour), box in zip(THINGS.items(), QUARTERS, strict=True)
    )
    return Layout(CANVAS, CANVAS, "", "on a green meadow", regions)


def bench_picture(painter: Painter) -> list[dict]:
    """A plain picture with CFG."""
    item, name = first_of_boxes(LAYOUT_SETS[0]), f"picture, {STEPS} steps with CFG"
    times = measure_in_turns({name: _job(painter, "plain", item)})
    return [bench_row(name, times[name])]


def bench_layered(painter: Painter) -> list[dict]:
    """Layered rendering with 1, 2 and 3 regions against a plain picture, then step by step, and cropped."""
    items = [first_of_boxes(name) for name in LAYOUT_SETS]
    jobs = {"plain": _job(painter, "plain", items[0])}
    for item in items:
        jobs[f"layered rendering, regions: {len(item.layout.regions)}"] = _job(painter, "lrdiff", item)
    times = measure_in_turns(jobs)
    pictures = [bench_row(name, seconds, times["plain"]) for name, seconds in times.items() if name != "plain"]
    return pictures + _layered_steps(painter, [item.layout for item in items]) + _cropped_steps(painter)


def _layered_steps(painter: Painter, layouts: Sequence[Layout]) -> list[dict]:
    """A layered step against a plain step of as many rows of the model, which is a batch of plain pictures.

    Both evaluate these rows at once, so the ratio is what layers cost beyond the model's own work.
    """
    layered = LRDiff(end_at=1.0)  # every step
    jobs: dict[str, Callable[[int], float]] = {}
    for layout in layouts:
        rows = rows_of_step(layout)
        jobs[f"layered step, rows: {rows}"] = _step_job(
            painter, lambda seed, steps, layout=layout: layered(layout, seed, 1, steps=steps)
        )
        jobs[f"plain step, rows: {rows}"] = _step_job(
            painter, lambda seed, steps, layout=layout, rows=rows: plain_prompt(layout.prompt, seed, rows // 2, steps)
        )
    times = measure_in_turns(jobs)
    found = []
    for layout in layouts:
        rows = rows_of_step(layout)
        name = f"layered step, regions: {len(layout.regions)}, against a plain one of as many rows ({rows})"
        found.append(_step_row(name, times[f"layered step, rows: {rows}"], times[f"plain step, rows: {rows}"]))
    return found


def _cropped_steps(painter: Painter) -> list[dict]:
    """A layered step with every layer cropped to its box, against one without."""
    layout, jobs = four_boxes(), {}
    for name, crop in (("whole", False), ("cropped", True)):
        method = LRDiff(end_at=1.0, crop=crop)
        jobs[name] = _step_job(painter, lambda seed, steps, method=method: method(layout, seed, 1, steps=steps))
    times = measure_in_turns(jobs)
    return [_step_row("layered step, 4 boxes of a tenth, crop against none", times["cropped"], times["whole"])]


AT_SERVER: dict[str, Callable[[Painter], list[dict]]] = {"picture": bench_picture, "layered": bench_layered}
BY_ITSELF: dict[str, Callable[[bool], list[dict]]] = {
    "guidance": bench_guidance,
    "joint": bench_joint,
    "soft": bench_soft,
    "tcig": bench_tcig,
}
BENCHES = (*AT_SERVER, *BY_ITSELF)
GROWTH = "growth"  # has rows and a file of its own, and runs where it is named alone


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    Raises:
        SetupProblem: the models are missing, or the server refuses a graph or fails at one.
    """
    parser = argparse.ArgumentParser(prog="stage.py bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHES)}; default: all of them; or {GROWTH}"
    )
    kept = "write the rows here instead of evaluation/results; a file that is there keeps its other rows"
    parser.add_argument("--json", type=Path, metavar="FILE", help=kept)
    alone = ", ".join((*BY_ITSELF, GROWTH))
    small = f"a small network, to see that it runs; for {alone}, and nothing goes to evaluation/results"
    parser.add_argument("--small", "--quick", action="store_true", help=small)
    counts = f"with {GROWTH}: count evaluations, operations and memory, which no other program changes; time nothing"
    parser.add_argument("--counts", action="store_true", help=counts)
    options = parser.parse_args(argv)
    if options.counts and options.names != [GROWTH]:
        parser.error(f"--counts is for {GROWTH}, without other names")
    if options.names == [GROWTH]:
        return _growth(options)
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"there is no bench {unknown[0]!r}; choose from {', '.join(BENCHES)}")
    names = [name for name in BENCHES if name in (options.names or BENCHES)]
    rows = []
    try:
        if at_server := [name for name in names if name in AT_SERVER]:
            with ComfyServer(current_environment(), CLONE) as server:
                rows += [row for name in at_server for row in AT_SERVER[name](Painter(server))]
    except (PromptFailed, PromptRejected) as error:
        raise SetupProblem(str(error)) from error
    rows += [row for name in names if name in BY_ITSELF for row in BY_ITSELF[name](options.small)]
    print(bench_table(rows))
    whole = len(names) == len(BENCHES) and not options.small
    path = options.json or (RESULTS / "bench.json" if whole else None)
    if path is not None:
        write_results(path, _origin(options) | {"rows": rows} if whole else {"rows": _beside(path, rows)})
        print(f"written: {path}")
    return 0


def _growth(options: argparse.Namespace) -> int:
    rows = bench_growth(options.small, timed=not options.counts)
    print(growth_table(rows))
    path = options.json or (None if options.small else RESULTS_FILE)
    if path is not None:
        write_results(path, _origin(options) | {"rows": rows})
        print(f"written: {path}")
    return 0


def _origin(options: argparse.Namespace) -> dict[str, list[dict]]:
    """Where the rows of one run come from; rows beside those of another run have no single origin."""
    settings = {"names": options.names or "all", "small": options.small, "timed": not options.counts}
    return {"provenance": [provenance({"checkpoint": CHECKPOINT_FILE}, settings)]}


def _beside(path: Path, rows: list[dict]) -> list[dict]:
    """A file's rows, with those of the same name replaced and new ones added."""
    measured = {row["name"]: row for row in rows}
    before = {row["name"]: row for row in read_results(path)["rows"]} if path.is_file() else {}
    return list((before | measured).values())
