"""Pictures that judges learn from and are asked about: the world's things among things that are none of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....sticker_world.world.backgrounds import paint_background
from ....sticker_world.world.concepts import BACKGROUND_NAMES, CANVAS, CONCEPT_NAMES
from ....sticker_world.world.scene import arranged, cut, cut_sprite
from .distractors import TRAINING, distractor, distractors
from .mixtures import MIXTURES, warped

OTHER = "something else"
CLASSES = ("background", *CONCEPT_NAMES, OTHER)
CONCEPT, DISTRACTOR, MIXTURE = "concept", "distractor", "mixture"
KINDS = {CONCEPT: 0.5, DISTRACTOR: 0.28, MIXTURE: 0.22}  # shares of the things of a training picture
COUNTS = (0.05, 0.2, 0.3, 0.3, 0.15)  # how often there are 0, 1, 2, ... things
SMALLEST, LARGEST = 0.16, 0.65  # a thing's longer side over the canvas, before it melts
SLIGHTLY = 0.025  # a thing that is pulled about no more than this is itself


@dataclass(frozen=True)
class Drawn:
    """A picture and what is in it.

    Attributes:
        image: uint8 (h w 3).
        labels: uint8 (h w), index in `CLASSES`, visible parts only.
        names: of the things, painter's order: a concept, a distractor's name or a mixture's.
    """

    image: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def draw(rng: np.random.Generator, kinds: Sequence[str] | None = None, part: str = TRAINING) -> Drawn:
    """Draw a picture.

    Args:
        rng: decides everything.
        kinds: of its things, farthest first; None draws number and kinds as in training.
        part: which distractors there are.
    """
    if kinds is None:
        kinds = rng.choice(list(KINDS), rng.choice(len(COUNTS), p=COUNTS), p=list(KINDS.values()))
    canvas = paint_background(BACKGROUND_NAMES[rng.integers(len(BACKGROUND_NAMES))], rng)
    labels = np.zeros((CANVAS, CANVAS), np.uint8)
    made: list[tuple[str, int, np.ndarray]] = []

    def things() -> list[np.ndarray]:
        made[:] = [_thing(kind, part, rng) for kind in kinds]
        return [pixels for _, _, pixels in made]

    placed = arranged(things, rng)
    for (_, label, _), (left, top, pixels) in zip(made, placed, strict=True):
        window = np.s_[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        alpha = pixels[..., 3:]
        canvas[window] = pixels[..., :3] + canvas[window] * (1 - alpha)
        labels[window][alpha[..., 0] >= 0.5] = label
    return Drawn(np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8), labels, tuple(name for name, _, _ in made))


def _thing(kind: str, part: str, rng: np.random.Generator) -> tuple[str, int, np.ndarray]:
    """Name, class and premultiplied pixels (h w 4) of a thing of a kind."""
    how = _pose(rng)
    if kind == DISTRACTOR:
        names = distractors(part)
        name = names[rng.integers(len(names))]
        return name, CLASSES.index(OTHER), cut(distractor(part, name), *how)
    one, other = (CONCEPT_NAMES[index] for index in rng.choice(len(CONCEPT_NAMES), 2, replace=False))
    pixels = cut_sprite(one, *how)
    if kind == MIXTURE:
        mixture = MIXTURES[rng.integers(len(MIXTURES))]
        pixels = mixture(pixels, cut_sprite(other, *_pose(rng)), rng)[:CANVAS, :CANVAS]
        return mixture.__name__, CLASSES.index(OTHER), pixels
    if rng.uniform() < 0.5:
        pixels = warped(pixels, rng.uniform(0, SLIGHTLY), rng)
    return one, CLASSES.index(one), pixels


def _pose(rng: np.random.Generator) -> tuple[float, float, bool]:
    """Size, angle and whether mirrored, as `cut` takes them."""
    size = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
    return size, rng.uniform(-15, 15), bool(rng.uniform() < 0.5)
