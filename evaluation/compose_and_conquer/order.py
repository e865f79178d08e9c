"""Depth order: which of two shapes that overlap stands before the other, asked for both ways with the same maps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...core.scores.metrics import mask_iou, mean_or_none
from ..image_lines import image_line
from ..judging.yardsticks import Yardsticks
from ..painter import Painter
from ..records.lines import PictureLine
from ..records.pictures import PictureRecords
from ..sets.pairs import Pair
from ..summary.means import estimate, mean_of
from .graphs import Asked, CnC
from .scores import judge_order

SET = "cnc_order"
PLAIN, SINGLE, PERFECT = "plain", "cnc_single", "perfect"
# CnC with the names of both things kept to their shapes by Soft Guidance at its own strength, and that without depths.
NAMED, NAMES_ALONE = "cnc_phrases", "phrases"
STRENGTH = 1.0
TARGET = 0.85  # share of pairs that come out as asked, both ways
AS_ASKED, OUTLINES = "asked order", "order of outlines"  # shares of pictures
Keep = Callable[[str, np.ndarray], None]  # takes a picture's name and the picture


def with_names(method: CnC) -> dict[str, CnC]:
    """The method together with Soft Guidance, and Soft Guidance without it."""
    named = replace(method, phrases=STRENGTH)
    return {NAMED: named, NAMES_ALONE: replace(named, residual_scale=0.0)}


def paint_pair(
    painter: Painter | None,
    yardsticks: Yardsticks,
    records: PictureRecords,
    methods: Mapping[str, CnC | None],
    pair: Pair,
    keep: Keep,
    *,
    with_features: bool = False,
) -> None:
    """Paint and judge what the records lack of a pair, with every method, each of its two shapes in front in turn.

    Args:
        painter: not needed for `PERFECT`.
        yardsticks: the judges.
        records: that keep the pictures' scores.
        methods: by name. `SINGLE` sees the whole scene's depth in the foreground's place and nothing behind it;
            `PLAIN`, without settings, the prompt alone, so that one picture is judged both ways; `PERFECT`, without
            settings, is both sprites pasted.
        pair: what is asked for.
        keep: called with every picture.
        with_features: whether KID will need them.
    """
    for name, method in methods.items():
        painted: tuple[np.ndarray, float | None, int | None] | None = None
        for front in (0, 1):
            if (name, SET, pair.seed, front) in records:
                continue
            if name == PERFECT:
                painted = (pair.perfect_picture(front), None, None)
            elif name != PLAIN:
                painted = method.paint(painter, asked_order(pair, front, single=name == SINGLE))
            elif painted is None:
                (picture,), *cost = painter.paint_prompt(pair.prompt, pair.seed)
                painted = (picture, *cost)
            records.add([order_line(yardsticks, name, pair, front, *painted, with_features=with_features)])
            keep(f"{SET}_{pair.seed}_{front}_{name}", painted[0])


def asked_order(pair: Pair, front: int, *, single: bool) -> Asked:
    """A pair with placement `front` in front, for two depth maps or for a control with a single one."""
    maps = pair.maps(front)
    depths = (maps.whole, None) if single else (maps.foreground, maps.background)
    return Asked(pair.prompt, pair.seed, *depths, layout=pair.layout(front))


def order_line(
    yardsticks: Yardsticks,
    method: str,
    pair: Pair,
    front: int,
    picture: np.ndarray,
    seconds: float | None = None,
    evaluations: int | None = None,
    *,
    with_features: bool = False,
) -> PictureLine:
    """Judge one picture of a pair, with placement `front` asked for in front."""
    labels = yardsticks.labels(picture)
    near, far = pair.shapes[front], pair.shapes[1 - front]
    classes = [yardsticks.segmenter.class_of(pair.concepts[i]) for i in (front, 1 - front)]
    score = judge_order(labels, near, far, (classes[0], classes[1]))
    seen = zip(classes, (near, far & ~near), strict=True)
    overlap = mean_or_none(mask_iou(labels == index, shape) for index, shape in seen)
    return image_line(
        yardsticks,
        (method, SET, pair.seed, front),
        picture,
        pair.prompt,
        with_features=with_features,
        objects=len(pair.concepts),
        present=score.present,
        seconds=seconds,
        evaluations=evaluations,
        measures={"mask_iou": overlap, AS_ASKED: score.asked, OUTLINES: score.outline},
    )


def order_measures(lines: Sequence[PictureLine]) -> list[dict]:
    """How often the asked order comes out, for the pictures of one method; each pair is there both ways."""
    method = lines[0].method
    pairs: dict[int, list[float]] = {}
    for line in lines:
        pairs.setdefault(line.item, []).append(line.measures[AS_ASKED])
    both = estimate((SET, item, (float(all(asked)),)) for item, asked in pairs.items())
    target = None if method in (PLAIN, SINGLE, NAMES_ALONE, PERFECT) else TARGET
    single, outline = (mean_of(lines, lambda line, key=key: line.measures[key]) for key in (AS_ASKED, OUTLINES))
    return [
        both.measure(f"depth order: {method}, pairs that come out as asked both ways", "", target),
        single.measure(f"depth order: {method}, pictures that come out as asked", "", target),
        outline.measure(f"depth order: {method}, pictures with the asked order of outlines"),
    ]
