"""Depth order: which of two shapes that overlap stands before the other, asked for both ways with the same maps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...core.scores.metrics import mask_iou, mean_or_none
from ..judging.yardsticks import Yardsticks, image_scores
from ..painter import Painter
from ..result_rows import measure, result_row
from ..sets.pairs import Pair
from .graphs import Asked, CnC
from .scores import OrderScore, judge_order

SET = "cnc_order"
PLAIN, SINGLE, PERFECT = "plain", "cnc_single", "perfect"
# CnC with the names of both things kept to their shapes by Soft Guidance at its own strength, and that without depths.
NAMED, NAMES_ALONE = "cnc_phrases", "phrases"
STRENGTH = 10.0
TARGET = 0.85  # share of pairs that come out as asked, both ways


@dataclass(frozen=True)
class Ordered:
    """One picture of a pair, with placement `front` asked for in front, and how it was judged."""

    method: str
    pair: Pair
    front: int
    picture: np.ndarray
    seconds: float | None
    score: OrderScore
    mask_iou: float | None


def with_names(method: CnC) -> dict[str, CnC]:
    """The method together with Soft Guidance, and Soft Guidance without it."""
    named = replace(method, phrases=STRENGTH)
    return {NAMED: named, NAMES_ALONE: replace(named, residual_scale=0.0)}


def paint_pair(
    painter: Painter | None, yardsticks: Yardsticks, methods: Mapping[str, CnC | None], pair: Pair
) -> Iterator[Ordered]:
    """Paint and judge a pair with every method, each of its two shapes in front in turn.

    Args:
        painter: not needed for `PERFECT`.
        yardsticks: the judges.
        methods: by name. `SINGLE` sees the whole scene's depth in the foreground's place and nothing behind it;
            `PLAIN`, without settings, the prompt alone, so that one picture is judged both ways; `PERFECT`, without
            settings, is both sprites pasted.
        pair: what is asked for.
    """
    for name, method in methods.items():
        painted: tuple[np.ndarray, float | None] | None = None
        for front in (0, 1):
            if name == PERFECT:
                painted = (pair.perfect_picture(front), None)
            elif name != PLAIN:
                painted = method.paint(painter, asked_order(pair, front, single=name == SINGLE))
            elif painted is None:
                painted = painter.paint_prompt(pair.prompt, pair.seed)
                painted = (painted[0][0], painted[1])
            yield _judged(yardsticks, name, pair, front, *painted)


def asked_order(pair: Pair, front: int, *, single: bool) -> Asked:
    """A pair with placement `front` in front, for two depth maps or for a control with a single one."""
    maps = pair.maps(front)
    depths = (maps.whole, None) if single else (maps.foreground, maps.background)
    return Asked(pair.prompt, pair.seed, *depths, layout=pair.layout(front))


def _judged(
    yardsticks: Yardsticks, method: str, pair: Pair, front: int, picture: np.ndarray, seconds: float | None
) -> Ordered:
    labels = yardsticks.labels(picture)
    near, far = pair.shapes[front], pair.shapes[1 - front]
    classes = [yardsticks.segmenter.class_of(pair.concepts[i]) for i in (front, 1 - front)]
    score = judge_order(labels, near, far, (classes[0], classes[1]))
    seen = zip(classes, (near, far & ~near), strict=True)
    iou = mean_or_none(mask_iou(labels == index, shape) for index, shape in seen)
    return Ordered(method, pair, front, picture, seconds, score, iou)


def order_row(yardsticks: Yardsticks, pictures: Sequence[Ordered]) -> dict:
    """One row of results for the pictures of one method."""
    features = yardsticks.image_features([each.picture for each in pictures])
    images = image_scores(yardsticks, features, [each.pair.prompt for each in pictures], len(pictures[0].pair.concepts))
    return result_row(
        pictures[0].method,
        SET,
        images=images,
        seconds=[each.seconds for each in pictures],
        pictures=len(pictures),
        mask_iou=mean_or_none(each.mask_iou for each in pictures),
        presence=mean_or_none(each.score.present for each in pictures),
    )


def order_measures(pictures: Sequence[Ordered]) -> list[dict]:
    """How often the asked order comes out, for the pictures of one method; each pair is there both ways."""
    method = pictures[0].method
    pairs: dict[int, list[bool]] = {}
    for each in pictures:
        pairs.setdefault(each.pair.seed, []).append(each.score.asked)
    both = mean_or_none(all(asked) for asked in pairs.values())
    single = mean_or_none(each.score.asked for each in pictures)
    outline = mean_or_none(each.score.outline for each in pictures)
    target = None if method in (PLAIN, SINGLE, NAMES_ALONE, PERFECT) else TARGET
    return [
        measure(f"depth order: {method}, pairs that come out as asked both ways", both, "", target),
        measure(f"depth order: {method}, pictures that come out as asked", single, "", target),
        measure(f"depth order: {method}, pictures with the asked order of outlines", outline),
    ]
