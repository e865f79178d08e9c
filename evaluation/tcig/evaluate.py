"""TCIG (arXiv 2403.01212), both stages, beside what it is to beat: `python stage.py evaluate tcig`.

Only layouts with masks are used, since TCIG asks for masks. Every picture is judged twice: by the judge of all methods,
which guides none, and by the two specialists together, except for what they guided themselves.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from ...commands.messages import SetupProblem
from ...core.scores.layout_score import score_pictures
from ...core.scores.metrics import mean_or_none
from ...core.segmentation.joint import join_segmenters
from ...core.segmentation.segmenter import Segmenter
from ...core.tcig.starts import NOISE
from ...sticker_world.shipped import CLIP_FOLDER, SPECIALIST_FOLDERS, VQGAN_FOLDER
from ..graphs.lrdiff import LRDiff
from ..graphs.told import CLIP_GUIDES, SPECIALISTS_GUIDE, TOLD
from ..judging.judges import JUDGES
from ..judging.scoring import layout_lines, score, spread
from ..judging.yardsticks import Yardsticks, to_images
from ..painter import Painter
from ..records.lines import PictureLine, RegionLine, picture_line
from ..records.pictures import PictureRecords
from ..sets.sets import LAYOUT_SETS, TUNING_SET, Item, load_set
from ..summary.compared import Compared
from ..summary.estimate import Estimate
from ..summary.means import difference_of, mean_of, spread_of
from ..summary.rows import summary_rows
from .graphs import DRAFT, LAYERED_DENOISE, SPECIALISTS, TCIG, UNGUIDED_DENOISE, Drawing, Start, paint, refined
from .models import model_measures

TCIG_NAME, LAYERED, DRAWING, LRDIFF, PERFECT = "tcig", "tcig_layered", "drawing", "lrdiff", "perfect"
START, START_CLIP = "tcig_start", "tcig_start_clip"
LAYOUTS = 40  # over all sets, if nothing is said
METHODS: dict[str, TCIG | Drawing | Start] = {
    TCIG_NAME: TCIG(),
    # The same draft, which the server still has; so its time is stage two's alone.
    LAYERED: TCIG(layered=True, denoise=LAYERED_DENOISE),
    "tcig_two": TCIG(segmenters=SPECIALISTS),
    "tcig_grey": TCIG(ground=False),
    # The published loop and the same without segmentation: nothing of the layout is in their start.
    "tcig_canonical": TCIG(start=NOISE, segmenter_noise=0.0),
    "vqgan_clip": TCIG(start=NOISE, guided=False),
    # What the start gives by itself, and with CLIP alone; no segmenter is asked in either stage.
    START: Start(),
    START_CLIP: TCIG(guided=False, denoise=UNGUIDED_DENOISE),
    DRAWING: Drawing(),
}
GENERAL_JUDGE, SPECIALIST_JUDGE = "general", "specialists"
# What the issue asks: of stage one, of what stage two may lose, and of CLIP beside layered rendering's.
TARGET_IOU, TARGET_LOSS, TARGET_WORSE = 0.75, 0.05, 0.10
# Method, and what it is compared with.
PAIRS = (
    *((TCIG_NAME, rival) for rival in (*METHODS, LRDIFF) if rival != TCIG_NAME),
    (START, START_CLIP),
    *((method, f"{method} draft") for method in METHODS),
)
Keep = Callable[[str, np.ndarray], None]


def drafts_of(method: str) -> str:
    """The name of a method's first stage in result rows."""
    return f"{method} draft"


def masked(name: str, number: int | None) -> list[Item]:
    """Layouts of a set that have masks, all or so many from its whole length."""
    return spread([item for item in load_set(name) if "masks" in item.tags], number)


