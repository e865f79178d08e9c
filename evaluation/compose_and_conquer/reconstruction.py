"""Reconstruction: real scenes painted again from their depths and their caption, compared with what they were."""

from collections.abc import Mapping, Sequence

import numpy as np

from ...core.compose_and_conquer.depth_pair import GROUND
from ..image_lines import image_line
from ..judging.yardsticks import Yardsticks
from ..painter import Painter
from ..records.lines import PictureLine
from ..records.pictures import PictureRecords
from ..sets.pairs import RealScene
from ..summary.means import mean_of
from .graphs import Asked, CnC
from .order import PLAIN, SINGLE, Keep
from .scores import depth_of_labels, feature_distance

SET = "cnc_reconstruction"
REAL = "real scenes"
DEPTH, FEATURES, LIKENESS = "depth error", "feature error", "likeness"  # of a picture and the real scene


def repaint(
    painter: Painter | None,
    yardsticks: Yardsticks,
    records: PictureRecords,
    methods: Mapping[str, CnC | None],
    real: RealScene,
    keep: Keep,
) -> None:
    """Paint a scene again with every method whose picture the records lack, and compare.

    Args:
        painter: not needed for `REAL`.
        yardsticks: the judges.
        records: that keep the pictures' scores.
        methods: by name, as in `order.paint_pair`; `REAL`, without settings, is the scene itself, which shows what
            the segmenter's own errors cost.
        real: the scene.
        keep: called with every picture.
    """
    for name, method in methods.items():
        key = (name, SET, real.seed, 0)
        if key in records:
            continue
        if name == REAL:
            picture, seconds, evaluations = real.scene.image, None, None
        elif name == PLAIN:
            (picture,), seconds, evaluations = painter.paint_prompt(real.scene.caption, real.seed)
        else:
            picture, seconds, evaluations = method.paint(painter, asked_scene(real, single=name == SINGLE))
        # Scenes of one, two and three things are mixed, so there is no one set of real scenes for KID.
        given = {"objects": len(real.scene.objects), "measures": compare(yardsticks, real, picture)}
        given |= {"seconds": seconds, "evaluations": evaluations}
        records.add([image_line(yardsticks, key, picture, real.scene.caption, **given)])
        keep(f"{SET}_{real.seed}_{name}", picture)


def asked_scene(real: RealScene, *, single: bool) -> Asked:
    """A scene by its depths and its caption, for two depth maps or for a control with a single one."""
    maps = real.maps()
    depths = (maps.whole, None) if single else (maps.foreground, maps.background)
    return Asked(real.scene.caption, real.seed, *depths)


def compare(yardsticks: Yardsticks, real: RealScene, picture: np.ndarray) -> dict[str, float]:
    """How near a picture comes to a real scene.

    Returns:
        `DEPTH`: mean absolute difference of disparity, 0..1. `FEATURES`: distance in the segmenter's features, see
        `feature_distance`. `LIKENESS`: cosine of CLIP's features.
    """
    planes = {yardsticks.segmenter.class_of(thing.concept): thing.disparity for thing in real.scene.objects}
    true = real.scene.disparity()
    ground = np.broadcast_to(np.linspace(0.0, GROUND, len(true), dtype=np.float32)[:, None], true.shape)
    depth = depth_of_labels(yardsticks.labels(picture), planes, ground)
    features = yardsticks.segmenter_features([picture, real.scene.image])
    distance = feature_distance([layer[:1] for layer in features], [layer[1:] for layer in features])
    found, wanted = yardsticks.image_features([picture, real.scene.image])
    return {DEPTH: float(np.abs(depth - true).mean()), FEATURES: float(distance), LIKENESS: float(found @ wanted)}


def reconstruction_measures(lines: Sequence[PictureLine]) -> list[dict]:
    """How near the pictures of one method come to the real scenes."""
    named = (
        (DEPTH, "depth MAE", "disparity"),
        (FEATURES, "LPIPS-style distance in the segmenter's features", ""),
        (LIKENESS, "CLIP similarity to the real scene", ""),
    )
    return [
        mean_of(lines, lambda line, key=key: line.measures[key]).measure(
            f"reconstruction: {lines[0].method}, {name}", unit
        )
        for key, name, unit in named
    ]
