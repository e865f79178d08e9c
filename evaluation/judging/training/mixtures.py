"""Things that are none: two concepts in one, a concept in pieces, melted ones.

All take and give premultiplied float32 (h w 4) in 0..1.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates, zoom

BOX = Image.Resampling.BOX
WAVES = 4  # cells of a pull along the longer side of a thing
Mixture = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def halves(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One thing on one side of a line near the middle, another on the other side."""
    other = stretched(other, one.shape[:2])
    y, x = np.mgrid[-1 : 1 : one.shape[0] * 1j, -1 : 1 : one.shape[1] * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    side = np.cos(angle) * x + np.sin(angle) * y > rng.uniform(-0.15, 0.15)
    return np.where(side[..., None], one, other).astype(np.float32)


def double_exposure(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Both at once, each seen through the other."""
    share = np.float32(rng.uniform(0.4, 0.6))
    return share * one + (1 - share) * stretched(other, one.shape[:2])


def clothed(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One thing's outline, filled with what the other looks like in its middle."""
    height, width = other.shape[:2]
    middle = other[height // 5 : -height // 5, width // 5 : -width // 5]
    colours = middle[..., :3] + (1 - middle[..., 3:]) * (middle[..., :3].sum((0, 1)) / middle[..., 3].sum())
    return np.concatenate([stretched(colours, one.shape[:2]) * one[..., 3:], one[..., 3:]], -1).astype(np.float32)


def jumbled(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One thing's quarters, none where it belongs."""
    height, width = (side // 2 for side in one.shape[:2])
    quarters = [one[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    order = [(1, 2, 3, 0), (2, 3, 0, 1), (3, 2, 1, 0), (1, 0, 3, 2), (2, 0, 3, 1)][rng.integers(5)]
    a, b, c, d = (quarters[index] for index in order)
    return np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)], 0)


def melted(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One thing as if it had run."""
    return warped(one, rng.uniform(0.08, 0.16), rng)


def smeared(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One thing's colours without its parts, in an outline that has run a little."""
    few = rng.integers(3, 6)
    cells = (
        np.asarray(Image.fromarray(np.round(255 * one).astype(np.uint8), "RGBa").resize((few, few), BOX), np.float32)
        / 255
    )
    colours = stretched(cells[..., :3] / np.maximum(cells[..., 3:], 1e-2), one.shape[:2])
    filled = np.concatenate([colours.clip(0, 1) * one[..., 3:], one[..., 3:]], -1)
    return warped(filled, rng.uniform(0.04, 0.08), rng)


MIXTURES: tuple[Mixture, ...] = (halves, double_exposure, clothed, jumbled, melted, smeared)


def warped(thing: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Pull a thing about.

    Args:
        thing: what is pulled; its frame grows and shrinks with it.
        amount: root mean square of the pull along each axis, share of the thing's longer side.
        rng: draws a smooth field, with `WAVES` turning points along the thing.
    """
    longer = max(thing.shape[:2])
    margin = round(2 * amount * longer)
    thing = np.pad(thing, ((margin, margin), (margin, margin), (0, 0)))
    cells = [1 + round(side * WAVES / longer) for side in thing.shape[:2]]
    pull = [stretched(rng.standard_normal((*cells, 1)), thing.shape[:2], order=3)[..., 0] for _ in range(2)]
    grid = np.indices(thing.shape[:2]) + [amount * longer * each / each.std() for each in pull]
    return cropped(np.stack([map_coordinates(thing[..., c], grid, order=1) for c in range(4)], -1))


def cropped(thing: np.ndarray) -> np.ndarray:
    """A thing without the empty rows and columns around it."""
    seen = thing[..., 3] > 0.03
    (top, *_, bottom), (left, *_, right) = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    return thing[top : bottom + 1, left : right + 1]


def stretched(thing: np.ndarray, size: tuple[int, int], order: int = 1) -> np.ndarray:
    """A thing in another size (height width), by splines of an order."""
    factors = size[0] / thing.shape[0], size[1] / thing.shape[1], 1
    return zoom(thing, factors, order=order, grid_mode=True, mode="nearest")
