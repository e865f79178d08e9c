"""Layers of a run, and what a person sets for single ones of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...layout.layout import Layout, LayoutError
from . import keys

Conditioning = list[list[Any]]  # ComfyUI's: pairs of an embedded text and a dictionary of options

BACKGROUND = "background"


@dataclass(frozen=True)
class LayerSettings:
    """Prompts and CFG of one layer, in place of what it would have.

    Attributes:
        region: its phrase, its number in the layout (1 is the first), or "background".
        positive: its own prompt, with whatever ControlNet, LoRA hooks or schedule are on it; None: its caption.
        negative: its own negative prompt; None: the run's.
        cfg: its own guidance scale in the layered part; None: the sampler's.
    """

    region: str
    positive: Conditioning | None = None
    negative: Conditioning | None = None
    cfg: float | None = None


@dataclass(frozen=True)
class Layer:
    """One layer of a run, for one picture or for each of a batch.

    Attributes:
        positive: its caption, embedded.
        visible: (b h w) at the canvas' resolution; the layers' masks are a partition of unity.
        negative: its own negative prompt, or None.
        vision: vision guidance as written on its entries; empty where it has none.
        cfg: its own guidance scale, or None.
        is_background: whether it is the background's.
    """

    positive: Conditioning
    visible: Tensor
    negative: Conditioning | None = None
    vision: dict[str, Any] = field(default_factory=dict)
    cfg: float | None = None
    is_background: bool = False

    @cached_property
    def number(self) -> int:
        """What its entries have in common; made from what it is, so that two renderings can be combined."""
        digest = hashlib.blake2b(digest_size=6)
        texts = [text for text, _ in [*self.positive, *(self.negative or [])]]
        for value in (*texts, self.visible, *self.vision.values(), self.cfg):
            tensors = value if isinstance(value, list) else [value]
            for each in tensors:
                plain = each.detach().float().cpu().numpy().tobytes() if isinstance(each, Tensor) else repr(each)
                digest.update(plain if isinstance(plain, bytes) else plain.encode())
        return int.from_bytes(digest.digest(), "big")

    def options(self) -> dict[str, Any]:
        """Give what its conditioning entries carry."""
        own_cfg = {} if self.cfg is None else {keys.CFG: self.cfg}
        return {"mask": self.visible, keys.LAYER: self.number, keys.VISIBLE: self.visible} | own_cfg | self.vision


def settings_by_region(layout: Layout, settings: Sequence[LayerSettings]) -> dict[int | None, LayerSettings]:
    """Find the regions that settings are for.

    Args:
        layout: with the regions.
        settings: of later ones for the same region the last counts.

    Returns:
        Settings by the region's index in the layout; None is the background.

    Raises:
        LayoutError: a name that no region has.
    """
    found: dict[int | None, LayerSettings] = {}
    names = [region.phrase.strip().casefold() for region in layout.regions]
    for each in settings:
        name = each.region.strip().casefold()
        if name == BACKGROUND:
            places: list[int | None] = [None]
        elif name.isdecimal() and 1 <= int(name) <= len(names):
            places = [int(name) - 1]
        else:
            places = [i for i, phrase in enumerate(names) if phrase == name]
        if not places:
            known = ", ".join([*(f'"{region.phrase}"' for region in layout.regions), f'"{BACKGROUND}"'])
            raise LayoutError(
                f'There are settings for a layer "{each.region}", but the layout has no such region; it has {known}. '
                f"Write one of these, or a number from 1 to {len(names)}."
            )
        found |= dict.fromkeys(places, each)
    return found


def share_negative(layers: Sequence[Layer]) -> list[Layer]:
    """Join the layers that the given negative prompt sees alike, those without guidance, into one."""
    alike = [layer for layer in layers if not layer.vision and layer.negative is None]
    others = [layer for layer in layers if layer.vision or layer.negative is not None]
    if not alike:
        return others
    return [*others, Layer([], torch.stack([layer.visible for layer in alike]).sum(0), is_background=True)]
