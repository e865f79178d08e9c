"""What a method is told of the colours of things: nothing, what their names suggest, or what the sprites have."""

from dataclasses import replace
from typing import Literal

from ...core.layout.layout import Layout

Colours = Literal["none", "words", "true"]
NONE, WORDS, TRUE = "none", "words", "true"
# CSS colours that a person would say without having seen the sprites; written down before any run with them.
GUESSES = {
    "dog": "peru",
    "cat": "darkorange",
    "panda": "white",
    "pig": "pink",
    "frog": "green",
    "rabbit": "white",
    "penguin": "black",
    "duck": "yellow",
    "apple": "red",
    "lemon": "yellow",
    "watermelon": "green",
    "mushroom": "red",
    "donut": "pink",
    "car": "red",
    "bus": "yellow",
    "tractor": "green",
    "rocket": "silver",
    "house": "brown",
    "tree": "green",
    "cactus": "green",
    "sunflower": "gold",
    "umbrella": "blue",
    "balloon": "red",
    "gift": "red",
}


def coloured(layout: Layout, colours: Colours) -> Layout:
    """A layout of the sets, which have the sprites' mean colours, with no more than is to be told."""
    if colours == TRUE:
        return layout
    told = [GUESSES.get(each.phrase.split()[-1], "") if colours == WORDS else "" for each in layout.regions]
    regions = tuple(replace(each, colour=colour) for each, colour in zip(layout.regions, told, strict=True))
    return replace(layout, regions=regions)