def items_of(layouts: int | None, *, tuning: bool) -> dict[str, list[Item]]:
    """The layouts by set: so many of each, or if nothing is said `LAYOUTS` over all of them or the whole tuning set."""
    if tuning:
        return {TUNING_SET: masked(TUNING_SET, layouts)}
    shares = [LAYOUTS // len(LAYOUT_SETS) + (place < LAYOUTS % len(LAYOUT_SETS)) for place in range(len(LAYOUT_SETS))]
    return {name: masked(name, layouts or share) for name, share in zip(LAYOUT_SETS, shares, strict=True)}


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


def set_of(name: str, judge: str = GENERAL_JUDGE) -> str:
    """A set of layouts in result rows, by one of the judges."""
    return f"tcig {name}" if judge == GENERAL_JUDGE else f"tcig {name}, {judge} judge"


def evaluate(
    painter: Painter,
    yardsticks: Yardsticks,
    records: PictureRecords,
    *,
    layouts: int | None,
    seeds: int,
    tuning: bool,
    keep: Keep,
) -> dict[str, list[dict]]:
    """Paint and judge what the records lack; returns rows, comparisons and measures of results.

    Args:
        painter: of an `evaluation_server`.
        yardsticks: the general judges.
        records: that keep the pictures' scores.
        layouts: of each set; None takes `LAYOUTS` together, or all of the tuning set.
        seeds: pictures per layout and method.
        tuning: the tuning set instead.
        keep: called with every picture.
    """
    judges = (yardsticks, join_segmenters([Segmenter.load(folder) for folder in SPECIALIST_FOLDERS.values()]))
    painter.paint_prompt("warm-up", 0)  # loading the checkpoint is not part of the first picture's time
    sets = items_of(layouts, tuning=tuning)
    for name, items in sets.items():
        for item in tqdm(items, name, unit="layout"):
            for number in range(seeds):
                for method, picture, seconds in pictures_of(painter, records, name, item, number):
                    records.add(lines_of(judges, method, name, item, number, picture, seconds))
                    keep(f"tcig_{name}_{item.seed}_{number}_{method.replace(' ', '_')}", picture)
    return results_of(records, tuple(sets)) | {"measures": measures(records, tuple(sets)) + model_measures()}


def judged_by(method: str) -> tuple[str, ...]:
    """The judges that took no part in a method or its draft."""
    told = TOLD.get(method.removesuffix(" draft"))
    own = told is not None and SPECIALISTS_GUIDE in told.hears
    return (GENERAL_JUDGE,) if own else (GENERAL_JUDGE, SPECIALIST_JUDGE)


def has_clip(method: str) -> bool:
    """Whether the judging CLIP may speak of a method: not if drafts were optimised against it."""
    told = TOLD.get(method.removesuffix(" draft"))
    return told is None or CLIP_GUIDES not in told.hears or JUDGES["CLIP"] != CLIP_FOLDER


def _is_judged(records: PictureRecords, method: str, name: str, item: Item, number: int) -> bool:
    return records.has_all((method, set_of(name, judge), item.seed, number) for judge in judged_by(method))


def pictures_of(
    painter: Painter, records: PictureRecords, name: str, item: Item, number: int
) -> Iterator[tuple[str, np.ndarray, float | None]]:
    """What the records lack of a layout: method, picture, seconds. A draft's seconds are not known alone."""
    seed, before = item.seed + number, None
    for method, settings in METHODS.items():
        if all(_is_judged(records, each, name, item, number) for each in (drafts_of(method), method)):
            continue
        shown, seconds = paint(painter, settings.graph(painter, item, seed))
        yield drafts_of(method), shown[DRAFT], None
        # Where the server had to make the draft again, its seconds would count as stage two's.
        yield method, shown[refined()], None if method == LAYERED and before != TCIG_NAME else seconds
        before = method
    if not _is_judged(records, LRDIFF, name, item, number):
        pictures, seconds = painter.paint_graph(LRDiff()(item.layout, seed, 1, ()))
        yield LRDIFF, pictures[0], seconds
    if number == 0 and not _is_judged(records, PERFECT, name, item, number):
        yield PERFECT, item.perfect_picture(), None


def lines_of(
    judges: tuple[Yardsticks, Segmenter],
    method: str,
    name: str,
    item: Item,
    number: int,
    picture: np.ndarray,
    seconds: float | None,
) -> list[PictureLine]:
    """Ask the judges that took no part about a picture; the specialists have no image scores."""
    yardsticks, specialists = judges
    painted = score(yardsticks, method, set_of(name), item, [picture], seconds)
    (line,) = layout_lines(yardsticks, painted, with_features=False)
    lines = [replace(line, number=number, clip=line.clip if has_clip(method) else None)]
    if SPECIALIST_JUDGE in judged_by(method):
        (regions,) = score_pictures(to_images([picture]), [item.layout], specialists, [item.areas])
        lines.append(
            picture_line(
                method,
                set_of(name, SPECIALIST_JUDGE),
                item.seed,
                number,
                tags=item.tags,
                objects=line.objects,
                present=all(region.present for region in regions),
                regions=tuple(RegionLine.of(region) for region in regions),
            )
        )
    return lines


def methods_of() -> list[str]:
    """Everything that has rows, in their order."""
    return [*(each for method in METHODS for each in (drafts_of(method), method)), LRDIFF, PERFECT]


def results_of(records: PictureRecords, names: Sequence[str]) -> dict[str, list[dict]]:
    """Provenance, rows and comparisons; rows are of each set by each judge, comparisons of all sets by the general one.

    Args:
        records: of the run.
        names: of the sets of layouts.
    """
    general, second = ([set_of(name, judge) for name in names] for judge in (GENERAL_JUDGE, SPECIALIST_JUDGE))
    return {
        "provenance": [records.provenance],
        "rows": summary_rows(records, [*general, *second], methods_of(), by_tag=False),
        "comparisons": Compared((line for line in records if line.method in methods_of()), general).rows(PAIRS),
    }


def overlap(line: PictureLine) -> float | None:
    """Mean mask IoU of a picture's regions."""
    return mean_or_none(region.mask_iou for region in line.regions)


def measures(records: PictureRecords, names: Sequence[str]) -> list[dict]:
    """Mean and spread of mask IoUs by both judges, what stage two loses, and CLIP beside layered rendering's.

    Args:
        records: of the run.
        names: of the sets of layouts.
    """
    found = []
    for judge in (GENERAL_JUDGE, SPECIALIST_JUDGE):
        lines = lines_by_method(records, [set_of(name, judge) for name in names])
        for method, group in lines.items():
            target = TARGET_IOU if method == drafts_of(TCIG_NAME) else None
            head = f"mask IoU per picture, {judge} judge: {method}"
            found += [
                mean_of(group, overlap).measure(f"{head}, mean", "", target),
                spread_of(group, overlap).measure(f"{head}, spread"),
            ]
        for method in METHODS:
            if method in lines and drafts_of(method) in lines:
                lost, target = _lost(lines, method), TARGET_LOSS if method == TCIG_NAME else None
                found.append(
                    lost.measure(f"mask IoU that stage two loses, {judge} judge: {method}", "", target, "most")
                )
    words = Compared(records, [set_of(name) for name in names]).gain(TCIG_NAME, LRDIFF, "clip")
    if words.value is not None:
        found.append(words.measure(f"clip: {TCIG_NAME} against {LRDIFF}", "relative", -TARGET_WORSE))
    return found


def _lost(lines: Mapping[str, Sequence[PictureLine]], method: str) -> Estimate:
    """Drafts minus what stage two made of them."""
    drafts = [replace(line, method=method) for line in lines[drafts_of(method)]]
    return difference_of(drafts, lines[method], overlap)


def lines_by_method(records: PictureRecords, sets: Sequence[str]) -> dict[str, list[PictureLine]]:
    """The lines of some sets, in the order of rows."""
    groups = {
        method: [line for line in records if line.method == method and line.set_name in sets] for method in methods_of()
    }
    return {method: group for method, group in groups.items() if group}
