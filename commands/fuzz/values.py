"""Values for one widget of a node, out of what the server says about it: right ones, edges, wrong ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from .texts import ODD, texts_for

VALID, BOUNDARY, WRONG = "valid", "boundary", "wrong"
Value: TypeAlias = "str | int | float | bool | None | dict | list"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
# Prompts must stay small, so that many run in a minute: above these a right value or an edge is not taken.
_DEAR = {
    "steps": 3,
    "draw_steps": 3,
    "iterations": 3,
    "refinements": 2,
    "tries": 2,
    "cut_outs": 4,
    "batch_size": 3,
    "width": 256,
    "height": 256,
    "size": 128,
    "upscale": 2.0,
    "forward_noise_first_k": 4,
    "margin": 32,
}
# A side of a picture is a multiple of this, and seldom the whole of its range.
_SIDES = ("width", "height", "size")
_SIDE = 64
# What goes with what else is usual, where a number or a choice that is right by itself seldom does.
USUAL: dict[str, tuple[Value, ...]] = {
    "StageLayerByLayer.replace": (0,),
    "StageLayerByLayer.denoise": (1.0,),
    "StageAttentionGuidance.sites": ("half of the latent", "found"),
    "StageAttentionGuidance.end_at": (0.5, 1.0),
    "StageAttentionGuidance.iterations": (1, 2),
    "StageLayerSettings.region": ("background", "a dog"),
    "StageLayoutEdit.region": ("a dog",),
    "StageSegment.least_area": (0.0,),
    "StageSegment.least_confidence": (0.0, 0.1),
    "StageSegment.classes": ("",),
    "StageLayeredRendering.source": ("auto", "auto", "colour", "dynamic"),
    "StageLayeredRendering.inject": ("every step", "first step"),
    "StageDepthPair.front": (1,),
    "StageComposite.mask_means": ("1 shows the picture",),
    "scheduler": ("normal", "karras", "sgm_uniform", "simple"),
    "steps": (2, 3),
    "forward_noise_first_k": (0, 0, 1),
}
_NO_NUMBERS = ("many", None, {"a": 1}, 2**70, -(2**70), "", float("nan"), float("inf"), float("-inf"))
_NO_CHOICES = ("no such choice", "", 7, None, "../../etc/passwd")


@dataclass(frozen=True)
class Input:
    """One input of a node as the server describes it.

    Attributes:
        name: of the input.
        kinds: the types that fit; COMBO for a choice.
        options: min, max, step, default, options.
        required: whether a prompt without it is refused.
    """

    name: str
    kinds: tuple[str, ...]
    options: Mapping
    required: bool

    @property
    def is_widget(self) -> bool:
        """Whether it takes a value and not a link alone."""
        return self.kinds[0] in WIDGETS and not self.options.get("forceInput")


@dataclass(frozen=True)
class Node:
    """One class of nodes as the server describes it.

    Attributes:
        name: its id.
        inputs: in the editor's order.
        outputs: their types.
        is_output: whether a prompt may end in it.
    """

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    is_output: bool

    def takes(self, kind: str) -> list[str]:
        """Names of the links that a type fits into."""
        return [each.name for each in self.inputs if not each.is_widget and kind in each.kinds]


def described(object_info: Mapping) -> dict[str, Node]:
    """Read the server's list of nodes, in alphabetical order whatever the server's own is."""
    nodes = {}
    for name in sorted(object_info):
        about = object_info[name]
        outputs = tuple(kind if isinstance(kind, str) else "COMBO" for kind in about["output"])
        nodes[name] = Node(name, tuple(_inputs(about["input"])), outputs, bool(about.get("output_node")))
    return nodes


def _inputs(sections: Mapping) -> Iterator[Input]:
    for section in ("required", "optional"):
        for name, (kind, *rest) in (sections.get(section) or {}).items():
            options = rest[0] if rest and isinstance(rest[0], dict) else {}
            # Older nodes give the choices of a combo in the place of the type.
            if isinstance(kind, list):
                kind, options = "COMBO", {**options, "options": kind}
            yield Input(name, tuple(kind.split(",")), options, section == "required")


def value_of(random: Random, node: str, about: Input, mood: str) -> Value:
    """Draw a value.

    Args:
        random: draws.
        node: class of the node, for the texts that mean something there.
        about: the input.
        mood: VALID, BOUNDARY or WRONG.
    """
    kind, usual = about.kinds[0], USUAL.get(f"{node}.{about.name}") or USUAL.get(about.name)
    if usual and mood == VALID:
        return random.choice(usual)
    if kind == "STRING":
        return _text(random, node, about, mood)
    if kind == "BOOLEAN":
        return random.choice(("yes", None, 7, "")) if mood == WRONG else random.random() < 0.5
    if kind == "COMBO":
        choices = list(about.options.get("options") or [])
        if mood == WRONG or not choices:
            return random.choice(_NO_CHOICES)
        return random.choice([choices[0], choices[-1]] if mood == BOUNDARY else choices)
    return _number(random, about, mood)


def _text(random: Random, node: str, about: Input, mood: str) -> Value:
    valid, edge, wrong = texts_for(node, about.name)
    if mood == VALID or (mood == BOUNDARY and random.random() < 0.3):
        return random.choice(valid)
    if mood == BOUNDARY:
        return random.choice(edge if edge and random.random() < 0.7 else ODD)
    return random.choice(wrong if wrong and random.random() < 0.6 else [*ODD, 7, None, {"a": 1}])


def _number(random: Random, about: Input, mood: str) -> Value:
    whole = about.kinds[0] == "INT"
    lowest, highest = about.options.get("min", 0), about.options.get("max", 100)
    if mood == WRONG:
        step = 1 if whole else 0.5
        return random.choice([lowest - step, highest + step, *_NO_NUMBERS])
    highest = min(highest, _DEAR.get(about.name, highest))
    default = min(max(about.options.get("default", lowest), lowest), highest)
    if about.name in _SIDES:
        sizes = [lowest, lowest + 8, 72, 136] if mood == BOUNDARY else [_SIDE, 2 * _SIDE, 2 * _SIDE]
        return min(highest, random.choice(sizes))
    if mood == BOUNDARY:
        return random.choice([lowest, highest, lowest, highest, 0 if lowest <= 0 <= highest else default])
    if about.name in _DEAR:
        return random.randint(max(int(lowest), 0), int(highest)) if whole else default
    if random.random() < 0.5 or highest - lowest > 1e6:
        return random.randint(0, 1000) if highest > 1e6 else default
    # Most ranges are far wider than what anybody sets.
    low, high = max(lowest, default - 2), min(highest, default + 2)
    return random.randint(int(low), int(high)) if whole else round(random.uniform(low, high), 2)
