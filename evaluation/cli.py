"""`python stage.py evaluate`: every method on the same layouts and noise, in one run on one real ComfyUI server."""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..commands.comfy_server import ComfyServer, PromptFailed, PromptRejected
from ..commands.environment import current_environment
from ..commands.messages import SetupProblem
from ..core.layout_score import RegionScore, score_pictures
from ..core.segmentation import SegmenterError
from . import base
from .methods import METHODS
from .painting import Painter
from .sets import LAYOUT_SETS, TUNING_SET, Item, load_presence, load_set
from .tables import measures_table, results_table
from .yardsticks import ROOT, Yardsticks, image_scores, result_row, to_images

RESULTS = Path(__file__).parent / "results"
PERFECT = "perfect"  # the layouts' own sprites, pasted: what the judge gives a picture that does all it was asked
BASE = "base"
CHOICES = (*METHODS, PERFECT, BASE)


@dataclass(frozen=True)
class Painted:
    """One picture, where it came from and how it scored."""

    method: str
    set_name: str
    item: Item
    picture: np.ndarray
    seconds: float | None
    scores: list[RegionScore]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    Raises:
        SetupProblem: the models are missing, or the server refuses a graph or fails at one.
    """
    options = _parse(argv)
    everything = [name for name in CHOICES if not (options.tuning and name == BASE)]
    methods = [name for name in CHOICES if name in (options.methods or everything)]
    try:
        yardsticks = Yardsticks.load()
        if set(methods) <= {PERFECT}:
            results = {"layouts": _evaluate_layouts(None, yardsticks, methods, options)}
        else:
            with ComfyServer(current_environment(), ROOT) as server:
                results = _evaluate(Painter(server), yardsticks, methods, options)
    except (PromptFailed, PromptRejected, SegmenterError, FileNotFoundError) as error:
        raise SetupProblem(str(error)) from error
    _print(results)
    for path, content in result_files(results, methods, options):
        write_results(path, content)
        print(f"written: {path}")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="stage.py evaluate", description=__doc__)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"{', '.join(CHOICES)}; default: all of them")
    parser.add_argument("--layouts", type=int, metavar="N", help="layouts (or prompts) per set; default: all of them")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="pictures per layout; default: 1")
    parser.add_argument("--tuning", action="store_true", help="use the tuning set, the only one to choose settings on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write here instead of evaluation/results")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="also keep every picture in this folder")
    options = parser.parse_args(argv)
    unknown = [name for name in options.methods if name not in CHOICES]
    if unknown:
        parser.error(f"there is no method {unknown[0]!r}; choose from {', '.join(CHOICES)}")
    if options.seeds < 1 or (options.layouts is not None and options.layouts < 1):
        parser.error("--layouts and --seeds must be 1 or more")
    return options


def _evaluate(painter: Painter, yardsticks: Yardsticks, methods: list[str], options: argparse.Namespace) -> dict:
    results = {}
    layout_methods = [name for name in methods if name != BASE]
    if layout_methods:
        results["layouts"] = _evaluate_layouts(painter, yardsticks, layout_methods, options)
    if BASE in methods:
        results["base"] = _evaluate_base(painter, yardsticks, options)
    return results


def spread(rows: Sequence, number: int | None) -> list:
    """Take `number` rows from the whole length of a list, so that every category keeps its share."""
    if number is None or number >= len(rows):
        return list(rows)
    return [rows[(2 * i + 1) * len(rows) // (2 * number)] for i in range(number)]


def _evaluate_layouts(
    painter: Painter | None, yardsticks: Yardsticks, methods: list[str], options: argparse.Namespace
) -> dict:
    names = (TUNING_SET,) if options.tuning else LAYOUT_SETS
    jobs = [(name, item) for name in names for item in spread(load_set(name), options.layouts)]
    painted: list[Painted] = []
    if painter is not None:
        painter.paint_prompt("warm-up", 0)  # loading the checkpoint is not part of the first picture's time
    # Methods take turns on every layout, so that a slow minute of the machine falls on all of them.
    with tqdm(total=len(jobs) * len(methods), unit="layout") as bar:
        for set_name, item in jobs:
            for method in methods:
                bar.set_description(f"{set_name} {method}")
                if method == PERFECT:
                    pictures, seconds = [item.perfect_picture()], None
                else:
                    pictures, seconds = painter.paint(method, item, options.seeds)
                times = len(pictures)
                scores = score_pictures(
                    to_images(pictures), [item.layout] * times, yardsticks.segmenter, [item.areas] * times
                )
                for number, (picture, score) in enumerate(zip(pictures, scores, strict=True)):
                    painted.append(Painted(method, set_name, item, picture, seconds, score))
                    _keep(options.pictures, f"{set_name}_{item.seed}_{number}_{method}", picture)
                bar.update()
    return {"rows": list(_layout_rows(yardsticks, painted, names, methods))}


def _layout_rows(
    yardsticks: Yardsticks, painted: list[Painted], names: Sequence[str], methods: list[str]
) -> Iterable[dict]:
    """A row per set and method, then one per kind and category of the set ("objects_2/masks")."""
    for set_name in names:
        of_set = [p for p in painted if p.set_name == set_name]
        kinds, categories = zip(*(p.item.tags for p in of_set), strict=True)
        for tag in (None, *dict.fromkeys(kinds), *dict.fromkeys(categories)):
            for method in methods:
                chosen = [p for p in of_set if p.method == method and (tag is None or tag in p.item.tags)]
                if chosen:
                    yield _layout_row(yardsticks, chosen, tag)


def _layout_row(yardsticks: Yardsticks, painted: list[Painted], tag: str | None) -> dict:
    first = painted[0]
    features = yardsticks.image_features([p.picture for p in painted])
    objects = len(first.item.layout.regions) if tag is None else None  # a tag has too few pictures for KID
    images = image_scores(yardsticks, features, [p.item.layout.prompt for p in painted], objects)
    name = first.set_name if tag is None else f"{first.set_name}/{tag}"
    return result_row(first.method, name, [p.scores for p in painted], images, [p.seconds for p in painted])


def _evaluate_base(painter: Painter, yardsticks: Yardsticks, options: argparse.Namespace) -> dict:
    rows = []
    for objects in (1, 2, 3):
        prompts = spread(load_presence(objects), options.layouts)
        pictures, seconds = [], []
        for prompt in tqdm(prompts, base.presence_set(objects), unit="picture"):
            (picture,), duration = painter.paint_prompt(prompt.prompt, prompt.seed)
            pictures.append(picture)
            seconds.append(duration)
            _keep(options.pictures, f"{base.presence_set(objects)}_{prompt.seed}", picture)
        texts, concepts = [prompt.prompt for prompt in prompts], [prompt.concepts for prompt in prompts]
        rows.append(base.presence_row(yardsticks, "plain", pictures, texts, concepts, seconds))
        rows.append(base.ceiling_row(yardsticks, objects, len(prompts)))
    return {"rows": rows, "measures": base.measures(yardsticks)}


def _keep(folder: Path | None, name: str, picture: np.ndarray) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{name}.png")


def _print(results: dict) -> None:
    for content in results.values():
        print("\n" + results_table(content["rows"]))
        if "measures" in content:
            print("\n" + measures_table(content["measures"]))


def result_files(results: dict, methods: list[str], options: argparse.Namespace) -> list[tuple[Path, dict]]:
    """Where results go: to --json all in one, else one committed file per group, but only of a full run."""
    if options.json:
        merged = {"rows": [row for content in results.values() for row in content["rows"]]}
        measures = [measure for content in results.values() for measure in content.get("measures", [])]
        return [(options.json, merged | ({"measures": measures} if measures else {}))]
    if options.tuning or options.layouts is not None:
        return []
    full = {"layouts": set(methods) >= {*METHODS, PERFECT}, "base": True}
    return [(RESULTS / f"{group}.json", content) for group, content in results.items() if full[group]]


def write_results(path: Path, content: dict) -> None:
    """Write results as JSON, one row per line."""
    lists = []
    for key, rows in content.items():
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
        lists.append(f'"{key}": [\n{lines}\n]')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{" + ",\n".join(lists) + "}\n", encoding="utf-8")
