"""`python stage.py evaluate`: every method on the same layouts and noise, in one run on one real ComfyUI server."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..commands.comfy_api import PromptFailed, PromptRejected
from ..commands.messages import SetupProblem
from ..core.segmentation.files import SegmenterError
from ..core.text2layer.files import Text2LayerFileError
from . import base_family as base
from . import sweeps
from .compose_and_conquer import evaluate as cnc
from .graphs import sali, soft
from .graphs.builder import Method
from .graphs.lrdiff import VARIANTS
from .graphs.methods import METHODS
from .judging.scoring import Painted, layout_rows, score, spread
from .judging.yardsticks import Yardsticks
from .pages import plots
from .pages.tables import measures_table, results_table, sweeps_table
from .painter import Painter, evaluation_server
from .result_rows import RESULTS, write_results
from .sets.sets import LAYOUT_SETS, TUNING_SET, load_presence, load_set
from .tcig import evaluate as tcig
from .text2layer import evaluate as text2layer
from .two_networks import evaluate as networks

PERFECT = "perfect"  # the layouts' own sprites, pasted: what the judge gives a picture that does all it was asked
BASE = "base"
ALL = "all"  # sweeps
SALI = "sali"  # with all that it is compared with; as a sweep, all sweeps of start latents and guidance
APART = (
    cnc.CNC,
    *cnc.PARTS,
    text2layer.TEXT2LAYER,
    *text2layer.PARTS,
    tcig.TCIG_NAME,
    networks.NETWORKS,
)  # with pictures of their own
CHOICES = (*METHODS, *VARIANTS, *sali.METHODS, *soft.METHODS, PERFECT, BASE, *APART)
USUAL = (*METHODS, PERFECT, BASE)  # what runs when nothing is named
ABLATED = ("lrdiff", *VARIANTS)  # the rows of the ablation table: what is changed, and every change
PAINTED: dict[str, Method] = {**METHODS, **VARIANTS, **sali.METHODS, **soft.METHODS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    Raises:
        SetupProblem: the models are missing, or the server refuses a graph or fails at one.
    """
    options = _parse(argv)
    try:
        yardsticks = Yardsticks.load()
        if options.sweep:
            with evaluation_server() as server:
                return _sweep(Painter(server), yardsticks, options)
        methods = chosen_methods(options)
        results: dict[str, dict] = {}
        if others := [name for name in methods if name not in APART]:
            if set(others) <= {PERFECT}:
                results = {"layouts": _evaluate_layouts(None, yardsticks, others, options)}
            else:
                with evaluation_server() as server:
                    results = _evaluate(Painter(server), yardsticks, others, options)
        if parts := [name for name in cnc.PARTS if name in methods or cnc.CNC in methods]:
            results[cnc.CNC] = _evaluate_cnc(yardsticks, parts, options)
        if parts := [name for name in text2layer.PARTS if name in methods or text2layer.TEXT2LAYER in methods]:
            asked = text2layer.Asked(parts, options.layouts, options.tuning)
            results[text2layer.TEXT2LAYER] = text2layer.evaluate(yardsticks, asked, partial(_keep, options.pictures))
        if tcig.TCIG_NAME in methods:
            results |= _evaluate_tcig(yardsticks, options)
        if networks.NETWORKS in methods:
            asked, keep = {"layouts": options.layouts, "tuning": options.tuning}, partial(_keep, options.pictures)
            with evaluation_server() as server:
                results[networks.NETWORKS] = networks.evaluate(Painter(server), yardsticks, **asked, keep=keep)
    except (PromptFailed, PromptRejected, SegmenterError, Text2LayerFileError, FileNotFoundError) as error:
        raise SetupProblem(str(error)) from error
    _print(results)
    for path, content in result_files(results, methods, options):
        write_results(path, content)
        _say_written(path)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="stage.py evaluate", description=__doc__)
    known = f"{', '.join(CHOICES)}; {SALI} also paints {', '.join(sali.COMPARED)}; default: {', '.join(USUAL)}"
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=known)
    parser.add_argument("--ablation", action="store_true", help=f"also {', '.join(VARIANTS)}")
    parser.add_argument(
        "--layouts",
        type=int,
        metavar="N",
        help=f"layouts (or prompts) per set; default: all, of {networks.NETWORKS} {networks.LAYOUTS}",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="pictures per layout; default: 1")
    parser.add_argument("--tuning", action="store_true", help="use the tuning set, the only one to choose settings on")
    single = f"weights of the control that {cnc.CNC} is compared with; default: those in the training folder"
    parser.add_argument("--single", type=Path, metavar="FILE", help=single)
    fusers = f"averaged weights of a training part that {cnc.CNC} judges; default: the shipped file"
    parser.add_argument("--fusers", type=Path, metavar="FILE", help=fusers)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write here instead of evaluation/results")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="also keep every picture in this folder")
    known = ", ".join((ALL, SALI, *sweeps.SWEEPS))
    swept = f"instead, one setting at a time on the tuning set: {known}; may be repeated"
    parser.add_argument("--sweep", action="append", metavar="NAME", help=swept)
    parser.add_argument("--resume", action="store_true", help="with --sweep: keep the values that the file already has")
    options = parser.parse_args(argv)
    _check_names(parser, "method", options.methods, CHOICES)
    _check_names(parser, "sweep", options.sweep or (), (ALL, SALI, *sweeps.SWEEPS))
    if options.seeds < 1 or (options.layouts is not None and options.layouts < 1):
        parser.error("--layouts and --seeds must be 1 or more")
    if options.sweep and (options.methods or options.ablation or options.pictures):
        parser.error("--sweep has methods of its own and keeps no pictures: no METHOD, --ablation or --pictures")
    if options.resume and not options.sweep:
        parser.error("--resume needs --sweep")
    return options


