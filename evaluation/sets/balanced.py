"""Concepts and backgrounds equally often: of several draws, always the one whose names were used least so far."""

from collections import Counter
from collections.abc import Sequence

from ...sticker_world.world.scene import combination
from .sets import exactly

CANDIDATES = 40  # draws to choose one of
Combination = tuple[tuple[str, ...], str]  # concepts and background


def least_used(candidates: Sequence[Combination], used: Counter) -> Combination:
    """Choose a combination and count its names as used."""
    best = min(candidates, key=lambda pair: sum(used[name] ** 2 for name in (*pair[0], pair[1])))
    used.update((*best[0], best[1]))
    return best


def balanced_indices(seed: int, objects: int, number: int) -> list[int]:
    """Which held-out scenes of a series have every concept and background as often as any other.

    Args:
        seed: of the series, see `make_scene`.
        objects: things in each scene.
        number: how many; fewer are the first of more.

    Returns:
        Places in the series, rising.
    """
    used, chosen = Counter(), []
    for start in range(0, number * CANDIDATES, CANDIDATES):
        places = range(start, start + CANDIDATES)
        found = [combination(seed, index, held_out=True, counts=exactly(objects)) for index in places]
        chosen.append(start + found.index(least_used(found, used)))
    return chosen
