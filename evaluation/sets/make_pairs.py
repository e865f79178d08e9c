"""Makes the sets for Compose and Conquer, once and seeded.

`python commands/launcher.py evaluation.sets.make_pairs` writes `layouts/pairs*.json`, `layouts/looks*.json` and
`layouts/cnc_hidden*.json`.
Combinations of concepts and background are those that training never shows, and a perfect picture exists for
everything asked.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ...sticker_world.world.concepts import CANVAS
from .hidden_pairs import HIDDEN, HIDDEN_TUNING
from .make_layouts import GAP, LARGEST_TURN, draw_combination, write_set
from .pairs import LOOKS, LOOKS_TUNING, PAIRS, PAIRS_TUNING, silhouettes
from .sets import Placement

PAIRS_SEED, PAIRS_TUNING_SEED, LOOKS_SEED, LOOKS_TUNING_SEED = 7_021, 7_022, 7_023, 7_024
HIDDEN_SEED, HIDDEN_TUNING_SEED = 7_025, 7_026
PAIRS_WANTED, PAIRS_TUNING_WANTED = 200, 24
HIDDEN_WANTED, HIDDEN_TUNING_WANTED = 40, 8
LOOKS_WANTED, LOOKS_TUNING_WANTED = 80, 16
PAIR_SIZES = (0.36, 0.58)  # longer side over the canvas
LOOKS_SIZES = (0.34, 0.5)
OVERLAP = (0.15, 0.45)  # of each of the two shapes; training hides at most half of anything
BEHIND_SIZES, BEFORE_SIZES = (0.28, 0.36), (0.44, 0.58)  # of what is hidden, and of what hides it
HIDES = ((0.3, 0.7), (1.0, 1.0))  # of the farther shape, in turns: partly and wholly
PLANES, PLANES_APART = (0.3, 1.0), 0.1  # as Sticker World draws them; a control with one map has to see a step
TRIES = 2000  # positions tried before other sizes are drawn
HIDING_TRIES = 5  # sizes tried before other things are drawn

Sizes = tuple[float, float]
Fits = Callable[[tuple[Placement, ...]], bool]
More = Callable[[tuple[str, ...], np.random.Generator], dict]


def is_pair(placements: tuple[Placement, ...]) -> bool:
    """Whether the shapes overlap by a share within `OVERLAP` of each of them."""
    first, second = silhouettes(placements)
    shared = np.count_nonzero(first & second)
    return all(OVERLAP[0] <= shared / np.count_nonzero(shape) <= OVERLAP[1] for shape in (first, second))


def is_apart(placements: tuple[Placement, ...]) -> bool:
    """Whether `GAP` pixels lie between the sprites' boxes."""
    (x, y, right, bottom), (other_x, other_y, other_right, other_bottom) = map(_pixel_box, placements)
    return max(other_x - right, x - other_right, other_y - bottom, y - other_bottom) >= GAP


def _pixel_box(placement: Placement) -> tuple[int, int, int, int]:
    height, width = placement.pixels().shape[:2]
    return placement.left, placement.top, placement.left + width, placement.top + height


def _look(concept: str, sizes: Sizes, rng: np.random.Generator) -> tuple[str, float, float, bool]:
    size, angle = rng.uniform(*sizes), rng.uniform(-LARGEST_TURN, LARGEST_TURN)
    return concept, round(float(size), 4), round(float(angle), 2), bool(rng.integers(2))


def _place(look: tuple[str, float, float, bool], rng: np.random.Generator) -> Placement:
    height, width = Placement(*look, 0, 0).pixels().shape[:2]
    return Placement(*look, int(rng.integers(0, CANVAS - width + 1)), int(rng.integers(0, CANVAS - height + 1)))


def _arrange(
    concepts: tuple[str, ...],
    sizes: Sizes,
    fits: Fits,
    rng: np.random.Generator,
) -> tuple[Placement, ...]:
    """Draw sprites and positions until they fit."""
    while True:
        looks = [_look(concept, sizes, rng) for concept in concepts]
        for _ in range(TRIES):
            placements = tuple(_place(look, rng) for look in looks)
            if fits(placements):
                return placements


