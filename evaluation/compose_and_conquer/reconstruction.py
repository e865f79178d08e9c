"""Reconstruction: real scenes painted again from their depths and their caption, compared with what they were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.compose_and_conquer.depth_pair import GROUND
from ...core.scores.metrics import mean_or_none
from ..judging.yardsticks import Yardsticks, image_scores
from ..painter import Painter
from ..result_rows import measure, result_row
from ..sets.pairs import RealScene
from .graphs import Asked, CnC
from .order import PLAIN, SINGLE
from .scores import depth_of_labels, feature_distance

SET = "cnc_reconstruction"
REAL = "real scenes"


@dataclass(frozen=True)
class Repainted:
    """A picture of a real scene and how near it came.

    Attributes:
        method: what painted it.
        real: the scene.
        picture: uint8 (h w 3).
        seconds: it took.
        depth_error: mean absolute difference of disparity, 0..1.
        likeness: distance in the segmenter's features, see `feature_distance`.
    """

    method: str
    real: RealScene
    picture: np.ndarray
    seconds: float | None
    depth_error: float
    likeness: float


def repaint(
    painter: Painter | None, yardsticks: Yardsticks, methods: Mapping[str, CnC | None], real: RealScene
) -> list[Repainted]:
    """Paint a scene again with every method and compare.

    Args:
        painter: not needed for `REAL`.
        yardsticks: the judges.
        methods: by name, as in `order.paint_pair`; `REAL`, without settings, is the scene itself, which shows what
            the segmenter's own errors cost.
        real: the scene.
    """
    found = []
    for name, method in methods.items():
        if name == REAL:
            picture, seconds = real.scene.image, None
        elif name == PLAIN:
            (picture,), seconds = painter.paint_prompt(real.scene.caption, real.seed)
        else:
            picture, seconds = method.paint(painter, asked_scene(real, single=name == SINGLE))
        error, likeness = compare(yardsticks, real, picture)
        found.append(Repainted(name, real, picture, seconds, error, likeness))
    return found


def asked_scene(real: RealScene, *, single: bool) -> Asked:
    """A scene by its depths and its caption, for two depth maps or for a control with a single one."""
    maps = real.maps()
    depths = (maps.whole, None) if single else (maps.foreground, maps.background)
    return Asked(real.scene.caption, real.seed, *depths)


def compare(yardsticks: Yardsticks, real: RealScene, picture: np.ndarray) -> tuple[float, float]:
    """Error of depth and distance in features of a picture from a real scene."""
    planes = {yardsticks.segmenter.class_of(thing.concept): thing.disparity for thing in real.scene.objects}
    true = real.scene.disparity()
    ground = np.broadcast_to(np.linspace(0.0, GROUND, len(true), dtype=np.float32)[:, None], true.shape)
    depth = depth_of_labels(yardsticks.labels(picture), planes, ground)
    features = yardsticks.segmenter_features([picture, real.scene.image])
    likeness = feature_distance([layer[:1] for layer in features], [layer[1:] for layer in features])
    return float(np.abs(depth - true).mean()), float(likeness)


def reconstruction_row(yardsticks: Yardsticks, pictures: Sequence[Repainted]) -> dict:
    """One row of results for the pictures of one method."""
    features = yardsticks.image_features([each.picture for each in pictures])
    # Scenes of one, two and three things are mixed, so there is no one set of real scenes to compare with.
    images = image_scores(yardsticks, features, [each.real.scene.caption for each in pictures], None)
    seconds = [each.seconds for each in pictures]
    return result_row(pictures[0].method, SET, images=images, seconds=seconds, pictures=len(pictures))


def reconstruction_measures(yardsticks: Yardsticks, pictures: Sequence[Repainted]) -> list[dict]:
    """How near the pictures of one method come to the real scenes."""
    method = pictures[0].method
    errors, distances = (mean_or_none(getattr(each, name) for each in pictures) for name in ("depth_error", "likeness"))
    features = yardsticks.image_features([each.picture for each in pictures])
    real = yardsticks.image_features([each.real.scene.image for each in pictures])
    similarity = float((features * real).sum(1).mean())
    return [
        measure(f"reconstruction: {method}, depth MAE", errors, "disparity"),
        measure(f"reconstruction: {method}, LPIPS-style distance in the segmenter's features", distances),
        measure(f"reconstruction: {method}, CLIP similarity to the real scene", similarity),
    ]