def _check_names(parser: argparse.ArgumentParser, kind: str, names: Sequence[str], choices: Sequence[str]) -> None:
    unknown = [name for name in names if name not in choices]
    if unknown:
        parser.error(f"there is no {kind} {unknown[0]!r}; choose from {', '.join(choices)}")


def chosen_methods(options: argparse.Namespace) -> list[str]:
    """What a run without --sweep paints, in the order of `CHOICES`."""
    names = {*(options.methods or USUAL), *(ABLATED if options.ablation else ())}
    names |= set(sali.COMPARED if SALI in names else ())
    if options.tuning and not options.methods:
        names.discard(BASE)
    return [name for name in CHOICES if name in names]


def _evaluate(painter: Painter, yardsticks: Yardsticks, methods: list[str], options: argparse.Namespace) -> dict:
    results = {}
    layout_methods = [name for name in methods if name != BASE]
    if layout_methods:
        results["layouts"] = _evaluate_layouts(painter, yardsticks, layout_methods, options)
    if BASE in methods:
        results["base"] = _evaluate_base(painter, yardsticks, options)
    return results


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
                    pictures, seconds = painter.paint(PAINTED[method], item, options.seeds)
                painted += score(yardsticks, method, set_name, item, pictures, seconds)
                for number, picture in enumerate(pictures):
                    _keep(options.pictures, f"{set_name}_{item.seed}_{number}_{method}", picture)
                bar.update()
    rows = list(layout_rows(yardsticks, painted, names, methods))
    return {"rows": rows} | ({"measures": sali.gains(rows)} if SALI in methods else {})


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


def _evaluate_cnc(yardsticks: Yardsticks, parts: list[str], options: argparse.Namespace) -> dict:
    asked = cnc.Asked(parts, options.layouts, options.tuning)
    with cnc.cnc_painter(options.fusers, options.single, options.tuning) as (painter, methods):
        return cnc.evaluate(painter, methods, yardsticks, asked, partial(_keep, options.pictures))


