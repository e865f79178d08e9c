"""Compose and Conquer (arXiv 2401.09048): depth order, reconstructions and looks, `python stage.py evaluate cnc`.

The control with a single depth map that it is compared with is the same network, trained for as many steps with the
whole scene's depth in place of the two. It is not shipped: its weights are taken from the training folder.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors.torch import load_file
from tqdm import tqdm

from ...commands.messages import SetupProblem
from ...sticker_world.compose_and_conquer.train import export_fusers
from ...sticker_world.shipped import CNC_FILE
from ...sticker_world.training.loop import is_trained, weights_folder
from ..judging.scoring import spread
from ..judging.yardsticks import Yardsticks
from ..painter import Painter, evaluation_server
from ..sets.pairs import (
    LOOKS,
    LOOKS_TUNING,
    PAIRS,
    PAIRS_TUNING,
    SCENES_SEED,
    SCENES_TUNING_SEED,
    load_looks,
    load_pairs,
    real_scenes,
)
from . import looks, order, reconstruction
from .graphs import CnC
from .order import PERFECT, PLAIN, SINGLE

CNC = "cnc"
SCENES_WANTED, SCENES_TUNING_WANTED = 90, 18
SINGLE_FILE = "cnc_single.safetensors"
FUSERS_FILE = "evaluated.safetensors"  # on the server
# One setting at a time on the tuning sets, by which the nodes' defaults are chosen.
TRIED: dict[str, dict[str, float]] = {
    f"{CNC} {name}={value:g}": {name: value}
    for name, values in {
        "residual_scale": (0.5, 0.75, 1.25, 1.5),
        "foreground_depth_strength": (0.5, 2.0),
        "background_depth_strength": (0.5, 2.0),
    }.items()
    for value in values
}
Found = tuple[list[dict], list[dict]]  # rows and measures
Keep = Callable[[str, np.ndarray], None]  # takes a picture's name and the picture
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Methods:
    """What is painted with.

    Attributes:
        ours: with its settings, by name.
        single: the control with a single depth map; None where its weights are missing.
    """

    ours: dict[str, CnC]
    single: CnC | None

    def with_depths(self, *others: str) -> dict[str, CnC | None]:
        """All that take depth maps, and others that need no settings."""
        found: dict[str, CnC | None] = dict(self.ours)
        if self.single is not None:
            found[SINGLE] = self.single
        return found | dict.fromkeys(others)


@dataclass(frozen=True)
class Asked:
    """What of the evaluation is asked for.

    Attributes:
        parts: some of `PARTS`.
        number: pairs, scenes and looks of each set; None takes all.
        tuning: the tuning sets instead.
    """

    parts: Sequence[str]
    number: int | None
    tuning: bool


def default_single() -> Path:
    """Where training leaves the control's averaged weights."""
    return weights_folder() / SINGLE_FILE


@contextmanager
def cnc_painter(fusers: Path | None, single: Path | None, tuning: bool) -> Iterator[tuple[Painter, Methods]]:
    """A painter whose server knows the fusers and the control, and the methods that they are.

    Args:
        fusers: averaged weights of a training part, or None for the shipped file.
        single: averaged weights of the control, or None for those in the training folder, if they are there.
        tuning: also try one setting at a time.

    Raises:
        SetupProblem: the shipped fusers are missing, or a named file.
    """
    if fusers is None and not CNC_FILE.is_file():
        raise SetupProblem(f"{CNC_FILE} is missing. Make it with: python stage.py train cnc_joint cnc_export")
    for option, file in (("--fusers", fusers), ("--single", single)):
        if file is not None and not file.is_file():
            raise SetupProblem(f"There is no file {file}. Leave {option} out, or name another.")
    single = single or default_single()
    with tempfile.TemporaryDirectory() as folder:
        ours, control = CnC(), None
        if fusers is not None:
            export_fusers(load_file(fusers), Path(folder) / FUSERS_FILE)
            ours = CnC(file=FUSERS_FILE)
        if is_trained(single):
            export_fusers(load_file(single), Path(folder) / SINGLE_FILE)
            control = CnC(file=SINGLE_FILE)
        else:
            logging.warning(
                f"There are no fully trained weights {single} of the control with a single depth map, so its rows are "
                "left out. Train them with: python stage.py train cnc_single"
            )
        configuration = Path(folder) / "models.yaml"
        configuration.write_text(f"evaluated:\n  cnc: {Path(folder).as_posix()}\n", encoding="utf-8")
        tried = {name: replace(ours, **changed) for name, changed in TRIED.items()} if tuning else {}
        with evaluation_server(configuration) as server:
            yield Painter(server), Methods({CNC: ours} | tried, control)


