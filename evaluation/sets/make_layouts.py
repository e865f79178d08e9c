"""Makes the evaluation and tuning sets, once and seeded.

`python commands/launcher.py evaluation.sets.make_layouts` writes `layouts/*.json`. Every box is tight around a real
sprite, so that a perfect picture exists for every layout; `Item.perfect_picture` is one. Combinations of concepts and
background are those that training never shows.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ...core.layout.layout import Layout
from ...core.layout.masks import Box, largest_components, outer_box
from ...core.layout.prompts import with_article
from ...core.layout.region import Region
from ...core.scores.metrics import box_iou
from ...sticker_world.world.captions import plain_prompt
from ...sticker_world.world.concepts import BACKGROUND_NAMES, CANVAS, CONCEPT_NAMES, EMPTY_CAPTIONS, is_held_out
from ...sticker_world.world.scene import cut_sprite
from .balanced import CANDIDATES, least_used
from .sets import FOLDER, LAYOUT_SETS, PRESENCE, TUNING_SET, Placement

# Sets are drawn in parts and only ever grow at their end, so that a result of the first layouts keeps its meaning.
EVALUATION_SEEDS, TUNING_SEED, PRESENCE_SEED = {7_001: 4, 7_006: 6}, 7_002, 7_003  # seed -> layouts per category
PER_CATEGORY = sum(EVALUATION_SEEDS.values())  # layouts per set, kind and category
PER_CATEGORY_TUNING = 2
TUNING_COUNTS = (2, 1, 3)  # objects; in the order in which the tuning set grew
PRESENCE_PROMPTS = 1000
LARGEST_TURN = 15.0  # degrees, as in training
CATEGORIES = {
    1: ("small", "medium", "large", "corner", "edge"),
    2: ("small", "medium", "large", "touching", "overlapping"),
    3: ("small", "medium", "large", "touching", "overlapping"),
}
SIZES = {  # longer side over the canvas, by category and, where room is short, by number of objects
    "small": {1: (0.2, 0.26), 2: (0.2, 0.26), 3: (0.2, 0.26)},
    "medium": {1: (0.3, 0.42), 2: (0.3, 0.42), 3: (0.28, 0.36)},
    "large": {1: (0.48, 0.6), 2: (0.44, 0.52), 3: (0.37, 0.45)},
    "corner": {1: (0.25, 0.5)},
    "edge": {1: (0.25, 0.5)},
    "touching": {2: (0.26, 0.46), 3: (0.24, 0.36)},
    "overlapping": {2: (0.32, 0.52), 3: (0.28, 0.46)},
}
GAP = 8  # pixels between boxes that are apart
OVERLAP = (0.15, 0.45)  # of the smaller box, for the pair that overlaps
MOST_HIDDEN = 0.35  # of any silhouette
SMALLEST_VISIBLE_IOU = 0.6  # between the asked box and the box of what stays visible, so that a perfect picture scores
TRIES = 4000  # positions tried before other sprites are drawn


def mean_colour(concept: str) -> str:
    """A concept's colour as #rrggbb: the mean over its sprite, weighted by alpha."""
    pixels = cut_sprite(concept, 1.0, 0.0, False)
    mean = pixels[..., :3].sum((0, 1)) / pixels[..., 3].sum()
    return "#" + "".join(f"{round(255 * float(value)):02x}" for value in mean)


def draw_combination(count: int, used: Counter, rng: np.random.Generator) -> tuple[tuple[str, ...], str]:
    """A held-out combination whose concepts and background were used least so far."""
    candidates = []
    while len(candidates) < CANDIDATES:
        concepts = tuple(CONCEPT_NAMES[i] for i in rng.choice(len(CONCEPT_NAMES), count, replace=False))
        background = BACKGROUND_NAMES[rng.integers(len(BACKGROUND_NAMES))]
        if is_held_out(concepts, background):
            candidates.append((concepts, background))
    return least_used(candidates, used)


