"""The fixed evaluation and tuning sets, as committed in `layouts/` (made once by `make_layouts.py`)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from ...core.layout.layout import Layout
from ...core.layout.reading import layout_from_data
from ...sticker_world.world.backgrounds import paint_background
from ...sticker_world.world.concepts import CANVAS, CONCEPT_NAMES
from ...sticker_world.world.scene import cut_sprite

FOLDER = Path(__file__).parent / "layouts"
VISIBLE_AREAS = Path(__file__).parent / "visible_areas.json"
LAYOUT_SETS = ("objects_1", "objects_2", "objects_3")
TUNING_SET = "tuning"
PRESENCE = "presence"


@lru_cache(maxsize=64)
def _cut(concept: str, size: float, angle: float, mirror: bool) -> np.ndarray:
    """A sprite that is looked at again and again while it is moved about."""
    pixels = cut_sprite(concept, size, angle, mirror)
    pixels.flags.writeable = False
    return pixels


@dataclass(frozen=True)
class Placement:
    """A sprite and where it stands: what a perfect picture holds. Pixels count from the canvas' top left corner."""

    concept: str
    size: float
    angle: float
    mirror: bool
    left: int
    top: int

    def pixels(self) -> np.ndarray:
        """The sprite, turned and scaled: premultiplied float32 (h w 4) in 0..1."""
        return _cut(self.concept, self.size, self.angle, self.mirror)

    def mask(self) -> np.ndarray:
        """Its full silhouette on the canvas: float32 (h w) in 0..1."""
        mask = np.zeros((CANVAS, CANVAS), np.float32)
        alpha = self.pixels()[..., 3]
        mask[self.top : self.top + alpha.shape[0], self.left : self.left + alpha.shape[1]] = alpha
        return mask


def paste(background: str, placements: Sequence[Placement], seed: int) -> np.ndarray:
    """Sprites on a painted background, each over those before it: uint8 (h w 3); the seed is the background's."""
    canvas = paint_background(background, np.random.default_rng(seed))
    for placement in placements:
        pixels = placement.pixels()
        part = canvas[placement.top :, placement.left :][: pixels.shape[0], : pixels.shape[1]]
        part[:] = pixels[..., :3] + part * (1 - pixels[..., 3:])
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class Item:
    """One layout of a set.

    Attributes:
        layout: what is asked for. In an item tagged "masks" every region has its sprite's silhouette as mask.
        background: a name in `sticker_world.world.concepts.BACKGROUNDS`.
        placements: per region, in painter's order, a sprite that fulfils it.
        areas: per region, the share of the canvas that this sprite visibly covers.
        seed: of the picture's noise.
        tags: its kind, "boxes" or "masks", and its category, "small", "touching", ...
    """

    layout: Layout
    background: str
    placements: tuple[Placement, ...]
    areas: tuple[float, ...]
    seed: int
    tags: tuple[str, str]

    def perfect_picture(self) -> np.ndarray:
        """The placements pasted on a painted background: uint8 (h w 3)."""
        return paste(self.background, self.placements, self.seed)

    def perfect_labels(self) -> np.ndarray:
        """Class per pixel of that picture: uint8 (h w), 0 background, else 1 + the concept's index."""
        labels = np.zeros((CANVAS, CANVAS), np.uint8)
        for placement in self.placements:
            labels[placement.mask() >= 0.5] = 1 + CONCEPT_NAMES.index(placement.concept)
        return labels


@dataclass(frozen=True)
class PresencePrompt:
    """A prompt of a combination that training never shows, and what must be in the picture."""

    prompt: str
    concepts: tuple[str, ...]
    background: str
    seed: int


def load_set(name: str) -> tuple[Item, ...]:
    """Open a layout set: one of `LAYOUT_SETS`, or `TUNING_SET`."""
    return tuple(_item(row) for row in json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def _item(row: dict) -> Item:
    layout, placements = layout_from_data(row["layout"]), tuple(Placement(**p) for p in row["placements"])
    if "masks" in row["tags"]:
        masks = [torch.from_numpy(placement.mask()) for placement in placements]
        regions = tuple(replace(region, mask=mask) for region, mask in zip(layout.regions, masks, strict=True))
        layout = replace(layout, regions=regions)
    return Item(layout, row["background"], placements, tuple(row["areas"]), row["seed"], tuple(row["tags"]))


def load_presence(objects: int) -> tuple[PresencePrompt, ...]:
    """The prompts with this number of objects."""
    rows = json.loads((FOLDER / f"{PRESENCE}.json").read_text(encoding="utf-8"))[str(objects)]
    return tuple(PresencePrompt(**{**row, "concepts": tuple(row["concepts"])}) for row in rows)


@cache
def expected_areas(objects: int) -> dict[str, float]:
    """Per concept, the area that the strict judge expects in a prompt without layout, share of the canvas.

    It is the 5th percentile of what the concept visibly covers in real held-out scenes with this number of objects.
    """
    return json.loads(VISIBLE_AREAS.read_text(encoding="utf-8"))["fifth_percentile"][str(objects)]


def exactly(objects: int) -> tuple[float, ...]:
    """The `counts` of `make_scene` for this number of objects and no other."""
    return (*(0.0,) * objects, 1.0)
