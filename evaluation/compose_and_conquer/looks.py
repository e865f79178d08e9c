"""Looks: whether what two references show stays in its own region, and what a stronger background does to the other."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ...core.scores.metrics import bleed, is_present, mask_iou, mean_or_none
from ...sticker_world.world.captions import plain_prompt
from ...sticker_world.world.concepts import EMPTY_CAPTIONS
from ..image_lines import image_line
from ..judging.yardsticks import Yardsticks
from ..painter import Painter
from ..records.lines import PictureLine, picture_line
from ..records.pictures import PictureRecords
from ..sets.pairs import Looks, depth_maps
from ..summary.means import mean_of, ratio_of
from .graphs import Asked, CnC
from .order import Keep
from .scores import colour_distance

NAMED, UNNAMED = "cnc_looks", "cnc_looks_unnamed"  # sets: the prompt names both things, or only the place
STRENGTHENED = "cnc_strength"  # set: both strengths of the background, a line for two pictures
OPEN = "cnc_open"  # the same tokens without a mask: what soft guidance is measured against
PERFECT = "perfect"
BLEED_TARGET = 1 / 3  # at most, of the bleed without a mask
STRENGTHS = (0.0, 2.0)  # of the background's tokens
BLEED = "bleed"  # of a picture, the mean over what is somewhere
FOREGROUND, BACKGROUND = "foreground colour change", "background colour change"


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
    painter: Painter | None,
    yardsticks: Yardsticks,
    records: PictureRecords,
    methods: Mapping[str, CnC | None],
    looks: Looks,
    keep: Keep,
) -> None:
    """Paint both references with every method, with both prompts, and judge where they are, if the records lack it.

    Args:
        painter: not needed for `PERFECT`.
        yardsticks: the judges.
        records: that keep the pictures' scores.
        methods: by name; `PERFECT`, without settings, is both sprites pasted.
        looks: what is asked for.
        keep: called with every picture.
    """
    for set_name in (NAMED, UNNAMED):
        for name, method in methods.items():
            key = (name, set_name, looks.seed, 0)
            if key in records:
                continue
            if name == PERFECT:
                picture, seconds, evaluations = looks.perfect_picture(), None, None
            else:
                picture, seconds, evaluations = method.paint(painter, asked_looks(looks, set_name))
            bleeds, present = judge_places(yardsticks, looks, yardsticks.labels(picture))
            records.add(
                [
                    image_line(
                        yardsticks,
                        key,
                        picture,
                        prompt_of(looks, NAMED),  # what should be seen, whatever was said
                        objects=len(looks.concepts),
                        present=present,
                        seconds=seconds,
                        evaluations=evaluations,
                        measures={BLEED: mean_or_none(bleeds)},
                    )
                ]
            )
            keep(f"{set_name}_{looks.seed}_{name}", picture)


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


def looks_measures(guided: Sequence[PictureLine], unguided: Sequence[PictureLine]) -> list[dict]:
    """What soft guidance changes, for the pictures of one set with and without it."""
    found, set_name = [], guided[0].set_name
    for lines in (guided, unguided):
        inside = mean_of(lines, lambda line: 1 - line.measures[BLEED] if BLEED in line.measures else None)
        found.append(inside.measure(f"looks: {lines[0].method}, share of pixels in the own region, {set_name}"))
    ratio = ratio_of(guided, unguided, lambda line: line.measures.get(BLEED))
    name = f"looks: bleed of {guided[0].method} against {unguided[0].method}, at most, {set_name}"
    return [*found, ratio.measure(name, "ratio", BLEED_TARGET, "most")]


def strengthen(
    painter: Painter,
    yardsticks: Yardsticks,
    records: PictureRecords,
    methods: Mapping[str, CnC],
    looks: Looks,
    keep: Keep,
) -> None:
    """Paint with depths, references and prompt at both strengths of the background and compare the foregrounds."""
    for name, method in methods.items():
        if (name, STRENGTHENED, looks.seed, 0) in records:
            continue
        pictures = [
            replace(method, background_strength=strength).paint(painter, asked_whole(looks))[0]
            for strength in STRENGTHS
        ]
        records.add([strength_line(yardsticks, name, looks, *pictures)])
        for strength, picture in zip(STRENGTHS, pictures, strict=True):
            keep(f"{STRENGTHENED}_{looks.seed}_{strength:g}_{name}", picture)


def asked_whole(looks: Looks) -> Asked:
    """Everything at once: text, the foreground's depth and the background's, both references and the region."""
    maps = depth_maps(looks.shapes[[1, 0]], (0.5, 1.0), 1)  # the foreground is the nearer one
    depths = {"foreground_depth": maps.foreground, "background_depth": maps.background}
    return replace(asked_looks(looks, NAMED), **depths)


def strength_line(
    yardsticks: Yardsticks, method: str, looks: Looks, weak: np.ndarray, strong: np.ndarray
) -> PictureLine:
    """Compare two pictures that were painted at the two strengths.

    Its measures are the mask IoU of the foreground's concept in both, if it is in either of them, and CIE 1976 colour
    differences: `FOREGROUND` where both show it, `BACKGROUND` outside its region.
    """
    index = yardsticks.segmenter.class_of(looks.concepts[0])
    before, after = (yardsticks.labels(picture) == index for picture in (weak, strong))
    measures = {
        "mask_iou": mask_iou(before, after),
        FOREGROUND: colour_distance(weak, strong, before & after),
        BACKGROUND: colour_distance(weak, strong, ~looks.shapes[0]),
    }
    return picture_line(method, STRENGTHENED, looks.seed, measures=measures)


def strength_measures(lines: Sequence[PictureLine]) -> list[dict]:
    """What changes, for one method."""
    head = f"background strength {STRENGTHS[0]:g} to {STRENGTHS[1]:g}: {lines[0].method}"
    return [
        mean_of(lines, lambda line, key=key: line.measures.get(key)).measure(f"{head}, {name}", unit)
        for key, name, unit in (
            ("mask_iou", "mask IoU of the foreground", ""),
            (FOREGROUND, "colour distance in the foreground", "CIE 1976"),
            (BACKGROUND, "colour distance outside its region", "CIE 1976"),
        )
    ]
