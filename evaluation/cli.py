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
from .text2layer import evaluate as text2layer
from .two_networks import evaluate as networks

Results = dict[str, dict[str, list[dict]]]
# Files and folders that a method paints with beside the checkpoint.
WEIGHTS: dict[str, dict[str, Path]] = {
    cnc.CNC: {"fusers": CNC_FILE},
    text2layer.TEXT2LAYER: {"text2layer": TEXT2LAYER_FILE},
    tcig.TCIG_NAME: {"vqgan": VQGAN_FOLDER, **SPECIALIST_FOLDERS},
    networks.NETWORKS: {"transformer": TRANSFORMER_FILE},
    splitting.SPLIT: {"splitting segmenter": SEGMENTER_FOLDER},
}
# Parts with pictures of their own on the evaluation's server, each of which keeps its records.
RECORDED = {
    networks.NETWORKS: networks.evaluate,
    editing.EDITING: editing.evaluate,
    splitting.SPLIT: splitting.evaluate,
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


# They keep no file of pictures yet: rows alone, with where they come from.
WITHOUT_RECORDS = (cnc.CNC, text2layer.TEXT2LAYER, tcig.TCIG_NAME, tcig.SWEEPS_FILE, calibration.JUDGES)


class Records:
    """The files of a run's pictures, opened when first asked for; what is written to one file shares one."""

    def __init__(self, options: argparse.Namespace, methods: Sequence[str]) -> None:
        self._options, self._methods = options, methods
        self._opened: dict[Path | str, PictureRecords] = {}

    def provenance(self, name: str) -> Provenance:
        """Where the numbers of a result come from; one file for all has the weights of all."""
        names = self._methods if self._options.json else (name,)
        others = {what: path for each in names for what, path in WEIGHTS.get(each, {}).items()}
        if cnc.CNC in names:
            given = {"fusers": self._options.fusers, "single": self._options.single}
            others |= {what: path for what, path in given.items() if path is not None}
        return provenance({"checkpoint": CHECKPOINT_FILE} | others | JUDGES, size_of(self._options).settings())

    def of(self, name: str) -> PictureRecords:
        """The records of a group, of `BASE`, of one of `RECORDED` or of a file of sweeps.

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
    presence = files.of(BASE) if BASE in methods else None
    recorded = {name: files.of(name) for name in RECORDED if name in methods}
    painted = {name for group, _ in groups for name in group.methods} - {layouts.PERFECT}
    if groups or presence is not None:
        with evaluation_server() if painted or presence is not None else nullcontext() as server:
            painter = None if server is None else Painter(server)
            results |= layouts.evaluate(painter, yardsticks, groups, size_of(options), keep)
            if presence is not None:
                results[BASE] = base.evaluate(painter, yardsticks, presence, options.layouts, keep)
    if parts := [name for name in cnc.PARTS if name in methods or cnc.CNC in methods]:
        results[cnc.CNC] = _evaluate_cnc(yardsticks, parts, options)
    if parts := [name for name in text2layer.PARTS if name in methods or text2layer.TEXT2LAYER in methods]:
        asked = text2layer.Asked(parts, options.layouts, options.tuning)
        results[text2layer.TEXT2LAYER] = text2layer.evaluate(yardsticks, asked, keep)
    if tcig.TCIG_NAME in methods:
        results |= _evaluate_tcig(yardsticks, options)
    if calibration.JUDGES in methods:
        results[calibration.JUDGES] = calibration.evaluate()
    if networks.NETWORKS in recorded:
        networks.require_models()
    if recorded:
        asked = {"layouts": options.layouts, "tuning": options.tuning}
        with evaluation_server() as server:
            for name, records in recorded.items():
                results[name] = RECORDED[name](Painter(server), yardsticks, records, **asked, keep=keep)
    apart = {name: {"provenance": [files.provenance(name)]} for name in results if name in WITHOUT_RECORDS}
    return {name: apart.get(name, {}) | content for name, content in results.items()}


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
        draw = sweeps_table if name == tcig.SWEEPS_FILE else results_table
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
    swept = results.get(tcig.SWEEPS_FILE)
    if options.json:
        others = [content for name, content in results.items() if name != tcig.SWEEPS_FILE]
        merged = {
            key: [row for content in others for row in content.get(key, [])]
            for key in ("provenance", "rows", "comparisons", "measures", "answers")
        }
        merged["provenance"] = merged["provenance"][:1]  # they share one file of pictures
        return [(options.json, {key: rows for key, rows in merged.items() if rows or key == "rows"})]
    if is_part(options):
        return [(RESULTS / f"{tcig.SWEEPS_FILE}.json", swept)] if swept and options.layouts is None else []
    whole = {
        cnc.CNC: options.fusers is None and cnc.is_whole(results.get(cnc.CNC)),
        text2layer.TEXT2LAYER: text2layer.is_whole(results.get(text2layer.TEXT2LAYER)),
        OTHERS: False,
    }
    return [(RESULTS / f"{name}.json", content) for name, content in results.items() if whole.get(name, True)]