def evaluate(
    painter: Painter, methods: Methods, yardsticks: Yardsticks, asked: Asked, keep: Keep
) -> dict[str, list[dict]]:
    """Paint and judge.

    Args:
        painter: see `cnc_painter`.
        methods: see `cnc_painter`.
        yardsticks: the judges.
        asked: what of it.
        keep: called with every picture.

    Returns:
        Rows and measures of results.
    """
    painter.paint_prompt("warm-up", 0)  # loading the checkpoint is not part of the first picture's time
    rows, measures = [], []
    for name, part in PARTS.items():
        if name in asked.parts:
            for known, found in zip((rows, measures), part(painter, methods, yardsticks, asked, keep), strict=True):
                known += found
    return {"rows": rows, "measures": measures}


def is_whole(results: dict[str, list[dict]] | None) -> bool:
    """Whether everything was there, the control too, so that committed results may be replaced."""
    found = {(row["set"], row["method"]) for row in results["rows"]} if results is not None else set()
    return {(order.SET, SINGLE), (reconstruction.SET, SINGLE), (looks.NAMED, CNC)} <= found


def _by(key: Callable[[Thing], object], things: Sequence[Thing]) -> list[list[Thing]]:
    groups: dict[object, list[Thing]] = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return list(groups.values())


def _order(painter: Painter, methods: Methods, yardsticks: Yardsticks, asked: Asked, keep: Keep) -> Found:
    pairs = spread(load_pairs(PAIRS_TUNING if asked.tuning else PAIRS), asked.number)
    used, found = methods.with_depths(PLAIN, PERFECT) | order.with_names(methods.ours[CNC]), []
    for pair in tqdm(pairs, order.SET, unit="pair"):
        for each in order.paint_pair(painter, yardsticks, used, pair):
            keep(f"{order.SET}_{pair.seed}_{each.front}_{each.method}", each.picture)
            found.append(each)
    groups = _by(lambda each: each.method, found)
    rows = [order.order_row(yardsticks, group) for group in groups]
    return rows, [measure for group in groups for measure in order.order_measures(group)]


def _reconstruction(painter: Painter, methods: Methods, yardsticks: Yardsticks, asked: Asked, keep: Keep) -> Found:
    wanted, seed = (SCENES_TUNING_WANTED, SCENES_TUNING_SEED) if asked.tuning else (SCENES_WANTED, SCENES_SEED)
    scenes = real_scenes(wanted if asked.number is None else min(asked.number, wanted), seed)
    used, found = methods.with_depths(PLAIN, reconstruction.REAL), []
    for scene in tqdm(scenes, reconstruction.SET, unit="scene"):
        for each in reconstruction.repaint(painter, yardsticks, used, scene):
            keep(f"{reconstruction.SET}_{scene.seed}_{each.method}", each.picture)
            found.append(each)
    groups = _by(lambda each: each.method, found)
    rows = [reconstruction.reconstruction_row(yardsticks, group) for group in groups]
    return rows, [m for group in groups for m in reconstruction.reconstruction_measures(yardsticks, group)]


def _looks(painter: Painter, methods: Methods, yardsticks: Yardsticks, asked: Asked, keep: Keep) -> Found:
    pairs = spread(load_looks(LOOKS_TUNING if asked.tuning else LOOKS), asked.number)
    guided = methods.ours[CNC]
    used = {CNC: guided, looks.OPEN: replace(guided, soft=False)}
    placed, strengthened = [], []
    for each in tqdm(pairs, looks.NAMED, unit="pair of references"):
        for picture in looks.place(painter, yardsticks, used | {PERFECT: None}, each):
            keep(f"{picture.set_name}_{each.seed}_{picture.method}", picture.picture)
            placed.append(picture)
        for change in looks.strengthen(painter, yardsticks, used, each):
            for strength, picture in zip(looks.STRENGTHS, change.pictures, strict=True):
                keep(f"cnc_strength_{each.seed}_{strength:g}_{change.method}", picture)
            strengthened.append(change)
    groups = _by(lambda each: (each.set_name, each.method), placed)
    rows = [looks.looks_row(yardsticks, group) for group in groups]
    by_name = {(group[0].set_name, group[0].method): group for group in groups}
    measures = [
        measure
        for name in (looks.NAMED, looks.UNNAMED)
        for measure in looks.looks_measures(by_name[name, CNC], by_name[name, looks.OPEN])
    ]
    changes = _by(lambda each: each.method, strengthened)
    return rows, measures + [measure for group in changes for measure in looks.strength_measures(group)]


PARTS: dict[str, Callable[[Painter, Methods, Yardsticks, Asked, Keep], Found]] = {
    order.SET: _order,
    reconstruction.SET: _reconstruction,
    looks.NAMED: _looks,
}
