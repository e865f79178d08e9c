"""From painted pictures to the lines that keep their scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...core.scores.layout_score import RegionScore, score_pictures
from ..records.lines import PictureLine, RegionLine, picture_line
from ..records.pictures import PictureRecords
from ..sets.sets import Item
from ..summary.kernel_distance import KID_PICTURES
from ..summary.rows import REFERENCE
from .yardsticks import REAL_SCENES, Yardsticks, real_scenes, to_images


@dataclass(frozen=True)
class Painted:
    """One picture, where it came from and how it scored."""

    method: str
    set_name: str
    item: Item
    picture: np.ndarray
    seconds: float | None
    scores: list[RegionScore]
    evaluations: int | None = None


def score(
    yardsticks: Yardsticks,
    method: str,
    set_name: str,
    item: Item,
    pictures: Sequence[np.ndarray],
    seconds: float | None,
    evaluations: int | None = None,
) -> list[Painted]:
    """Judge the pictures that a method painted for an item; seconds and evaluations are those of one of them."""
    times = len(pictures)
    scores = score_pictures(to_images(pictures), [item.layout] * times, yardsticks.segmenter, [item.areas] * times)
    return [
        Painted(method, set_name, item, picture, seconds, regions, evaluations)
        for picture, regions in zip(pictures, scores, strict=True)
    ]


def layout_lines(yardsticks: Yardsticks, painted: Sequence[Painted], *, with_features: bool) -> list[PictureLine]:
    """The lines of all pictures that a method painted for an item.

    Args:
        yardsticks: the judges.
        painted: the pictures, in the order of their noise.
        with_features: whether KID will need them, see `large_enough`.
    """
    features = yardsticks.image_features([each.picture for each in painted])
    (text,) = yardsticks.text_features([painted[0].item.layout.prompt])
    return [
        picture_line(
            each.method,
            each.set_name,
            each.item.seed,
            number,
            tags=each.item.tags,
            objects=len(each.item.layout.regions),
            present=all(region.present for region in each.scores),
            regions=tuple(RegionLine.of(region) for region in each.scores),
            clip=float(features[number] @ text),
            features=features[number] if with_features else None,
            seconds=each.seconds,
            evaluations=each.evaluations,
        )
        for number, each in enumerate(painted)
    ]


def large_enough(pictures: int) -> bool:
    """Whether so many pictures of a method and set get a KID, so that their features are kept."""
    return pictures >= KID_PICTURES


def add_real_scenes(yardsticks: Yardsticks, records: PictureRecords, objects: int) -> None:
    """Keep the features of the real scenes that KID compares with, unless they are there."""
    name = f"real scenes, {objects}"
    keys = [(REFERENCE, name, index, 0) for index in range(REAL_SCENES)]
    if not records.has_all(keys):
        features = yardsticks.image_features([scene.image for scene in real_scenes(objects, REAL_SCENES)])
        records.add(
            picture_line(*key, objects=objects, features=each) for key, each in zip(keys, features, strict=True)
        )


def spread(rows: Sequence, number: int | None) -> list:
    """Take `number` rows from the whole length of a list, so that every category keeps its share."""
    if number is None or number >= len(rows):
        return list(rows)
    return [rows[(2 * i + 1) * len(rows) // (2 * number)] for i in range(number)]
