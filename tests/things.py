"""What the shipped segmenter finds in pictures that a server has painted."""

import io
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.sticker_world.world.concepts import CONCEPT_NAMES

LEAST = 0.01  # of a picture, for a thing to be in it: a tenth of its sides


def opened(png: bytes) -> Image.Image:
    """A PNG file's content."""
    return Image.open(io.BytesIO(png), formats=["PNG"])


def labels_of(segmenter: Segmenter, picture: Image.Image) -> torch.Tensor:
    """Class of each pixel: (h w)."""
    pixels = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).float() / 255
    return segmenter.labels(pixels[None])[0]


def found_in(segmenter: Segmenter, pictures: Iterable[Image.Image]) -> set[str]:
    """The things that are in any of these pictures."""
    found = set()
    for picture in pictures:
        labels = labels_of(segmenter, picture)
        found |= {name for name in CONCEPT_NAMES if (labels == segmenter.class_of(name)).float().mean() > LEAST}
    return found
