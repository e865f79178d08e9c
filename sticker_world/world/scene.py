"""Scenes with exact ground truth: picture, caption, masks, boxes, painter's order, depth and RGBA layers.

Objects are listed in painter's order, farthest first. Alpha is straight (not premultiplied) wherever it is stored.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from .backgrounds import paint_background
from .captions import write_caption
from .concepts import BACKGROUND_NAMES, CANVAS, CONCEPT_NAMES, is_held_out

SPRITES = Path(__file__).parent / "sprites"
SMALLEST, LARGEST = 0.2, 0.6  # an object's longer side over the canvas
MOVES = 20  # how often sprites that do not hide each other enough are moved before others are cut
MOST_HIDDEN = 0.5  # no object loses more of itself than this to nearer ones
OBJECT_COUNTS = (0.06, 0.30, 0.34, 0.30)  # how often a scene has 0, 1, 2, 3 objects


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        concept: its name.
        box: x0, y0, x1, y1 in 0..1, tight around the full mask.
        layer: uint8 (h w 4), straight alpha, the object alone at its place.
        visible: float32 (h w) in 0..1, the part of the alpha that nearer objects leave.
        disparity: its plane, 0 (infinitely far) .. 1 (nearest).
    """

    concept: str
    box: tuple[float, float, float, float]
    layer: np.ndarray
    visible: np.ndarray
    disparity: float

    @property
    def mask(self) -> np.ndarray:
        """The full mask, hidden parts included: float32 (h w) in 0..1."""
        return self.layer[..., 3].astype(np.float32) / 255


@dataclass(frozen=True)
class Scene:
    """A picture and everything that is true of it.

    Attributes:
        image: uint8 (h w 3).
        caption: one of many wordings.
        background: its name; `backdrop` is its picture, uint8 (h w 3).
        objects: painter's order, farthest first.
    """

    image: np.ndarray
    caption: str
    background: str
    backdrop: np.ndarray
    objects: tuple[SceneObject, ...]

    def labels(self) -> np.ndarray:
        """Class per pixel, uint8 (h w): 0 is background, else 1 + the concept's index."""
        labels = np.zeros((CANVAS, CANVAS), np.uint8)
        for thing in self.objects:
            labels[thing.visible >= 0.5] = 1 + CONCEPT_NAMES.index(thing.concept)
        return labels

    def disparity(self) -> np.ndarray:
        """Disparity map, float32 (h w) in 0..1: a ground plane from 0 (top) to 0.2 (bottom), objects as planes."""
        plane = np.linspace(0.0, 0.2, CANVAS, dtype=np.float32)
        disparity = np.repeat(plane[:, None], CANVAS, axis=1)
        for thing in self.objects:
            disparity = np.where(thing.mask >= 0.5, thing.disparity, disparity)
        return disparity.astype(np.float32)


@cache
def _sprite(concept: str) -> Image.Image:
    """The sprite, premultiplied so that resampling does not bleed the colour of transparent pixels."""
    return Image.open(SPRITES / f"{concept}.webp", formats=["WEBP"]).convert("RGBA").convert("RGBa")


def cut_sprite(concept: str, size: float, angle: float, mirror: bool) -> np.ndarray:
    """Turn and scale a concept's sprite, as `cut` does."""
    return cut(_sprite(concept), size, angle, mirror)


def cut(sprite: Image.Image, size: float, angle: float, mirror: bool) -> np.ndarray:
    """Turn and scale a sticker.

    Args:
        sprite: premultiplied (mode RGBa).
        size: its longer side over the canvas.
        angle: degrees, counter-clockwise.
        mirror: left and right exchanged before the turn.

    Returns:
        Premultiplied float32 (h w 4) in 0..1, cropped to what is seen.
    """
    if mirror:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sprite = sprite.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    sprite = sprite.crop(sprite.getchannel("a").point(lambda a: 255 * (a > 8)).getbbox())
    scale = size * CANVAS / max(sprite.size)
    width, height = (max(1, round(side * scale)) for side in sprite.size)
    pixels = np.asarray(sprite.resize((width, height), Image.Resampling.LANCZOS)).astype(np.float32) / 255
    pixels[..., :3] = np.minimum(pixels[..., :3], pixels[..., 3:])  # the filter's overshoot has no straight colour
    return pixels


def _choose(rng: np.random.Generator, held_out: bool | None, counts: tuple[float, ...]) -> tuple[tuple[str, ...], str]:
    """Draw what stands where; `held_out` None takes any combination, else only that side of the split."""
    while True:
        number = rng.choice(len(counts), p=counts)
        concepts = tuple(CONCEPT_NAMES[i] for i in rng.choice(len(CONCEPT_NAMES), number, replace=False))
        background = BACKGROUND_NAMES[rng.integers(len(BACKGROUND_NAMES))]
        if held_out is None or not concepts or is_held_out(concepts, background) == held_out:
            return concepts, background


def combination(
    seed: int, index: int, *, held_out: bool | None = False, counts: tuple[float, ...] = OBJECT_COUNTS
) -> tuple[tuple[str, ...], str]:
    """The concepts and the background of a scene, which `make_scene` draws of the same arguments."""
    return _choose(np.random.default_rng([seed, index]), held_out, counts)


