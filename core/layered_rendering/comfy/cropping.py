"""Which part of the canvas each cropped layer of a run is evaluated on.

ComfyUI evaluates entries in one batch whose parts have one size and whose conditionings fit, as many as memory allows.
So layers that fit get sizes that several of them share, and everything else goes on as it was: a layer with a LoRA of
its own or a prompt of another length has the size that it needs and is evaluated by itself.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

from comfy.samplers import cond_equal_size

from ...comfy.types import Entry
from ..parts import part_around, shared_sizes
from .layer_on_grid import RunLayer

ALONE = "gligen"  # an option of a prompt with which ComfyUI evaluates it by itself


def areas_of_layers(
    layers: Mapping[RunLayer, Sequence[Entry]], margins: Mapping[RunLayer, int]
) -> dict[UUID, tuple[int, ...]]:
    """Rows, columns, top and left by the uuid of an entry.

    They do not depend on the memory that is free, so that neither do pictures: what a layer sees decides what it
    paints. ComfyUI divides a batch that is too large.

    Args:
        layers: the cropped ones with their entries, as samplers evaluate them.
        margins: in latent cells.
    """
    parts = {layer: part_around(layer.visible.amax(0) > 0, margins[layer]) for layer in layers}
    areas = {}
    for group in _groups(layers):
        canvas = tuple(group[0].visible.shape[-2:])
        sizes = shared_sizes([parts[layer].size for layer in group], [len(layers[layer]) for layer in group])
        for layer, size in zip(group, sizes, strict=True):
            area = parts[layer].grown(size, canvas).area
            areas.update({entry["uuid"]: area for entry in layers[layer]})
    return areas


def _groups(layers: Mapping[RunLayer, Sequence[Entry]]) -> list[list[RunLayer]]:
    """Layers that can be evaluated in one batch if their parts have one size."""
    groups: list[list[RunLayer]] = []
    for layer, entries in layers.items():
        group = next((group for group in groups if _fit(layers[group[0]], entries)), None)
        if group is None:
            groups.append([layer])
        else:
            group.append(layer)
    return groups


def _fit(entries: Sequence[Entry], others: Sequence[Entry]) -> bool:
    """Whether each entry of either layer fits one of the other's, which may have no negative prompt of its own."""
    return all(
        any(_in_one_batch(one, other) for other in opposite)
        for own, opposite in ((entries, others), (others, entries))
        for one in own
    )


def _in_one_batch(one: Entry, other: Entry) -> bool:
    return (
        ALONE not in one
        and ALONE not in other
        and one.get("hooks") == other.get("hooks")
        and cond_equal_size(one["model_conds"], other["model_conds"])
    )
