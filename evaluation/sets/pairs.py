"""The fixed sets for Compose and Conquer: overlapping pairs, references for looks, and real scenes to paint again.

Pairs and looks are committed in `layouts/` (made once by `make_pairs.py`); scenes follow from their seed. Depth maps
are as in training: disparity, near is bright, each brought to 0..1 by itself, the foreground's own alone on black.
"""

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ...core.compose_and_conquer.depth_pair import GROUND, draw_planes, stretch
from ...core.layout.layout import Layout
from ...core.layout.prompts import with_article
from ...core.layout.region import Region
from ...sticker_world.world.captions import plain_prompt
from ...sticker_world.world.concepts import CANVAS
from ...sticker_world.world.scene import Scene, make_scene
from .sets import FOLDER, Placement, exactly, paste

PAIRS, PAIRS_TUNING = "pairs", "pairs_tuning"
LOOKS, LOOKS_TUNING = "looks", "looks_tuning"
SCENES_SEED, SCENES_TUNING_SEED = 7_013, 7_014
MOST_OBJECTS = 3


def silhouettes(placements: tuple[Placement, ...]) -> np.ndarray:
    """Full shapes of placed sprites, hidden parts included: bool (n h w)."""
    return np.stack([placement.mask() >= 0.5 for placement in placements])


@dataclass(frozen=True)
class DepthMaps:
    """What Compose and Conquer is given, and what a control with a single depth map is given: float32 (h w) in 0..1."""

    foreground: np.ndarray
    background: np.ndarray
    whole: np.ndarray


def depth_maps(shapes: np.ndarray, disparities: tuple[float, ...], foreground: int) -> DepthMaps:
    """Depth maps of flat things of which the nearest `foreground` are the foreground.

    Args:
        shapes: bool (n h w), farthest first, hidden parts included.
        disparities: n, of their planes.
        foreground: how many, 1..n.
    """
    masks, planes = torch.from_numpy(shapes).float()[None], torch.tensor(disparities)[None]
    nearest = torch.arange(len(shapes)) >= len(shapes) - foreground
    ground, nothing = torch.full((1,), GROUND), torch.zeros(1)
    drawn = ((nearest, nothing), (~nearest, ground), (nearest | ~nearest, ground))
    maps = [stretch(draw_planes(masks, planes * shown, behind))[0, 0].numpy() for shown, behind in drawn]
    return DepthMaps(*maps)


@dataclass(frozen=True)
class TwoSprites:
    """What the rows of both committed sets have.

    Attributes:
        background: a name in `sticker_world.world.concepts.BACKGROUNDS`.
        placements: of the two sprites.
        seed: of the picture's noise.
    """

    background: str
    placements: tuple[Placement, Placement]
    seed: int

    @property
    def concepts(self) -> tuple[str, str]:
        """What stands there, as the placements."""
        return self.placements[0].concept, self.placements[1].concept

    @cached_property
    def shapes(self) -> np.ndarray:
        """Full shapes as the placements: bool (2 h w)."""
        return silhouettes(self.placements)


@dataclass(frozen=True)
class Pair(TwoSprites):
    """Two sprites whose shapes overlap; either of them can be the nearer one, and their order says nothing of depth.

    Attributes:
        planes: disparities of the farther and of the nearer one, whichever that is.
    """

    planes: tuple[float, float]

    @property
    def prompt(self) -> str:
        """The same for both orders."""
        return plain_prompt(self.concepts, self.background)

    def maps(self, front: int) -> DepthMaps:
        """Depth maps with placement `front`, 0 or 1, before the other."""
        order = [1 - front, front]
        return depth_maps(self.shapes[order], self.planes, 1)

    def layout(self, front: int) -> Layout:
        """The two shapes by name, placement `front` the nearer one."""
        regions = (
            Region(with_article(concept), mask=torch.from_numpy(shape).float(), order=int(index == front))
            for index, (concept, shape) in enumerate(zip(self.concepts, self.shapes, strict=True))
        )
        return Layout(CANVAS, CANVAS, self.prompt, "", tuple(regions))

    def perfect_picture(self, front: int) -> np.ndarray:
        """Both sprites pasted, `front` over the other: uint8 (h w 3)."""
        return paste(self.background, (self.placements[1 - front], self.placements[front]), self.seed)


@dataclass(frozen=True)
class Looks(TwoSprites):
    """A foreground in its region and a background outside it, apart from each other, each with a reference picture.

    Attributes:
        references: the same concepts elsewhere, one for each reference picture.
    """

    references: tuple[Placement, Placement]

    def reference_pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """Each concept alone before the background: uint8 (h w 3) twice."""
        first, second = (
            paste(self.background, (reference,), self.seed + number) for number, reference in enumerate(self.references)
        )
        return first, second

    def perfect_picture(self) -> np.ndarray:
        """Both sprites in their places: uint8 (h w 3)."""
        return paste(self.background, self.placements, self.seed)


def load_pairs(name: str = PAIRS) -> tuple[Pair, ...]:
    """Open a set of pairs: `PAIRS` or `PAIRS_TUNING`."""
    return tuple(
        Pair(row["background"], two_placements(row["placements"]), row["seed"], tuple(row["planes"]))
        for row in rows_of(name)
    )


def load_looks(name: str = LOOKS) -> tuple[Looks, ...]:
    """Open a set of looks: `LOOKS` or `LOOKS_TUNING`."""
    return tuple(
        Looks(row["background"], two_placements(row["placements"]), row["seed"], two_placements(row["references"]))
        for row in rows_of(name)
    )


def rows_of(name: str) -> list[dict]:
    """The rows of a committed set."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def two_placements(rows: list[dict]) -> tuple[Placement, Placement]:
    """Read the placements of a row."""
    first, second = (Placement(**row) for row in rows)
    return first, second


@dataclass(frozen=True)
class RealScene:
    """A held-out scene that is painted again from its depths and its caption.

    Attributes:
        scene: the real one.
        foreground: how many of its nearest things are the foreground.
        seed: of the picture's noise.
    """

    scene: Scene
    foreground: int
    seed: int

    @cached_property
    def shapes(self) -> np.ndarray:
        """Full shapes, farthest first: bool (n h w)."""
        return np.stack([thing.mask >= 0.5 for thing in self.scene.objects])

    def maps(self) -> DepthMaps:
        """Its depth maps."""
        return depth_maps(self.shapes, tuple(thing.disparity for thing in self.scene.objects), self.foreground)


def real_scenes(number: int, seed: int = SCENES_SEED) -> list[RealScene]:
    """Held-out scenes of 1, 2, 3, 1, ... things, with every possible split into foreground and background in turn."""
    found = []
    for index in range(number):
        objects = 1 + index % MOST_OBJECTS
        scene = make_scene(seed, index, held_out=True, counts=exactly(objects))
        found.append(RealScene(scene, 1 + (index // MOST_OBJECTS) % objects, seed * 10_000 + index))
    return found
