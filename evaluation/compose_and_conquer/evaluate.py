"""Compose and Conquer (arXiv 2401.09048): order, what is hidden, reconstructions, looks: `stage.py evaluate cnc`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from ..judging.scoring import add_real_scenes, large_enough, spread
from ..judging.yardsticks import Yardsticks
from ..painter import Painter
from ..records.lines import PictureLine
from ..records.pictures import PictureRecords
from ..sets.hidden_pairs import HIDDEN, HIDDEN_TUNING, load_hidden
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
from ..summary.compared import Compared
from ..summary.rows import summary_rows
from . import hidden, looks, order, reconstruction
from .order import NAMED, NAMES_ALONE, PERFECT, PLAIN, SINGLE, Keep
from .painter import CNC, TRIED, Methods

SCENES_WANTED, SCENES_TUNING_WANTED = 90, 18
# Method, and what it is compared with where a set has both.
COMPARED = ((CNC, SINGLE), (CNC, PLAIN), (NAMED, CNC), (NAMED, NAMES_ALONE), (CNC, looks.OPEN))


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


@dataclass(frozen=True)
class Run:
    """What all parts paint with.

    Attributes:
        painter: see `cnc_painter`.
        methods: see `cnc_painter`.
        yardsticks: the judges.
        asked: what of the evaluation.
        records: that keep the pictures' scores.
        keep: called with every picture that is painted.
    """

    painter: Painter | None
    methods: Methods
    yardsticks: Yardsticks
    asked: Asked
    records: PictureRecords
    keep: Keep

    @property
    def judged(self) -> tuple[Yardsticks, PictureRecords]:
        """The judges, and where their scores are kept."""
        return self.yardsticks, self.records


@dataclass(frozen=True)
class Part:
    """A part of the evaluation.

    Attributes:
        paint: paints and judges what the records lack; returns the methods in the order of rows.
        sets: whose rows it has.
        measures: single numbers of its lines by method.
    """

    paint: Callable[[Run], Sequence[str]]
    sets: tuple[str, ...]
    measures: Callable[[Mapping[str, list[PictureLine]]], list[dict]]


def evaluate(run: Run) -> dict[str, list[dict]]:
    """Paint and judge what the records lack.

    Returns:
        Rows, comparisons and measures of results, out of the records alone.
    """
    run.painter.paint_prompt("warm-up", 0)  # loading the checkpoint is not part of the first picture's time
    rows, comparisons, measures = [], [], []
    for name, part in PARTS.items():
        if name in run.asked.parts:
            methods = part.paint(run)
            for known, found in zip(
                (rows, comparisons, measures), part_results(part, methods, run.records), strict=True
            ):
                known += found
    return {"provenance": [run.records.provenance], "rows": rows, "comparisons": comparisons, "measures": measures}


def part_results(
    part: Part, methods: Sequence[str], records: PictureRecords
) -> tuple[list[dict], list[dict], list[dict]]:
    """Rows, comparisons and measures of a part."""
    lines = {name: [line for line in records if line.method == name] for name in methods}
    compared = [pair for pair in (*COMPARED, *((name, CNC) for name in TRIED)) if set(pair) <= set(methods)]
    comparisons = [
        row | {"set": name}  # the sets ask for different things, so that their pictures are not taken together
        for name in part.sets
        for row in Compared((line for each in lines.values() for line in each), (name,)).rows(compared)
    ]
    return summary_rows(records, part.sets, methods, by_tag=False), comparisons, part.measures(lines)


def of_set(lines: Mapping[str, list[PictureLine]], *names: str) -> Iterator[list[PictureLine]]:
    """The lines of each method in some sets, where it has any."""
    for each in lines.values():
        if found := [line for line in each if line.set_name in names]:
            yield found


def is_whole(results: dict[str, list[dict]] | None) -> bool:
    """Whether everything was there, the control too, so that committed results may be replaced."""
    found = {(row["set"], row["method"]) for row in results["rows"]} if results is not None else set()
    wanted = {(part, SINGLE) for part in (order.SET, hidden.SET, reconstruction.SET)}
    return wanted | {(looks.NAMED, CNC)} <= found


def _order(run: Run) -> Sequence[str]:
    pairs = spread(load_pairs(PAIRS_TUNING if run.asked.tuning else PAIRS), run.asked.number)
    used = run.methods.with_depths(PLAIN, PERFECT) | order.with_names(run.methods.ours[CNC])
    with_features = large_enough(2 * len(pairs))  # each both ways
    for pair in tqdm(pairs, order.SET, unit="pair"):
        order.paint_pair(run.painter, *run.judged, used, pair, run.keep, with_features=with_features)
    if with_features:
        add_real_scenes(*run.judged, len(pairs[0].concepts))
    return list(used)


def _hidden(run: Run) -> Sequence[str]:
    pairs = hidden.some_of_each(load_hidden(HIDDEN_TUNING if run.asked.tuning else HIDDEN), run.asked.number)
    used = run.methods.with_depths(PLAIN, PERFECT)
    for pair in tqdm(pairs, hidden.SET, unit="pair"):
        hidden.paint_hidden(run.painter, *run.judged, used, pair, run.keep)
    return list(used)


def _reconstruction(run: Run) -> Sequence[str]:
    wanted, seed = (SCENES_TUNING_WANTED, SCENES_TUNING_SEED) if run.asked.tuning else (SCENES_WANTED, SCENES_SEED)
    scenes = real_scenes(wanted if run.asked.number is None else min(run.asked.number, wanted), seed)
    used = run.methods.with_depths(PLAIN, reconstruction.REAL)
    for scene in tqdm(scenes, reconstruction.SET, unit="scene"):
        reconstruction.repaint(run.painter, *run.judged, used, scene, run.keep)
    return list(used)


def _looks(run: Run) -> Sequence[str]:
    pairs = spread(load_looks(LOOKS_TUNING if run.asked.tuning else LOOKS), run.asked.number)
    guided = run.methods.ours[CNC]
    used = {CNC: guided, looks.OPEN: replace(guided, soft=False)}
    for each in tqdm(pairs, looks.NAMED, unit="pair of references"):
        looks.place(run.painter, *run.judged, used | {PERFECT: None}, each, run.keep)
        looks.strengthen(run.painter, *run.judged, used, each, run.keep)
    return [*used, PERFECT]


def _order_measures(lines: Mapping[str, list[PictureLine]]) -> list[dict]:
    return [measure for each in of_set(lines, order.SET) for measure in order.order_measures(each)]


def _hidden_measures(lines: Mapping[str, list[PictureLine]]) -> list[dict]:
    return [measure for each in of_set(lines, *hidden.SETS.values()) for measure in hidden.hidden_measures(each)]


def _reconstruction_measures(lines: Mapping[str, list[PictureLine]]) -> list[dict]:
    return [m for each in of_set(lines, reconstruction.SET) for m in reconstruction.reconstruction_measures(each)]


def _looks_measures(lines: Mapping[str, list[PictureLine]]) -> list[dict]:
    guided = {name: lines[name] for name in (CNC, looks.OPEN)}
    found = [
        measure for name in (looks.NAMED, looks.UNNAMED) for measure in looks.looks_measures(*of_set(guided, name))
    ]
    return found + [m for each in of_set(guided, looks.STRENGTHENED) for m in looks.strength_measures(each)]


PARTS: dict[str, Part] = {
    order.SET: Part(_order, (order.SET,), _order_measures),
    hidden.SET: Part(_hidden, tuple(hidden.SETS.values()), _hidden_measures),
    reconstruction.SET: Part(_reconstruction, (reconstruction.SET,), _reconstruction_measures),
    looks.NAMED: Part(_looks, (looks.NAMED, looks.UNNAMED), _looks_measures),
}
