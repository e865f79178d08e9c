"""Looks: whether what two references show stays in its own region, and what a stronger background does to the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...core.scores.metrics import bleed, is_present, mask_iou, mean_or_none
from ...sticker_world.world.captions import plain_prompt
from ...sticker_world.world.concepts import EMPTY_CAPTIONS
from ..judging.yardsticks import Yardsticks, image_scores
from ..painter import Painter
from ..result_rows import measure, result_row
from ..sets.pairs import Looks, depth_maps
from .graphs import Asked, CnC
from .scores import colour_distance

NAMED, UNNAMED = "cnc_looks", "cnc_looks_unnamed"  # sets: the prompt names both things, or only the place
OPEN = "cnc_open"  # the same tokens without a mask: what soft guidance is measured against
PERFECT = "perfect"
BLEED_TARGET = 1 / 3  # at most, of the bleed without a mask
STRENGTHS = (0.0, 2.0)  # of the background's tokens


@dataclass(frozen=True)
class Placed:
    """A picture of two references and where their concepts are.

    Attributes:
        method: what painted it.
        set_name: `NAMED` or `UNNAMED`.
        looks: what was asked for.
        picture: uint8 (h w 3).
        seconds: it took.
        bleeds: share of each concept's pixels outside its region; None for a concept that is nowhere.
        present: whether both are there, each in its region and with half of its expected size.
    """

    method: str
    set_name: str
    looks: Looks
    picture: np.ndarray
    seconds: float | None
    bleeds: tuple[float | None, float | None]
    present: bool


def prompt_of(looks: Looks, set_name: str) -> str:
    """What the picture's text says in one of the two sets."""
    if set_name == NAMED:
        return plain_prompt(looks.concepts, looks.background)
    return EMPTY_CAPTIONS[looks.background]


def asked_looks(looks: Looks, set_name: str) -> Asked:
    """Two references and the foreground's region, without depth: only tokens say what stands where."""
    prompt, (first, second) = prompt_of(looks, set_name), looks.reference_pictures()
    return Asked(prompt, looks.seed, foreground_look=first, background_look=second, region=looks.shapes[0])


def place(
    painter: Painter | None, yardsticks: Yardsticks, methods: Mapping[str, CnC | None], looks: Looks
) -> list[Placed]:
    """Paint both references with every method, with both prompts, and judge where they are.

    Args:
        painter: not needed for `PERFECT`.
        yardsticks: the judges.
        methods: by name; `PERFECT`, without settings, is both sprites pasted.
        looks: what is asked for.
    """
    found = []
    for set_name in (NAMED, UNNAMED):
        for name, method in methods.items():
            if name == PERFECT:
                picture, seconds = looks.perfect_picture(), None
            else:
                picture, seconds = method.paint(painter, asked_looks(looks, set_name))
            labels = yardsticks.labels(picture)
            found.append(Placed(name, set_name, looks, picture, seconds, *judge_places(yardsticks, looks, labels)))
    return found


def judge_places(
    yardsticks: Yardsticks, looks: Looks, labels: np.ndarray
) -> tuple[tuple[float | None, float | None], bool]:
    """Each concept's bleed and whether both are where they belong, from a label map (h w)."""
    first, second = (yardsticks.segmenter.class_of(concept) for concept in looks.concepts)
    regions = (looks.shapes[0], ~looks.shapes[0])
    bleeds = (bleed(labels == first, regions[0]), bleed(labels == second, regions[1]))
    present = all(
        is_present(np.where(region, labels, 0), index, float(shape.mean()))
        for index, region, shape in zip((first, second), regions, looks.shapes, strict=True)
    )
    return bleeds, present


