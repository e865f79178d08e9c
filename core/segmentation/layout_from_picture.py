"""Reads a layout out of a picture: what a segmenter finds, as named regions with masks, largest farthest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..drawing.pictures import of_picture
from ..layout.layout import Layout
from ..layout.masks import largest_components, outer_box, to_numpy
from ..layout.prompts import with_article
from ..layout.region import MOST_REGIONS, LayoutError, Region
from .class_names import is_background, plain_name
from .files import SegmenterError
from .segmenter import Segmenter, back_to_size, readable


@dataclass(frozen=True)
class Reading:
    """How a picture is read.

    Attributes:
        phrases: what to look for; none: every class of a segmenter that has classes.
        least_area: share of the picture that a region covers at least.
        least_confidence: mean probability that a region has at least.
        single_pieces: one region for every connected piece, else one for every name.
        article: put "a" or "an" before class names that no phrase asked for.
        prompt: of the layout.
        background: of the layout.
    """

    phrases: tuple[str, ...] = ()
    least_area: float = 0.01
    least_confidence: float = 0.5
    single_pieces: bool = True
    article: bool = True
    prompt: str = ""
    background: str = ""


@dataclass(frozen=True)
class Found:
    """A region's phrase, its mask (h w) bool on the CPU, its share of the picture and its mean probability."""

    phrase: str
    mask: Tensor
    area: float
    confidence: float


def read_layout(image: Tensor, segmenter: Segmenter, reading: Reading) -> Layout:
    """Read a layout out of a picture.

    Args:
        image: (h w c) in 0..1.
        segmenter: one of several kinds, or several joined.
        reading: how.

    Returns:
        On a canvas of the picture's size; larger regions lie farther back.

    Raises:
        SegmenterError: a phrase that the segmenter does not know, or none where it needs them.
        LayoutError: nothing is found, or the picture has NaN.
    """
    height, width = image.shape[:2]
    found = find_regions(image, segmenter, reading)
    if not found:
        looked = f'"{", ".join(reading.phrases)}"' if reading.phrases else "what the segmenter knows"
        raise LayoutError(
            f"Nothing of {looked} covers {reading.least_area:.1%} of the picture with a probability of "
            f"{reading.least_confidence:.2f}. Lower least_area or least_confidence, or look for other things."
        )
    regions = tuple(
        Region(
            phrase=each.phrase,
            box=outer_box(each.mask),
            mask=back_to_size(each.mask, height, width).float(),
            order=order,
        )
        for order, each in enumerate(found)
    )
    return Layout(width=width, height=height, prompt=reading.prompt, background=reading.background, regions=regions)


def read_layouts(
    images: Iterable[Tensor], pictures: int, segmenter: Segmenter, reading: Reading
) -> tuple[list[Layout | None], list[str]]:
    """Read layouts out of pictures, one after the other; one that shows nothing takes none of the others with it.

    Args:
        images: (h w c) each.
        pictures: how many there are.
        segmenter: see `read_layout`.
        reading: how.

    Returns:
        A layout for each picture, None where nothing is found or nothing can be read, and a sentence for each of those.

    Raises:
        SegmenterError: see `read_layout`.
        LayoutError: no picture has a layout; it is about the first one.
    """
    layouts: list[Layout | None] = []
    lost: list[LayoutError] = []
    for number, image in enumerate(images, 1):
        try:
            with of_picture(number, pictures):
                layouts.append(read_layout(image, segmenter, reading))
        except LayoutError as error:
            layouts.append(None)
            lost.append(error)
    if len(lost) == len(layouts) and lost:
        raise lost[0]
    return layouts, [str(error) for error in lost]


def find_regions(image: Tensor, segmenter: Segmenter, reading: Reading) -> list[Found]:
    """The regions of a picture (h w c) that are large and certain enough, largest first, as it is read (`readable`).

    No more than a layout may have: the smallest are left out.
    """
    judge = segmenter.for_phrases(reading.phrases)
    names = _names(judge, reading)
    with torch.no_grad():
        probabilities = judge.probabilities(readable(image)[None])[0].cpu()
    labels = probabilities.argmax(0)
    found: list[Found] = []
    for index, phrase in names.items():
        whole = labels == index
        pieces = largest_components(whole, MOST_REGIONS) if reading.single_pieces else [to_numpy(whole)]
        for mask in map(torch.from_numpy, pieces):
            area = float(mask.float().mean())
            if area > 0 and area >= reading.least_area:
                confidence = float(probabilities[index][mask].mean())
                if confidence >= reading.least_confidence:
                    found.append(Found(phrase, mask, area, confidence))
        found = sorted(found, key=lambda each: -each.area)[:MOST_REGIONS]
    return found


def _names(judge: Segmenter, reading: Reading) -> dict[int, str]:
    """Class index -> the phrase that its regions get."""
    if reading.phrases:
        asked: dict[int, str] = {}
        for phrase in reading.phrases:
            asked.setdefault(judge.class_of(phrase), phrase)
        return asked
    if all(map(is_background, judge.classes)):
        raise SegmenterError(
            "this segmenter has no classes of its own; write what to look for into classes, one thing per line."
        )
    return {
        index: with_article(name) if reading.article else name
        for index, name in enumerate(map(first_synonym, judge.classes))
        if not is_background(name)
    }


def first_synonym(name: str) -> str:
    """A class's first name: "door; double door" -> "door", "potted_plant" -> "potted plant", `plain_name` of it."""
    return plain_name(name.replace(";", ",").split(",")[0]).replace("_", " ").strip()


def read_phrases(text: str) -> tuple[str, ...]:
    """Phrases out of lines, or out of one line with commas."""
    parts: Sequence[str] = text.splitlines() if "\n" in text.strip() else text.split(",")
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))