def _evaluate_tcig(yardsticks: Yardsticks, options: argparse.Namespace) -> dict:
    """Both stages; on the tuning set also stage two at every strength."""
    tcig.require_models()
    asked, keep = {"layouts": options.layouts, "seeds": options.seeds}, partial(_keep, options.pictures)
    with evaluation_server() as server:
        painter = Painter(server)
        found = tcig.evaluate(painter, yardsticks, tuning=options.tuning, keep=keep, **asked)
        swept = {tcig.SWEEPS_FILE: {"rows": tcig.sweep(painter, yardsticks, **asked)}} if options.tuning else {}
    return {tcig.TCIG_NAME: found} | swept


def _keep(folder: Path | None, name: str, picture: np.ndarray) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{name}.png")


def _sweep(painter: Painter, yardsticks: Yardsticks, options: argparse.Namespace) -> int:
    """Run the chosen sweeps; a run on the whole tuning set replaces their committed rows and the plot."""
    for file, names in sweeps_by_file(options.sweep).items():
        path = options.json or (RESULTS / f"{file}.json" if options.layouts is None else None)
        rows = sweeps.run(
            painter, yardsticks, names, layouts=options.layouts, seeds=options.seeds, path=path, resume=options.resume
        )
        print("\n" + sweeps_table(rows))
        if path is not None:
            _say_written(path)
    return 0


def sweeps_by_file(asked: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Names of the asked sweeps for each of the files that keep their rows."""
    files: dict[str, list[str]] = {}
    for name, sweep in sweeps.SWEEPS.items():
        if name in asked or ALL in asked or (SALI in asked and sweep.file == sweeps.SALI_FILE):
            files.setdefault(sweep.file, []).append(name)
    return {file: tuple(names) for file, names in files.items()}


def _say_written(path: Path) -> None:
    for file in (path, *plots.redraw(path)):
        print(f"written: {file}")


def _print(results: dict) -> None:
    for name, content in results.items():
        draw = sweeps_table if name == tcig.SWEEPS_FILE else results_table
        print("\n" + draw(content["rows"]))
        if "measures" in content:
            print("\n" + measures_table(content["measures"]))


def result_files(results: dict, methods: list[str], options: argparse.Namespace) -> list[tuple[Path, dict]]:
    """Where results go: to --json all in one, else one committed file per group, but only of a full run."""
    swept = results.get(tcig.SWEEPS_FILE)
    if options.json:
        others = [content for name, content in results.items() if name != tcig.SWEEPS_FILE]
        merged = {"rows": [row for content in others for row in content["rows"]]}
        measures = [measure for content in others for measure in content.get("measures", [])]
        return [(options.json, merged | ({"measures": measures} if measures else {}))]
    if options.tuning or options.layouts is not None:
        return [(RESULTS / f"{tcig.SWEEPS_FILE}.json", swept)] if swept and options.layouts is None else []
    files = []
    for group, names in (("layouts", (*METHODS, PERFECT)), ("ablation", ABLATED), ("sali", sali.COMPARED)):
        if "layouts" in results and set(methods) >= set(names):
            rows = [row for row in results["layouts"]["rows"] if row["method"] in names]
            measures = {"measures": sali.gains(rows)} if group == "sali" else {}
            files.append((RESULTS / f"{group}.json", {"rows": rows} | measures))
    if "base" in results:
        files.append((RESULTS / "base.json", results["base"]))
    if cnc.is_whole(results.get(cnc.CNC)) and options.fusers is None:
        files.append((RESULTS / f"{cnc.CNC}.json", results[cnc.CNC]))
    if text2layer.is_whole(results.get(text2layer.TEXT2LAYER)):
        files.append((RESULTS / f"{text2layer.TEXT2LAYER}.json", results[text2layer.TEXT2LAYER]))
    files += [
        (RESULTS / f"{name}.json", results[name]) for name in (tcig.TCIG_NAME, networks.NETWORKS) if name in results
    ]
    return files