def looks_row(yardsticks: Yardsticks, pictures: Sequence[Placed]) -> dict:
    """One row of results for the pictures of one method in one set."""
    first = pictures[0]
    features = yardsticks.image_features([each.picture for each in pictures])
    prompts = [prompt_of(each.looks, NAMED) for each in pictures]  # what should be seen, whatever was said
    images = image_scores(yardsticks, features, prompts, len(first.looks.concepts))
    return result_row(
        first.method,
        first.set_name,
        images=images,
        seconds=[each.seconds for each in pictures],
        pictures=len(pictures),
        bleed=mean_bleed(pictures),
        presence=mean_or_none(each.present for each in pictures),
    )


def mean_bleed(pictures: Sequence[Placed]) -> float | None:
    """Over all concepts that are somewhere."""
    return mean_or_none(share for each in pictures for share in each.bleeds)


def looks_measures(guided: Sequence[Placed], unguided: Sequence[Placed]) -> list[dict]:
    """What soft guidance changes, for the pictures of one set with and without it."""
    found, set_name = [], guided[0].set_name
    for pictures in (guided, unguided):
        share = mean_bleed(pictures)
        inside = None if share is None else 1 - share
        found.append(measure(f"looks: {pictures[0].method}, share of pixels in the own region, {set_name}", inside))
    with_mask, without = mean_bleed(guided), mean_bleed(unguided)
    ratio = with_mask / without if with_mask is not None and without else None
    name = f"looks: bleed of {guided[0].method} against {unguided[0].method}, at most, {set_name}"
    return [*found, measure(name, ratio, "ratio", BLEED_TARGET)]


@dataclass(frozen=True)
class Strengthened:
    """What raising the background's strength from the first to the last of `STRENGTHS` changes.

    Attributes:
        method: what painted both pictures.
        pictures: uint8 (h w 3) each.
        mask_iou: of the foreground's concept in both; None where it is in neither.
        foreground_colour: CIE 1976 colour difference where both show it; None where they do not.
        background_colour: the same outside its region.
    """

    method: str
    pictures: tuple[np.ndarray, np.ndarray]
    mask_iou: float | None
    foreground_colour: float | None
    background_colour: float | None


def strengthen(
    painter: Painter, yardsticks: Yardsticks, methods: Mapping[str, CnC], looks: Looks
) -> list[Strengthened]:
    """Paint with depths, references and prompt at both strengths of the background and compare the foregrounds."""
    found = []
    for name, method in methods.items():
        weak, strong = (
            replace(method, background_strength=strength).paint(painter, asked_whole(looks))[0]
            for strength in STRENGTHS
        )
        found.append(compare_strengths(yardsticks, name, looks, weak, strong))
    return found


def asked_whole(looks: Looks) -> Asked:
    """Everything at once: text, the foreground's depth and the background's, both references and the region."""
    maps = depth_maps(looks.shapes[[1, 0]], (0.5, 1.0), 1)  # the foreground is the nearer one
    depths = {"foreground_depth": maps.foreground, "background_depth": maps.background}
    return replace(asked_looks(looks, NAMED), **depths)


def compare_strengths(
    yardsticks: Yardsticks, method: str, looks: Looks, weak: np.ndarray, strong: np.ndarray
) -> Strengthened:
    """Compare two pictures that were painted at the two strengths."""
    index = yardsticks.segmenter.class_of(looks.concepts[0])
    before, after = (yardsticks.labels(picture) == index for picture in (weak, strong))
    return Strengthened(
        method,
        (weak, strong),
        mask_iou(before, after),
        colour_distance(weak, strong, before & after),
        colour_distance(weak, strong, ~looks.shapes[0]),
    )


def strength_measures(changes: Sequence[Strengthened]) -> list[dict]:
    """What changes, for one method."""
    head = f"background strength {STRENGTHS[0]:g} to {STRENGTHS[1]:g}: {changes[0].method}"
    return [
        measure(f"{head}, {name}", mean_or_none(getattr(each, key) for each in changes), unit)
        for key, name, unit in (
            ("mask_iou", "mask IoU of the foreground", ""),
            ("foreground_colour", "colour distance in the foreground", "CIE 1976"),
            ("background_colour", "colour distance outside its region", "CIE 1976"),
        )
    ]
