"""From painted pictures to rows of results."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.scores.layout_score import RegionScore, score_pictures
from ..result_rows import result_row
from ..sets.sets import Item
from .yardsticks import Yardsticks, image_scores, to_images


@dataclass(frozen=True)
class Painted:
    """One picture, where it came from and how it scored."""

    method: str
    set_name: str
    item: Item
    picture: np.ndarray
    seconds: float | None
    scores: list[RegionScore]


def score(
    yardsticks: Yardsticks,
    method: str,
    set_name: str,
    item: Item,
    pictures: Sequence[np.ndarray],
    seconds: float | None,
) -> list[Painted]:
    """Judge the pictures that a method painted for an item; seconds are those of one of them."""
    times = len(pictures)
    scores = score_pictures(to_images(pictures), [item.layout] * times, yardsticks.segmenter, [item.areas] * times)
    return [
        Painted(method, set_name, item, picture, seconds, regions)
        for picture, regions in zip(pictures, scores, strict=True)
    ]


def spread(rows: Sequence, number: int | None) -> list:
    """Take `number` rows from the whole length of a list, so that every category keeps its share."""
    if number is None or number >= len(rows):
        return list(rows)
    return [rows[(2 * i + 1) * len(rows) // (2 * number)] for i in range(number)]


def layout_rows(
    yardsticks: Yardsticks, painted: Sequence[Painted], names: Sequence[str], methods: Sequence[str]
) -> Iterable[dict]:
    """A row per set and method, then one per kind and category of the set ("objects_2/masks")."""
    for set_name in names:
        of_set = [p for p in painted if p.set_name == set_name]
        kinds, categories = zip(*(p.item.tags for p in of_set), strict=True)
        for tag in (None, *dict.fromkeys(kinds), *dict.fromkeys(categories)):
            for method in methods:
                chosen = [p for p in of_set if p.method == method and (tag is None or tag in p.item.tags)]
                if chosen:
                    name = set_name if tag is None else f"{set_name}/{tag}"
                    yield layout_row(yardsticks, chosen, name, with_kid=tag is None)  # a tag has too few pictures


def layout_row(yardsticks: Yardsticks, painted: Sequence[Painted], name: str, *, with_kid: bool) -> dict:
    """One row for pictures of one method and of layouts with the same number of objects, under the name of a set."""
    first = painted[0]
    features = yardsticks.image_features([p.picture for p in painted])
    objects = len(first.item.layout.regions) if with_kid else None
    images = image_scores(yardsticks, features, [p.item.layout.prompt for p in painted], objects)
    return result_row(first.method, name, [p.scores for p in painted], images, [p.seconds for p in painted])
