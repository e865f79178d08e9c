"""Layers of a run, and what a person sets for all and for single ones of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ...comfy.types import Conditioning, Options
from ...layout.layout import Layout
from ...layout.region import LayoutError
from ..vision_guidance import AS_PUBLISHED, VisionGuidance
from .entry import LayerEntry, VisionEntry
from .loras import Worn

BACKGROUND = "background"
PAPER, TRAJECTORIES = "paper", "trajectories"
MODES = (PAPER, TRAJECTORIES)


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
class Rendering:
    """How a layout is rendered in layers.

    Attributes:
        t0: share of the run in 0..1 as ComfyUI counts it (start_percent, end_percent); 0 leaves everything as it is.
        strength: lambda, multiplies every region's own strength and its delta.
        layer_prompt: caption of a layer without a longer prompt; may hold {phrase}, {background} and {prompt}.
        mode: "paper" or "trajectories".
        guidance: where delta comes from and how it is used.
        background_negative: negative prompt of the background's layer, in place of the given one; may hold {phrases},
            {background} and {prompt}; empty takes the given one.
        crop: margin in latent cells: evaluate each region's layer only on its surroundings; None: on the whole canvas.
        settings: prompts and CFG of single layers.

    Raises:
        ValueError: an unknown mode, or one that does not go together with the rest.
    """

    t0: float
    strength: float
    layer_prompt: str = "{phrase}"
    mode: str = PAPER
    guidance: VisionGuidance = field(default_factory=VisionGuidance)
    background_negative: str = ""
    crop: int | None = None
    settings: Sequence[LayerSettings] = ()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f'Layered rendering has the mode "{self.mode}"; known: {", ".join(MODES)}.')
        if self.guidance.inject == AS_PUBLISHED and self.mode != TRAJECTORIES:
            raise ValueError(
                f'Vision guidance is to be injected "{AS_PUBLISHED}", which changes the latent of each layer for good; '
                f'the mode "{PAPER}" has one latent for all of them. Choose the mode "{TRAJECTORIES}", or inject at '
                "every step."
            )
        if self.crop is not None and self.mode != PAPER:
            raise ValueError(
                f'crop works in the mode "{PAPER}" only: with trajectories every layer needs its whole canvas. '
                "Switch crop off or change the mode."
            )


@dataclass(frozen=True)
class Layer:
    """One layer of a run, for one picture or for each of a batch.

    Attributes:
        positive: its caption, embedded.
        visible: (b h w) at the canvas' resolution; the layers' masks are a partition of unity.
        negative: its own negative prompt, or None.
        vision: vision guidance as written on its entries, or None.
        cfg: its own guidance scale, or None.
        is_background: whether it is the background's.
        worn: LoRAs that its passes of the model alone have, or None.
    """

    positive: Conditioning
    visible: Tensor
    negative: Conditioning | None = None
    vision: VisionEntry | None = None
    cfg: float | None = None
    is_background: bool = False
    worn: Worn | None = None

    @cached_property
    def number(self) -> int:
        """What its entries have in common; made from what it is, so that two renderings can be combined."""
        digest = hashlib.blake2b(digest_size=6)
        texts = [text for text, _ in [*self.positive, *(self.negative or [])]]
        vision = {} if self.vision is None else self.vision.to_options()
        for value in (*texts, self.visible, *vision.values(), self.cfg, self.worn and self.worn.text):
            tensors = value if isinstance(value, list) else [value]
            for each in tensors:
                plain = each.detach().float().cpu().numpy().tobytes() if isinstance(each, Tensor) else repr(each)
                digest.update(plain if isinstance(plain, bytes) else plain.encode())
        return int.from_bytes(digest.digest(), "big")

    @property
    def needs_negative(self) -> bool:
        """Whether the negative prompt sees it otherwise than a layer without anything of its own."""
        return self.vision is not None or self.negative is not None or self.worn is not None

    def dressed(self, options: Options) -> Options:
        """Options of an entry with what the layer wears."""
        return options if self.worn is None else self.worn.on(options)

    def options(self, crop: int | None = None) -> Options:
        """Give what its entries carry; see `LayerEntry` for crop."""
        vision = {} if self.vision is None else self.vision.to_options()
        return LayerEntry(self.number, self.visible, self.cfg, crop).to_options() | vision


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
    """Join the layers that the given negative prompt sees alike, those without guidance and LoRAs, into one."""
    alike = [layer for layer in layers if not layer.needs_negative]
    others = [layer for layer in layers if layer.needs_negative]
    if not alike:
        return others
    return [*others, Layer([], torch.stack([layer.visible for layer in alike]).sum(0), is_background=True)]