def _box(placement: Placement) -> Box:
    height, width = placement.pixels().shape[:2]
    right, bottom = placement.left + width, placement.top + height
    return (placement.left / CANVAS, placement.top / CANVAS, right / CANVAS, bottom / CANVAS)


def visible_masks(placements: list[Placement]) -> list[np.ndarray]:
    """What nearer sprites leave of each silhouette: bool (h w) each, painter's order."""
    masks = [placement.mask() >= 0.5 for placement in placements]
    for i, j in itertools.combinations(range(len(masks)), 2):
        masks[i] = masks[i] & ~(placements[j].mask() >= 0.5)
    return masks


def _gap(a: Box, b: Box) -> float:
    """Pixels between two boxes along the axis that separates them best; negative where they overlap."""
    return CANVAS * max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3])


def _shared_side(a: Box, b: Box) -> float:
    """How much of the smaller box's side faces the other box, 0..1, along the better axis."""
    spans = [(min(a[i + 2], b[i + 2]) - max(a[i], b[i])) / min(a[i + 2] - a[i], b[i + 2] - b[i]) for i in (0, 1)]
    return max(spans)


def is_apart(boxes: list[Box]) -> bool:
    """Whether every two boxes keep `GAP` pixels between them."""
    return all(_gap(a, b) >= GAP for a, b in itertools.combinations(boxes, 2))


def is_touching(boxes: list[Box]) -> bool:
    """Whether each box after the first lies against one before it along half a side, and none overlap."""
    if any(_gap(a, b) < 0 for a, b in itertools.combinations(boxes, 2)):
        return False
    return all(any(_gap(a, b) < 1 and _shared_side(a, b) >= 0.5 for b in boxes[:i]) for i, a in enumerate(boxes) if i)


def is_overlapping(boxes: list[Box]) -> bool:
    """Whether some pair shares a share within `OVERLAP` of its smaller box, and no pair shares more."""
    shares = []
    for a, b in itertools.combinations(boxes, 2):
        iou = box_iou(a, b)
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        shares.append(iou / (1 + iou) * sum(areas) / min(areas))
    return OVERLAP[0] <= max(shares) <= OVERLAP[1]


def is_at_corner(boxes: list[Box]) -> bool:
    """Whether a lone box lies in a corner of the canvas."""
    x0, y0, x1, y1 = boxes[0]
    return (x0 == 0 or x1 == 1) and (y0 == 0 or y1 == 1)


def is_at_edge(boxes: list[Box]) -> bool:
    """Whether a lone box touches exactly one side of the canvas."""
    x0, y0, x1, y1 = boxes[0]
    return (x0 == 0) + (x1 == 1) + (y0 == 0) + (y1 == 1) == 1


RELATIONS: dict[str, Callable[[list[Box]], bool]] = {
    "small": is_apart,
    "medium": is_apart,
    "large": is_apart,
    "touching": is_touching,
    "overlapping": is_overlapping,
    "corner": is_at_corner,
    "edge": is_at_edge,
}


def _is_fulfillable(placements: list[Placement]) -> bool:
    """Whether what stays visible of every sprite still scores well against the asked box."""
    for placement, seen in zip(placements, visible_masks(placements), strict=True):
        full = (placement.mask() >= 0.5).sum()
        components = largest_components(seen)
        if seen.sum() < (1 - MOST_HIDDEN) * full or not components:
            return False
        if box_iou(outer_box(components[0]), _box(placement)) < SMALLEST_VISIBLE_IOU:
            return False
    return True


def _draw_corner(category: str, sides: tuple[int, int], before: list[Placement], rng: np.random.Generator) -> list[int]:
    """Left and top of one sprite with (width, height) `sides`; snapped where the category asks for contact."""
    corner = [int(rng.integers(0, CANVAS - side + 1)) for side in sides]
    ends = [(0, CANVAS - side) for side in sides]
    axis = int(rng.integers(2))
    if category == "touching" and before:
        other = before[rng.integers(len(before))]
        height, width = other.pixels().shape[:2]
        start, length = ((other.left, width), (other.top, height))[axis]
        corner[axis] = start + length if rng.uniform() < 0.5 else start - sides[axis]
    if category in ("corner", "edge"):
        corner[axis] = ends[axis][rng.integers(2)]
    if category == "corner":
        corner[1 - axis] = ends[1 - axis][rng.integers(2)]
    return corner


