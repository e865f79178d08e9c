"""Measures how large things look in real scenes.

`python commands/launcher.py evaluation.sets.make_visible_areas` writes `visible_areas.json`.
The strict judge of prompts without layout asks for half of what 95 % of the real things of a class show, in held-out
scenes with the same number of objects.
"""

import json
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from ...sticker_world.world.concepts import CONCEPT_NAMES
from ...sticker_world.world.scene import make_scene
from .sets import VISIBLE_AREAS, exactly

SEED = 7_004
SCENES = {1: 9000, 2: 6000, 3: 4500}  # about 375 or more things of every class
PERCENTILE = 5


def measure(objects: int, scenes: int) -> dict[str, float]:
    """Per concept, the percentile of its visible area in held-out scenes, share of the canvas."""
    areas: dict[str, list[float]] = {name: [] for name in CONCEPT_NAMES}
    for index in tqdm(range(scenes), f"{objects} objects", mininterval=5):
        for thing in make_scene(SEED, index, held_out=True, counts=exactly(objects)).objects:
            areas[thing.concept].append(float((thing.visible >= 0.5).mean()))
    return {name: round(float(np.percentile(values, PERCENTILE)), 5) for name, values in areas.items()}


def main(argv: Sequence[str] = ()) -> int:
    """Write the table; returns the exit status."""
    table = {str(objects): measure(objects, scenes) for objects, scenes in SCENES.items()}
    VISIBLE_AREAS.write_text(json.dumps({"fifth_percentile": table}, indent=1) + "\n", encoding="utf-8")
    return 0
