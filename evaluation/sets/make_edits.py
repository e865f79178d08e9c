"""Makes the sets of edits, once and seeded.

`python commands/launcher.py evaluation.sets.make_edits` writes `layouts/edits*.json`. Scenes are held out and of series
that nothing else draws. Whether an edit suits a scene is asked of what is true of it: what goes away, is replaced or
moves overlaps nothing; a new thing finds free room; a thing moves so far that its old place, edge included, is free.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ...core.scores.metrics import box_iou
from ...sticker_world.world.concepts import CANVAS, CONCEPT_NAMES
from ...sticker_world.world.scene import Scene, make_scene
from .balanced import least_used
from .edits import (
    EDITS,
    EDITS_TUNING,
    INSERT,
    KINDS,
    MOVE,
    REMOVE,
    REPLACE,
    Kind,
    box_around,
    layers_of,
    moved,
    placed,
    shape_of,
    widened,
)
from .make_layouts import LARGEST_TURN, write_set
from .sets import Placement, exactly

SERIES, TUNING_SERIES = 7_081, 7_082  # of the scenes
WANTED, TUNING_WANTED = 40, 6  # of each kind
MOST_OBJECTS = 3
CANDIDATES = 8  # edits to choose one of, so that all things take part equally often
SIZES = (0.3, 0.5)  # longer side of what is inserted, over the canvas
LEAST_LIKENESS = 0.75  # IoU of a replaced thing's box and that of a sprite that fits into it
STEP = 0.01  # of a move, as the node has it
TRIES = 60  # positions and sprites tried in a scene before the next is drawn

Suits = Callable[[Scene, np.random.Generator], dict | None]


def _alone(layers: Sequence[np.ndarray], thing: int) -> bool:
    """Whether a thing overlaps no other."""
    others = (layer for index, layer in enumerate(layers) if index != thing)
    return not any(((layer[..., 3] > 0) & (layers[thing][..., 3] > 0)).any() for layer in others)


def _things_alone(layers: Sequence[np.ndarray], rng: np.random.Generator) -> list[int]:
    return [int(thing) for thing in rng.permutation(len(layers)) if _alone(layers, thing)]


def _new_concept(scene: Scene, rng: np.random.Generator) -> str:
    there = {thing.concept for thing in scene.objects}
    return str(rng.choice([name for name in CONCEPT_NAMES if name not in there]))


def _sprite(concept: str, size: float, rng: np.random.Generator) -> Placement:
    angle = round(float(rng.uniform(-LARGEST_TURN, LARGEST_TURN)), 2)
    return Placement(concept, round(size, 4), angle, bool(rng.integers(2)), 0, 0)


def _at(sprite: Placement, left: int, top: int) -> Placement:
    return Placement(**vars(sprite) | {"left": left, "top": top})


def _insertion(scene: Scene, rng: np.random.Generator) -> dict | None:
    taken = np.zeros((CANVAS, CANVAS), bool)
    for layer in layers_of(scene):
        taken |= layer[..., 3] > 0
    for _ in range(TRIES):
        sprite = _sprite(_new_concept(scene, rng), float(rng.uniform(*SIZES)), rng)
        height, width = sprite.pixels().shape[:2]
        left, top = int(rng.integers(0, CANVAS - width + 1)), int(rng.integers(0, CANVAS - height + 1))
        if not taken[top : top + height, left : left + width].any():
            return {"placement": vars(_at(sprite, left, top))}
    return None


def _replacement(scene: Scene, rng: np.random.Generator) -> dict | None:
    layers = layers_of(scene)
    for thing in _things_alone(layers, rng):
        x0, y0, x1, y1 = box = box_around(shape_of(layers[thing]))
        for _ in range(TRIES):
            sprite = _sprite(_new_concept(scene, rng), max(x1 - x0, y1 - y0), rng)
            height, width = sprite.pixels().shape[:2]
            shrunk = min(1.0, (x1 - x0) * CANVAS / width, (y1 - y0) * CANVAS / height)
            sprite = Placement(**vars(sprite) | {"size": round(sprite.size * shrunk, 4)})
            height, width = sprite.pixels().shape[:2]
            left, top = (
                round((low + high) * CANVAS / 2 - side / 2) for low, high, side in ((x0, x1, width), (y0, y1, height))
            )
            if left < 0 or top < 0 or left + width > CANVAS or top + height > CANVAS:
                continue
            sprite = _at(sprite, left, top)
            if box_iou(box_around(shape_of(placed(sprite))), box) >= LEAST_LIKENESS:
                return {"thing": thing, "placement": vars(sprite)}
    return None


def _removal(scene: Scene, rng: np.random.Generator) -> dict | None:
    things = _things_alone(layers_of(scene), rng)
    return {"thing": things[0]} if things else None


def _shift(scene: Scene, rng: np.random.Generator) -> dict | None:
    layers = layers_of(scene)
    for thing in _things_alone(layers, rng):
        alpha = layers[thing][..., 3] > 0
        taken = widened(alpha)
        for index, layer in enumerate(layers):
            taken |= (layer[..., 3] > 0) & (index != thing)
        x0, y0, x1, y1 = box_around(alpha)
        for _ in range(TRIES):
            # Rounded to the node's step and towards 0, so that the thing stays on the canvas.
            shift = tuple(
                STEP * np.trunc(rng.uniform(low, high) / STEP) for low, high in ((-x0, 1 - x1), (-y0, 1 - y1))
            )
            shift = tuple(round(float(each), 2) for each in shift)
            if not (taken & (moved(layers[thing], shift)[..., 3] > 0)).any():
                return {"thing": thing, "shift": shift}
    return None


SUITS: dict[Kind, Suits] = {INSERT: _insertion, REPLACE: _replacement, REMOVE: _removal, MOVE: _shift}


def make_edits(kind: Kind, number: int, series: int) -> list[dict]:
    """Make the rows of a kind; each takes the next `CANDIDATES` scenes of the series that it suits."""
    rows, used = [], Counter()
    start = KINDS.index(kind) * 100_000  # kinds draw scenes that are apart
    for number_of_row in range(number):
        objects = 1 + number_of_row % (MOST_OBJECTS - (kind == INSERT))  # a third thing leaves no room for a fourth
        found, names = [], []
        while len(found) < CANDIDATES:
            scene = make_scene(series, start, held_out=True, counts=exactly(objects))
            edit = SUITS[kind](scene, np.random.default_rng([series, start, 1]))
            if edit is not None:
                found.append({"series": series, "index": start, "objects": objects} | edit)
                old = [scene.objects[edit["thing"]].concept] if "thing" in edit else []
                new = [edit["placement"]["concept"]] if "placement" in edit else []
                names.append(((*old, *new), scene.background))
            start += 1
        chosen = found[names.index(least_used(names, used))]
        rows.append(chosen | {"seed": series * 10_000 + 1_000 * KINDS.index(kind) + number_of_row})
    return rows


def main(argv: Sequence[str] = ()) -> int:
    """Write both sets; returns the exit status."""
    for name, series, number in ((EDITS, SERIES, WANTED), (EDITS_TUNING, TUNING_SERIES, TUNING_WANTED)):
        write_set(name, {kind: make_edits(kind, number, series) for kind in KINDS})
    return 0
