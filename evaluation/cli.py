"""`python stage.py evaluate`: every method on the same layouts and noise, in one run on one real ComfyUI server."""

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..commands.comfy_api import PromptFailed, PromptRejected
from ..commands.messages import SetupProblem
from ..core.segmentation.files import SegmenterError
from ..core.text2layer.files import Text2LayerFileError
from ..sticker_world.shipped import (
    CHECKPOINT_FILE,
    CLIP_FOLDER,
    CNC_FILE,
    SEGMENTER_FOLDER,
    SPECIALIST_FOLDERS,
    TEXT2LAYER_FILE,
    TRANSFORMER_FILE,
    VQGAN_FOLDER,
)
from . import base_family as base
from . import layouts, sweeps
from .arguments import BASE, OTHERS, chosen_methods, file_of, groups_of, is_part, parse, sweeps_by_file
from .compose_and_conquer import evaluate as cnc
from .compose_and_conquer.painter import cnc_painter, default_single
from .editing import evaluate as editing
from .judging import calibration
from .judging.judges import JUDGES
from .judging.yardsticks import Yardsticks
from .pages import plots
from .pages.tables import comparisons_table, judges_table, measures_table, results_table, sweeps_table
from .painter import Painter, evaluation_server
from .records.pictures import PictureRecords, records_of
from .records.provenance import Provenance, provenance
from .result_rows import RESULTS, write_results
from .splitting import evaluate as splitting
from .tcig import evaluate as tcig
from .tcig.sweep import SWEEPS_FILE, sweep
from .text2layer import evaluate as text2layer
from .text2layer.rows import trained_files
from .two_looks import evaluate as two_looks
from .two_networks import evaluate as networks

Results = dict[str, dict[str, list[dict]]]
Opened = dict[str, PictureRecords]  # by file
TCIG_MODELS = {
    "vqgan": VQGAN_FOLDER,
    "guiding CLIP": CLIP_FOLDER,
    "guiding segmenter": SEGMENTER_FOLDER,
    **SPECIALIST_FOLDERS,
}
# Files and folders that a method paints with beside the checkpoint.
WEIGHTS: dict[str, dict[str, Path]] = {
    text2layer.TEXT2LAYER: {"text2layer": TEXT2LAYER_FILE},
    tcig.TCIG_NAME: TCIG_MODELS,
    SWEEPS_FILE: TCIG_MODELS,
    networks.NETWORKS: {"transformer": TRANSFORMER_FILE},
    splitting.SPLIT: {"splitting segmenter": SEGMENTER_FOLDER},
    two_looks.TWO_LOOKS: two_looks.WEIGHTS,
}
# Parts with pictures of their own on the evaluation's server, each of which keeps its records.
RECORDED = {
    networks.NETWORKS: networks.evaluate,
    editing.EDITING: editing.evaluate,
    splitting.SPLIT: splitting.evaluate,
    two_looks.TWO_LOOKS: two_looks.evaluate,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    Raises:
        SetupProblem: the models are missing, the server refuses a graph or fails at one, or a file holds the pictures
            of another run.
    """
    options = parse(argv)
    try:
        yardsticks = Yardsticks.load()
        if options.sweep:
            return _sweep(yardsticks, options)
        results = _evaluate(yardsticks, options)
    except (PromptFailed, PromptRejected, SegmenterError, Text2LayerFileError, FileNotFoundError) as error:
        raise SetupProblem(str(error)) from error
    _print(results)
    for path, content in result_files(results, options):
        write_results(path, content)
        _say_written(path)
    return 0


# What of a file can be asked for by itself, and is kept in it.
WHOLE = {part: cnc.CNC for part in cnc.PARTS} | {part: text2layer.TEXT2LAYER for part in text2layer.PARTS}


class Records:
    """The files of a run's pictures, opened when first asked for; what is written to one file shares one."""

    def __init__(self, options: argparse.Namespace, methods: Sequence[str]) -> None:
        self._options, self._methods = options, methods
        self._opened: dict[Path | str, PictureRecords] = {}

    def provenance(self, name: str) -> Provenance:
        """Where the numbers of a result come from; one file for all has the weights of all."""
        names = {WHOLE.get(each, each) for each in (self._methods if self._options.json else (name,))}
        others = {what: path for each, files in WEIGHTS.items() if each in names for what, path in files.items()}
        if cnc.CNC in names:
            others["fusers"] = self._options.fusers or CNC_FILE
            others["single"] = self._options.single or default_single()
        if text2layer.TEXT2LAYER in names:
            others |= trained_files()
        return provenance({"checkpoint": CHECKPOINT_FILE} | others | JUDGES, size_of(self._options).settings())

    def of(self, name: str) -> PictureRecords:
        """The records of a group, of `BASE`, of a part of its own or of a file of sweeps.

        Raises:
            SetupProblem: its file holds the pictures of another run.
        """
        file = file_of(name, self._options)
        path = None if file is None else records_of(file)
        if (path or name) not in self._opened:
            records = PictureRecords(path, self.provenance(name), anew=self._options.anew)
            if len(records):
                print(f"{path} has the scores of {len(records)} pictures already; they are not painted again")
            self._opened[path or name] = records
        return self._opened[path or name]


def size_of(options: argparse.Namespace) -> layouts.Size:
    """How much of the layout sets is painted."""
    return layouts.Size(options.layouts, options.seeds, options.tuning or bool(options.sweep))


def _evaluate(yardsticks: Yardsticks, options: argparse.Namespace) -> Results:
    methods, results, keep = chosen_methods(options), {}, partial(_keep, options.pictures)
    files = Records(options, methods)
    # All files are opened before anything is painted, so that a refusal comes at once.
    groups = [(group, files.of(group.name)) for group in groups_of(methods, options)]
    apart = {WHOLE.get(name, name) for name in methods} & {BASE, *PAINTERS, *WHOLE.values()}
    if tcig.TCIG_NAME in apart and options.tuning:
        apart.add(SWEEPS_FILE)
    opened = {name: files.of(name) for name in (BASE, *WHOLE.values(), *PAINTERS, SWEEPS_FILE) if name in apart}
    painted = {name for group, _ in groups for name in group.methods} - {layouts.PERFECT}
    if groups or BASE in opened:
        with evaluation_server() if painted or BASE in opened else nullcontext() as server:
            painter = None if server is None else Painter(server)
            results |= layouts.evaluate(painter, yardsticks, groups, size_of(options), keep)
            if BASE in opened:
                results[BASE] = base.evaluate(painter, yardsticks, opened[BASE], options.layouts, keep)
    if cnc.CNC in opened:
        parts = [name for name in cnc.PARTS if name in methods or cnc.CNC in methods]
        asked = cnc.Asked(parts, options.layouts, options.tuning)
        with cnc_painter(options.fusers, options.single, options.tuning) as (painter, used):
            results[cnc.CNC] = cnc.evaluate(cnc.Run(painter, used, yardsticks, asked, opened[cnc.CNC], keep))
    if text2layer.TEXT2LAYER in opened:
        parts = [name for name in text2layer.PARTS if name in methods or text2layer.TEXT2LAYER in methods]
        asked = text2layer.Asked(parts, options.layouts, options.tuning)
        run = text2layer.Run(yardsticks, asked, opened[text2layer.TEXT2LAYER], keep)
        results[text2layer.TEXT2LAYER] = text2layer.evaluate(run)
    for name, paint in PAINTERS.items():
        if name in opened:
            results |= paint(yardsticks, opened, options, keep)
    if calibration.JUDGES in methods:
        results[calibration.JUDGES] = {"provenance": [files.provenance(calibration.JUDGES)]} | calibration.evaluate()
    return results


def _evaluate_tcig(yardsticks: Yardsticks, opened: Opened, options: argparse.Namespace, keep: layouts.Keep) -> Results:
    """Both stages; on the tuning set also stage two at every strength."""
    tcig.require_models()
    asked = {"layouts": options.layouts, "seeds": options.seeds}
    with evaluation_server() as server:
        judges, records = (Painter(server), yardsticks), opened[tcig.TCIG_NAME]
        found = tcig.evaluate(*judges, records, tuning=options.tuning, keep=keep, **asked)
        swept = {SWEEPS_FILE: sweep(*judges, opened[SWEEPS_FILE], **asked)} if options.tuning else {}
    return {tcig.TCIG_NAME: found} | swept


def _evaluate_recorded(
    yardsticks: Yardsticks, opened: Opened, options: argparse.Namespace, keep: layouts.Keep, *, name: str
) -> Results:
    """A part that needs nothing but a server and its records."""
    if name == networks.NETWORKS:
        networks.require_models()  # before a server is started
    asked = {"layouts": options.layouts, "tuning": options.tuning, "keep": keep}
    with evaluation_server() as server:
        return {name: RECORDED[name](Painter(server), yardsticks, opened[name], **asked)}


PAINTERS = {tcig.TCIG_NAME: _evaluate_tcig} | {name: partial(_evaluate_recorded, name=name) for name in RECORDED}


def _keep(folder: Path | None, name: str, picture: np.ndarray) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"{name}.png")