def make_scene(
    seed: int,
    index: int,
    *,
    held_out: bool | None = False,
    counts: tuple[float, ...] = OBJECT_COUNTS,
    least_hidden: float = 0.0,
) -> Scene:
    """Make scene `index` of the endless series `seed`; the same two numbers always give the same scene.

    Args:
        seed: the series; training and evaluation use different ones.
        index: place in the series.
        held_out: False draws combinations that training may see, True those it never sees, None any.
        counts: probabilities of 0, 1, 2, ... objects.
        least_hidden: share of itself that at least one object loses to nearer ones; above 0 it needs two objects.
    """
    rng = np.random.default_rng([seed, index])
    concepts, background = _choose(rng, held_out, counts)
    canvas = paint_background(background, rng)
    backdrop = canvas.copy()
    placed = _arrange(concepts, rng, least_hidden)
    disparities = np.sort(rng.uniform(0.3, 1.0, len(placed)))

    visible = [np.zeros((CANVAS, CANVAS), np.float32) for _ in placed]
    objects = []
    for i, (left, top, pixels) in enumerate(placed):
        height, width = pixels.shape[:2]
        window = np.s_[top : top + height, left : left + width]
        alpha = pixels[..., 3:]
        canvas[window] = pixels[..., :3] + canvas[window] * (1 - alpha)
        for farther in visible[:i]:
            farther[window] *= 1 - alpha[..., 0]
        visible[i][window] = alpha[..., 0]
        layer = np.zeros((CANVAS, CANVAS, 4), np.uint8)
        straight = np.concatenate([pixels[..., :3] / np.maximum(alpha, 1e-3), alpha], axis=-1)
        layer[window] = np.round(np.clip(straight, 0, 1) * 255)
        box = (left / CANVAS, top / CANVAS, (left + width) / CANVAS, (top + height) / CANVAS)
        objects.append(SceneObject(concepts[i], box, layer, visible[i], float(disparities[i])))

    overlap = _find_overlap(objects)
    caption = write_caption(list(concepts), background, overlap, rng)
    image = np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    return Scene(image, caption, background, np.round(backdrop * 255).astype(np.uint8), tuple(objects))


def _arrange(
    concepts: tuple[str, ...], rng: np.random.Generator, least_hidden: float
) -> list[tuple[int, int, np.ndarray]]:
    """Place every sprite so that each keeps enough of itself visible and one of them loses at least `least_hidden`."""
    if least_hidden > 0 and len(concepts) < 2:
        raise ValueError(f"{len(concepts)} objects cannot hide {least_hidden:.0%} of one another; draw two or more.")

    def sprites() -> Iterator[np.ndarray]:
        for concept in concepts:
            size = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
            yield cut_sprite(concept, size, rng.uniform(-15, 15), rng.uniform() < 0.5)

    return arranged(sprites, rng, least_hidden)


def arranged(
    draw: Callable[[], Iterable[np.ndarray]], rng: np.random.Generator, least_hidden: float = 0.0
) -> list[tuple[int, int, np.ndarray]]:
    """Place things at random so that none loses more than `MOST_HIDDEN` of itself to nearer ones.

    Args:
        draw: gives the things, farthest first, premultiplied (h w 4); asked again where no place was found for them.
        rng: draws the places.
        least_hidden: share of itself that at least one loses.

    Returns:
        Left, top and pixels of each, wholly on the canvas.
    """
    while True:
        placed = [(*_place(pixels, rng), pixels) for pixels in draw()]
        for _ in range(MOVES if least_hidden > 0 else 0):
            if _is_arranged(placed, least_hidden):
                break
            placed = [(*_place(pixels, rng), pixels) for _, _, pixels in placed]
        if _is_arranged(placed, least_hidden):
            return placed


def _place(pixels: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """Left and top of a sprite that lies wholly on the canvas."""
    left = int(rng.integers(0, CANVAS - pixels.shape[1] + 1))
    return left, int(rng.integers(0, CANVAS - pixels.shape[0] + 1))


def _is_arranged(placed: list[tuple[int, int, np.ndarray]], least_hidden: float) -> bool:
    hidden = [_hidden(placed, i) for i in range(len(placed))]
    return all(share <= MOST_HIDDEN for share in hidden) and max(hidden, default=0.0) >= least_hidden


def _hidden(placed: list[tuple[int, int, np.ndarray]], i: int) -> float:
    """Share of object `i` that lies under later ones."""
    left, top, pixels = placed[i]
    full = pixels[..., 3]
    seen = full.copy()
    for other_left, other_top, other in placed[i + 1 :]:
        x0, y0 = max(left, other_left), max(top, other_top)
        x1 = min(left + full.shape[1], other_left + other.shape[1])
        y1 = min(top + full.shape[0], other_top + other.shape[0])
        if x0 < x1 and y0 < y1:
            above = other[y0 - other_top : y1 - other_top, x0 - other_left : x1 - other_left, 3]
            seen[y0 - top : y1 - top, x0 - left : x1 - left] *= 1 - above
    return 1 - float(seen.sum() / full.sum())


def _find_overlap(objects: list[SceneObject]) -> tuple[int, int] | None:
    """Indices (nearer, farther) of the pair with the largest overlap, if it is large enough to speak of."""
    best, pair = 0.08, None
    for near in range(len(objects)):
        for far in range(near):
            covered = float((objects[far].mask * objects[near].mask).sum() / objects[far].mask.sum())
            if covered > best:
                best, pair = covered, (near, far)
    return pair
