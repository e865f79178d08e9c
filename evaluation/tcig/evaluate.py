"""TCIG (arXiv 2403.01212), both stages, beside what it is to beat: `python stage.py evaluate tcig`.

Only layouts with masks are used, since TCIG asks for masks. A segmenter that guided a draft is no fair judge of it, so
every picture is judged twice: by the general segmenter, and by the two specialists together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ...commands.messages import SetupProblem
from ...core.scores.layout_score import RegionScore, score_pictures
from ...core.scores.metrics import mean_or_none
from ...core.segmentation.joint import join_segmenters
from ...core.segmentation.segmenter import Segmenter
from ...core.tcig.starts import NOISE
from ...sticker_world.shipped import SPECIALIST_FOLDERS, VQGAN_FOLDER
from ..graphs.lrdiff import LRDiff
from ..judging.scoring import Painted, score, spread
from ..judging.yardsticks import Yardsticks, image_scores, to_images
from ..painter import Painter
from ..result_rows import measure, result_row
from ..sets.sets import LAYOUT_SETS, TUNING_SET, Item, load_set
from ..sweeps import SCORES
from .graphs import DRAFT, LAYERED_STRENGTH, SPECIALISTS, TCIG, Drawing, paint, refined
from .models import model_measures

TCIG_NAME, LAYERED, DRAWING, LRDIFF, PERFECT = "tcig", "tcig_layered", "drawing", "lrdiff", "perfect"
LAYOUTS = 3  # of each set, if nothing is said; a draft takes a minute
METHODS: dict[str, TCIG | Drawing] = {
    TCIG_NAME: TCIG(),
    # The same draft, which the server still has; so its time is stage two's alone.
    LAYERED: TCIG(layered=True, strength=LAYERED_STRENGTH),
    "tcig_two": TCIG(segmenters=SPECIALISTS),
    "tcig_grey": TCIG(ground=False),
    # The published loop and the same without segmentation: nothing of the layout is in their start.
    "tcig_canonical": TCIG(start=NOISE, segmenter_noise=0.0),
    "vqgan_clip": TCIG(start=NOISE, guided=False),
    DRAWING: Drawing(),
}
SWEEPS_FILE = "tcig_sweeps"
STRENGTHS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
GENERAL_JUDGE, SPECIALIST_JUDGE = "general", "specialists"
# What the issue asks: of stage one, of what stage two may lose, and of pictures beside layered rendering's.
TARGET_IOU, TARGET_LOSS, TARGET_WORSE = 0.75, 0.05, 0.10
Keep = Callable[[str, np.ndarray], None]


@dataclass(frozen=True)
class Judged:
    """A picture, judged by the general segmenter, and what the specialists say of its regions."""

    painted: Painted
    specialists: list[RegionScore]

    def overlap(self, judge: str) -> float | None:
        """Mean mask IoU of its regions."""
        scores = self.painted.scores if judge == GENERAL_JUDGE else self.specialists
        return mean_or_none(each.mask_iou for each in scores)


def drafts_of(method: str) -> str:
    """The name of a method's first stage in result rows."""
    return f"{method} draft"


def masked(name: str, number: int | None) -> list[Item]:
    """Layouts of a set that have masks, all or so many from its whole length."""
    return spread([item for item in load_set(name) if "masks" in item.tags], number)


def require_models() -> None:
    """Refuse to begin without the trained models.

    Raises:
        SetupProblem: which of them are missing, and how to make them.
    """
    folders = {"vqgan": VQGAN_FOLDER, **SPECIALIST_FOLDERS}
    if missing := {part: folder for part, folder in folders.items() if not (folder / "config.json").is_file()}:
        raise SetupProblem(
            f"Missing: {', '.join(map(str, missing.values()))}. Make what is missing with: python stage.py train "
            f"{' '.join(missing)} tcig_export"
        )


def evaluate(
    painter: Painter, yardsticks: Yardsticks, *, layouts: int | None, seeds: int, tuning: bool, keep: Keep
) -> dict[str, list[dict]]:
    """Paint and judge; returns rows and measures of results.

    Args:
        painter: of an `evaluation_server`.
        yardsticks: the general judges.
        layouts: of each set; None takes `LAYOUTS`, or all of the tuning set.
        seeds: pictures per layout and method.
        tuning: the tuning set instead.
        keep: called with every picture.
    """
    specialists = join_segmenters([Segmenter.load(folder) for folder in SPECIALIST_FOLDERS.values()])
    painter.paint_prompt("warm-up", 0)  # loading the checkpoint is not part of the first picture's time
    rows, everything = [], []
    for name in (TUNING_SET,) if tuning else LAYOUT_SETS:
        judged = []
        for item in tqdm(masked(name, layouts if tuning or layouts else LAYOUTS), name, unit="layout"):
            for method, picture, seconds in pictures_of(painter, item, seeds):
                keep(f"tcig_{name}_{item.seed}_{len(judged)}_{method.replace(' ', '_')}", picture)
                judged.append(judge(yardsticks, specialists, method, name, item, picture, seconds))
        rows += rows_of(yardsticks, judged, name)
        everything += judged
    return {"rows": rows, "measures": measures(rows, everything) + model_measures()}