def _draw_planes(rng: np.random.Generator) -> list[float]:
    while True:
        far, near = sorted(round(float(value), 3) for value in rng.uniform(*PLANES, 2))
        if near - far >= PLANES_APART:
            return [far, near]


def _make_rows(number: int, seed: int, sizes: Sizes, fits: Fits, seeds: int, more: More) -> list[dict]:
    """Two placements in each row, and what `more` draws for their concepts; `seeds` is how many seeds a row takes."""
    rng, used = np.random.default_rng(seed), Counter()
    rows = []
    for index in range(number):
        concepts, background = draw_combination(2, used, rng)
        placements = _arrange(concepts, sizes, fits, rng)
        row = {"background": background, "placements": [vars(placement) for placement in placements]}
        rows.append(row | more(concepts, rng) | {"seed": seed * 10_000 + seeds * index})
    return rows


def make_pairs(number: int, seed: int) -> list[dict]:
    """Make the JSON rows of a set of pairs."""
    return _make_rows(number, seed, PAIR_SIZES, is_pair, 1, lambda _, rng: {"planes": _draw_planes(rng)})


def make_looks(number: int, seed: int) -> list[dict]:
    """Make the JSON rows of a set of looks."""

    def references(concepts: tuple[str, ...], rng: np.random.Generator) -> dict:
        placements = [_place(_look(concept, LOOKS_SIZES, rng), rng) for concept in concepts]
        return {"references": [vars(placement) for placement in placements]}

    # The references' backgrounds take the seeds behind the picture's.
    return _make_rows(number, seed, LOOKS_SIZES, is_apart, 10, references)


def make_hidden(number: int, seed: int) -> list[dict]:
    """Make the JSON rows of a set of things behind others, one hidden partly and one wholly in turns."""
    rng, used = np.random.default_rng(seed), Counter()
    rows = []
    for index in range(number):
        found = None
        while found is None:  # some things are too slim to hide anything
            concepts, background = draw_combination(2, used, rng)
            found = _arrange_hidden(concepts, HIDES[index % len(HIDES)], rng)
        *placements, aside = found
        rows.append(
            {
                "background": background,
                "placements": [vars(placement) for placement in placements],
                "aside": [aside.left, aside.top],
                "planes": _draw_planes(rng),
                "seed": seed * 10_000 + index,
            }
        )
    return rows


def _arrange_hidden(
    concepts: tuple[str, ...], share: tuple[float, float], rng: np.random.Generator
) -> tuple[Placement, Placement, Placement] | None:
    """Draw the farther sprite, the nearer one that hides such a share of it, and that one apart from it, if it can."""
    sizes = (BEHIND_SIZES, BEFORE_SIZES)
    for _ in range(HIDING_TRIES):
        far, near = (_look(concept, each, rng) for concept, each in zip(concepts, sizes, strict=True))
        for _ in range(TRIES):
            behind, front, aside = _place(far, rng), _place(near, rng), _place(near, rng)
            if is_apart((behind, aside)) and share[0] <= hidden_share(behind, front) <= share[1]:
                return behind, front, aside
    return None


def hidden_share(behind: Placement, front: Placement) -> float:
    """How much of a shape lies behind another one."""
    far, near = silhouettes((behind, front))
    return np.count_nonzero(far & near) / np.count_nonzero(far)


def main(argv: Sequence[str] = ()) -> int:
    """Write every set; returns the exit status."""
    write_set(PAIRS, make_pairs(PAIRS_WANTED, PAIRS_SEED))
    write_set(PAIRS_TUNING, make_pairs(PAIRS_TUNING_WANTED, PAIRS_TUNING_SEED))
    write_set(LOOKS, make_looks(LOOKS_WANTED, LOOKS_SEED))
    write_set(LOOKS_TUNING, make_looks(LOOKS_TUNING_WANTED, LOOKS_TUNING_SEED))
    write_set(HIDDEN, make_hidden(HIDDEN_WANTED, HIDDEN_SEED))
    write_set(HIDDEN_TUNING, make_hidden(HIDDEN_TUNING_WANTED, HIDDEN_TUNING_SEED))
    return 0