def _arrange(concepts: tuple[str, ...], category: str, rng: np.random.Generator) -> list[Placement]:
    """Draw sprites and positions until the category's relation holds and a perfect picture exists."""
    while True:
        looks = []
        for concept in concepts:
            size = round(float(rng.uniform(*SIZES[category][len(concepts)])), 4)
            angle = round(float(rng.uniform(-LARGEST_TURN, LARGEST_TURN)), 2)
            looks.append((concept, size, angle, bool(rng.integers(2))))
        for _ in range(TRIES):
            placements: list[Placement] = []
            for look in looks:
                height, width = cut_sprite(*look).shape[:2]
                left, top = _draw_corner(category, (width, height), placements, rng)
                placements.append(Placement(*look, left, top))
            boxes = [_box(placement) for placement in placements]
            if all(0 <= box[0] and 0 <= box[1] and box[2] <= 1 and box[3] <= 1 for box in boxes):
                if RELATIONS[category](boxes) and _is_fulfillable(placements):
                    return placements


def make_set(count: int, per_category: int, seed: int) -> list[dict]:
    """Make the JSON rows of one layout set: `count` objects, boxes and masks, every category."""
    rng, used = np.random.default_rng([seed, count]), Counter()
    rows = []
    for kind, category, _ in itertools.product(("boxes", "masks"), CATEGORIES[count], range(per_category)):
        concepts, background = draw_combination(count, used, rng)
        placements = _arrange(concepts, category, rng)
        regions = tuple(
            Region(with_article(placement.concept), box=_box(placement), colour=mean_colour(placement.concept))
            for placement in placements
        )
        layout = Layout(CANVAS, CANVAS, plain_prompt(concepts, background), EMPTY_CAPTIONS[background], regions)
        row = {
            "layout": layout.to_dict(),
            "background": background,
            "placements": [vars(placement) for placement in placements],
            "areas": [round(float(seen.mean()), 5) for seen in visible_masks(placements)],
            "seed": seed * 10_000 + count * 1000 + len(rows),
            "tags": [kind, category],
        }
        rows.append(row)
    return rows


def make_presence(seed: int) -> dict[str, list[dict]]:
    """Make the presence prompts: `PRESENCE_PROMPTS` each with 1, 2 and 3 objects."""
    prompts: dict[str, list[dict]] = {}
    for count in (1, 2, 3):
        rng, used = np.random.default_rng([seed, count]), Counter()
        rows = prompts[str(count)] = []
        for index in range(PRESENCE_PROMPTS):
            concepts, background = draw_combination(count, used, rng)
            prompt = plain_prompt(concepts, background)
            number = seed * 10_000 + count * 1000 + index
            rows.append({"prompt": prompt, "concepts": concepts, "background": background, "seed": number})
    return prompts


def write_set(name: str, content: list | dict) -> None:
    """One row per line: small, and a change shows as a change of that row."""
    if isinstance(content, dict):
        text = "{\n" + ",\n".join(f'"{key}": {_rows(rows)}' for key, rows in content.items()) + "\n}\n"
    else:
        text = _rows(content) + "\n"
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def _rows(rows: list[dict]) -> str:
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]"


def main(argv: Sequence[str] = ()) -> int:
    """Write every set; returns the exit status."""
    FOLDER.mkdir(exist_ok=True)
    for count, name in enumerate(LAYOUT_SETS, 1):
        write_set(name, [row for seed, each in EVALUATION_SEEDS.items() for row in make_set(count, each, seed)])
    write_set(TUNING_SET, [row for count in TUNING_COUNTS for row in make_set(count, PER_CATEGORY_TUNING, TUNING_SEED)])
    write_set(PRESENCE, make_presence(PRESENCE_SEED))
    return 0