def pictures_of(painter: Painter, item: Item, seeds: int) -> Iterator[tuple[str, np.ndarray, float | None]]:
    """Everything that is painted for a layout: method, picture, seconds. A draft's seconds are not known alone."""
    for seed in range(item.seed, item.seed + seeds):
        for name, method in METHODS.items():
            shown, seconds = paint(painter, method.graph(painter, item, seed))
            yield drafts_of(name), shown[DRAFT], None
            yield name, shown[refined()], seconds
        pictures, seconds = painter.paint_graph(LRDiff()(item.layout, seed, 1, ()))
        yield LRDIFF, pictures[0], seconds
    yield PERFECT, item.perfect_picture(), None


def judge(
    yardsticks: Yardsticks,
    specialists: Segmenter,
    method: str,
    set_name: str,
    item: Item,
    picture: np.ndarray,
    seconds: float | None,
) -> Judged:
    """Ask both judges about a picture."""
    (painted,) = score(yardsticks, method, set_name, item, [picture], seconds)
    (second,) = score_pictures(to_images([picture]), [item.layout], specialists, [item.areas])
    return Judged(painted, second)


def by_method(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Pictures in the order of painting, by method."""
    groups: dict[str, list[Judged]] = {}
    for each in judged:
        groups.setdefault(each.painted.method, []).append(each)
    return groups


def rows_of(yardsticks: Yardsticks, judged: Sequence[Judged], set_name: str) -> list[dict]:
    """A row per method of one set by the general judge, then one by the specialists, without image scores."""
    rows, second = [], []
    objects = {len(each.painted.item.layout.regions) for each in judged}
    for method, group in by_method(judged).items():
        painted = [each.painted for each in group]
        features = yardsticks.image_features([each.picture for each in painted])
        prompts = [each.item.layout.prompt for each in painted]
        # Real scenes to compare with have one number of objects; the tuning set has several.
        images = image_scores(yardsticks, features, prompts, min(objects) if len(objects) == 1 else None)
        seconds = [each.seconds for each in painted]
        rows.append(result_row(method, f"tcig {set_name}", [each.scores for each in painted], images, seconds))
        name = f"tcig {set_name}, {SPECIALIST_JUDGE} judge"
        second.append(result_row(method, name, [each.specialists for each in group]))
    return rows + second


def measures(rows: Sequence[dict], judged: Sequence[Judged]) -> list[dict]:
    """Mean and spread of mask IoUs by both judges, what stage two loses, and pictures beside layered rendering's."""
    groups, found = by_method(judged), []
    for judge_name in (GENERAL_JUDGE, SPECIALIST_JUDGE):
        means = {}
        for method, group in groups.items():
            overlaps = [value for value in (each.overlap(judge_name) for each in group) if value is not None]
            means[method] = float(np.mean(overlaps)) if overlaps else None
            spread_of = float(np.std(overlaps)) if overlaps else None
            target = TARGET_IOU if method == drafts_of(TCIG_NAME) else None
            head = f"mask IoU per picture, {judge_name} judge: {method}"
            found += [measure(f"{head}, mean", means[method], "", target), measure(f"{head}, spread", spread_of)]
        found += [
            measure(
                f"mask IoU that stage two loses, {judge_name} judge: {method}",
                means[drafts_of(method)] - means[method],
                "",
                TARGET_LOSS if method == TCIG_NAME else None,
            )
            for method in METHODS
            if means.get(method) is not None and means.get(drafts_of(method)) is not None
        ]
    for key, target in (("clip", -TARGET_WORSE), ("kid", TARGET_WORSE)):
        ours, theirs = (_pooled(rows, method, key) for method in (TCIG_NAME, LRDIFF))
        if ours is not None and theirs:
            # An unbiased KID may be below 0, and lower is still better.
            change = (ours - theirs) / abs(theirs)
            found.append(measure(f"{key}: {TCIG_NAME} against {LRDIFF}", change, "relative", target))
    return found


def _pooled(rows: Sequence[Mapping], method: str, key: str) -> float | None:
    """Mean of a score over all sets, pictures weighing the same."""
    known = [(row[key], row["pictures"]) for row in rows if row["method"] == method and row[key] is not None]
    return sum(value * number for value, number in known) / sum(number for _, number in known) if known else None


def sweep(painter: Painter, yardsticks: Yardsticks, *, layouts: int | None, seeds: int) -> list[dict]:
    """Stage two at every strength, from TCIG's drafts, alone and in layers, and from flat drawings.

    On the tuning layouts with masks.

    Returns:
        Rows as of other sweeps; at strength 0 the pictures are the drafts.
    """
    swept = (TCIG_NAME, LAYERED, DRAWING)
    painted: dict[tuple[str, float], list[Painted]] = {(name, value): [] for name in swept for value in STRENGTHS}
    for item in tqdm(masked(TUNING_SET, layouts), "strengths", unit="layout"):
        for seed in range(item.seed, item.seed + seeds):
            for name in swept:
                shown, _ = paint(painter, METHODS[name].graph(painter, item, seed, STRENGTHS))
                for number, value in enumerate(STRENGTHS):
                    painted[name, value] += score(yardsticks, name, TUNING_SET, item, [shown[refined(number)]], None)
    rows = []
    for (name, value), pictures in painted.items():
        features = yardsticks.image_features([each.picture for each in pictures])
        images = image_scores(yardsticks, features, [each.item.layout.prompt for each in pictures], None)
        row = result_row(name, TUNING_SET, [each.scores for each in pictures], images)
        rows.append({"sweep": "strength", "value": value, "method": name} | {key: row[key] for key in SCORES})
    return rows
