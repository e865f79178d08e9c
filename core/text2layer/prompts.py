"""A prompt taken apart into layers: what stands in the picture, farthest first, and where it stands."""

import re
from dataclasses import dataclass

from ..layout.layout import Layout
from ..layout.region import Region

# What joins things in a prompt. Between "and", "with" and "next to" nothing says what lies in front.
JOINTS = re.compile(r"\s*[,;]\s*(?:and\s+|with\s+)?|\s+(?:and|with|next to|beside)\s+", re.IGNORECASE)
IN_FRONT = re.compile(r"\s+in\s+front\s+of\s+", re.IGNORECASE)
# Begins the words about the place: the first of them behind the last thing's name.
PLACE = re.compile(r"\s+(?=(?:on|in|at|under|inside|near|by|before|against|over|above|outside)\s)", re.IGNORECASE)
OPENING = re.compile(r"^\s*(?:a|an|the)\s+(?:photo|picture|image|painting|drawing)\s+of\s+", re.IGNORECASE)
WHOLE = (0.0, 0.0, 1.0, 1.0)  # the place of a layer that may lie anywhere
MOST_LAYERS = 16  # every layer is a sampling of its own; more than this is a mistake, not a picture


@dataclass(frozen=True)
class LayerPrompts:
    """What the layers of a picture are.

    Attributes:
        phrases: one for each layer above the background, farthest first.
        background: words for the place, such as "on a green meadow"; may be empty.
    """

    phrases: tuple[str, ...]
    background: str


def split_prompt(prompt: str, background: str = "") -> LayerPrompts:
    """Take a prompt apart.

    Several lines are one layer each, farthest first. One line is taken apart at its commas and joining words: "a dog,
    a cat and an apple on a green meadow" has three layers, and its last words are the background. Of "a cat in front
    of a dog" the dog is the farther one.

    Args:
        prompt: the text.
        background: words for the place; empty takes them from the end of a single line.

    Raises:
        ValueError: no words, or more layers than `MOST_LAYERS`.
    """
    lines = [line.strip(" \t,;.") for line in prompt.splitlines()]
    phrases = [line for line in lines if line]
    if len(phrases) == 1:
        phrases, found = _split_line(OPENING.sub("", phrases[0]))
        background = background.strip() or found
    if not phrases:
        raise ValueError("The prompt is empty. Write what stands in the picture, such as: a dog, a cat and an apple")
    if len(phrases) > MOST_LAYERS:
        raise ValueError(f"The prompt names {len(phrases)} layers; at most {MOST_LAYERS} are possible.")
    return LayerPrompts(tuple(phrases), background.strip())


def layout_of_prompt(prompt: str, background: str, width: int, height: int) -> Layout:
    """Give every phrase of a prompt, see `split_prompt`, a region that is the whole canvas.

    Raises:
        ValueError: no words, or too many layers.
    """
    found = split_prompt(prompt, background)
    return Layout(width, height, "", found.background, [Region(phrase, WHOLE) for phrase in found.phrases])


def _split_line(line: str) -> tuple[list[str], str]:
    # "in front of" begins like words about a place, so it is taken out of the way first.
    nearer_first = [part.strip() for part in IN_FRONT.split(line)]
    nearer_first[-1], place = _cut_place(nearer_first[-1])
    phrases = [phrase for part in reversed(nearer_first) for phrase in JOINTS.split(part) if phrase.strip()]
    return [phrase.strip() for phrase in phrases], place


def _cut_place(text: str) -> tuple[str, str]:
    """Cut the place off: the first such word after the last joint begins it."""
    joints = list(JOINTS.finditer(text))
    start = joints[-1].end() if joints else 0
    cut = PLACE.search(text, start + 1)
    return (text, "") if cut is None else (text[: cut.start()], text[cut.end() :].strip())
