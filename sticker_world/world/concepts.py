"""What there is in Sticker World: concepts, backgrounds, and which combinations training never shows.

Every word below is a single token of CLIP's byte-pair vocabulary, so a concept has one column in an attention map.
"""

CANVAS = 256  # pixels, both sides

# concept -> Unicode code point of its Fluent 3D sprite
CONCEPTS: dict[str, str] = {
    "dog": "1f436",
    "cat": "1f431",
    "panda": "1f43c",
    "pig": "1f437",
    "frog": "1f438",
    "rabbit": "1f430",
    "penguin": "1f427",
    "duck": "1f986",
    "apple": "1f34e",
    "lemon": "1f34b",
    "watermelon": "1f349",
    "mushroom": "1f344",
    "donut": "1f369",
    "car": "1f697",
    "bus": "1f68c",
    "tractor": "1f69c",
    "rocket": "1f680",
    "house": "1f3e0",
    "tree": "1f333",
    "cactus": "1f335",
    "sunflower": "1f33b",
    "umbrella": "2602-fe0f",
    "balloon": "1f388",
    "gift": "1f381",
}
CONCEPT_NAMES = tuple(CONCEPTS)

# Colour words that are true of the sprite; a caption uses one of them now and then.
ADJECTIVES: dict[str, str] = {
    "dog": "brown",
    "cat": "yellow",
    "pig": "pink",
    "frog": "green",
    "rabbit": "white",
    "apple": "red",
    "lemon": "yellow",
    "mushroom": "red",
    "donut": "brown",
    "car": "red",
    "tractor": "green",
    "tree": "green",
    "cactus": "green",
    "umbrella": "purple",
    "balloon": "red",
    "gift": "yellow",
}

# background -> phrases that name it behind objects
BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "meadow": ("on a green meadow", "on a meadow", "in a green field"),
    "beach": ("on the beach", "at the beach"),
    "snow": ("in the snow", "on white snow"),
    "night": ("at night", "under the stars at night"),
    "sunset": ("at sunset", "under a sunset sky"),
    "room": ("in a room", "inside a room"),
    "desert": ("in the desert", "in a dry desert"),
    "mountains": ("in the mountains", "near the mountains"),
    "lake": ("by the lake", "by a blue lake"),
    "forest": ("in the forest", "in a dark forest"),
    "blue": ("on a blue background", "on a plain blue background"),
    "pink": ("on a pink background", "on a plain pink background"),
}

# background -> what the picture is called when nothing stands before it
EMPTY_CAPTIONS: dict[str, str] = {
    "meadow": "a green meadow",
    "beach": "the beach",
    "snow": "white snow",
    "night": "the night sky",
    "sunset": "a sunset sky",
    "room": "an empty room",
    "desert": "a dry desert",
    "mountains": "mountains",
    "lake": "a blue lake",
    "forest": "a dark forest",
    "blue": "a plain blue background",
    "pink": "a plain pink background",
}
BACKGROUND_NAMES = tuple(BACKGROUNDS)


def is_held_out_pair(first: str, second: str) -> bool:
    """Whether training never shows these two concepts in one scene (about one pair in six)."""
    return (CONCEPT_NAMES.index(first) + CONCEPT_NAMES.index(second)) % 6 == 3


def is_held_out_place(concept: str, background: str) -> bool:
    """Whether training never shows this concept before this background (one place in eight)."""
    return (CONCEPT_NAMES.index(concept) + 3 * BACKGROUND_NAMES.index(background)) % 8 == 0


def is_held_out(concepts: tuple[str, ...], background: str) -> bool:
    """Whether a scene of these concepts before this background is kept away from training."""
    if any(is_held_out_place(concept, background) for concept in concepts):
        return True
    return any(is_held_out_pair(a, b) for i, a in enumerate(concepts) for b in concepts[i + 1 :])