def _sweep(yardsticks: Yardsticks, options: argparse.Namespace) -> int:
    """Run the chosen sweeps; a run on the whole tuning set replaces their committed rows and the plot."""
    files, chosen = Records(options, ()), sweeps_by_file(options.sweep)
    records = {file: files.of(file) for file in chosen}
    with evaluation_server() as server:
        for file, names in chosen.items():
            path, size = file_of(file, options), {"layouts": options.layouts, "seeds": options.seeds}
            found = sweeps.run(Painter(server), yardsticks, names, records[file], **size, path=path)
            print("\n" + sweeps_table(found["rows"]) + "\n\n" + measures_table(found["measures"]))
            if path is not None:
                _say_written(path)
    return 0


def _say_written(path: Path) -> None:
    for file in (path, *plots.redraw(path)):
        print(f"written: {file}")


def _print(results: Results) -> None:
    for name, content in results.items():
        draw = sweeps_table if name == SWEEPS_FILE else results_table
        shown = (
            ("rows", draw),
            ("comparisons", comparisons_table),
            ("measures", measures_table),
            ("answers", judges_table),
        )
        for key, show in shown:
            if content.get(key):
                print("\n" + show(content[key]))


def result_files(results: Results, options: argparse.Namespace) -> list[tuple[Path, dict]]:
    """Where results go: to --json all in one, else one committed file per group, but only of a full run."""
    swept = results.get(SWEEPS_FILE)
    if options.json:
        others = [content for name, content in results.items() if name != SWEEPS_FILE]
        merged = {
            key: [row for content in others for row in content.get(key, [])]
            for key in ("provenance", "rows", "comparisons", "measures", "answers")
        }
        merged["provenance"] = merged["provenance"][:1]  # they share one file of pictures
        return [(options.json, {key: rows for key, rows in merged.items() if rows or key == "rows"})]
    if is_part(options):
        return [(RESULTS / f"{SWEEPS_FILE}.json", swept)] if swept and options.layouts is None else []
    whole = {
        cnc.CNC: options.fusers is None and cnc.is_whole(results.get(cnc.CNC)),
        text2layer.TEXT2LAYER: text2layer.is_whole(results.get(text2layer.TEXT2LAYER)),
        OTHERS: False,
    }
    return [(RESULTS / f"{name}.json", content) for name, content in results.items() if whole.get(name, True)]
