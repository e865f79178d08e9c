"""Regions' tokens as they travel on ComfyUI's CONDITIONING."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...comfy.types import Conditioning, Entry
from ..soft_guidance import RULES

# Options of an entry: tensors and lists of tensors only, so that ComfyUI can save them.
TOKENS = "stagecraft_soft_tokens"  # (b m c) of each region
MASKS = "stagecraft_soft_masks"  # (b h w) of each region
SETTINGS = "stagecraft_soft_settings"  # (regions 4): outside, weight, number of the rule, hard_until


@dataclass(frozen=True, eq=False)
class RegionTokens:
    """Tokens of one region.

    Attributes:
        tokens: (b m c) as the model's prompts are, b pictures or 1 for all.
        mask: (b h w) in 0..1 at any size with the picture's aspect ratio; from one half on a pixel is inside.
        outside: the region is where the mask is not. Not the same as an inverted mask: cells that a border runs through
            belong to the mask alone.
        weight: times the attention that the tokens get; 1 as they are, 0 leaves the region out.
        negative: whether the negative prompt has the tokens too, as published; then CFG amplifies the text alone.
        hard_until: share of the run in which the region's cells see no cell of another such region, in transformers
            that read text and picture in one sequence; 0: they always do.
    """

    tokens: Tensor
    mask: Tensor
    outside: bool = False
    weight: float = 1.0
    negative: bool = True
    hard_until: float = 0.0


def read_regions(entry: Entry) -> list[tuple[RegionTokens, str]]:
    """Give the regions on an entry's options, each with its rule for masks; most entries have none."""
    if TOKENS not in entry:
        return []
    return [
        (RegionTokens(tokens, mask, bool(outside), weight, hard_until=hard), RULES[round(rule)])
        for tokens, mask, (outside, weight, rule, hard) in zip(
            entry[TOKENS], entry[MASKS], entry[SETTINGS].tolist(), strict=True
        )
    ]


def with_regions(conditioning: Conditioning, regions: Sequence[RegionTokens], rule: str) -> Conditioning:
    """Give prompts with regions behind those that they have already."""
    settings = torch.tensor(
        [[region.outside, region.weight, RULES.index(rule), region.hard_until] for region in regions]
    )
    added = []
    for text, options in conditioning:
        ours = {
            TOKENS: [*options.get(TOKENS, []), *(region.tokens for region in regions)],
            MASKS: [*options.get(MASKS, []), *(region.mask for region in regions)],
            SETTINGS: torch.cat([options[SETTINGS], settings]) if SETTINGS in options else settings,
        }
        added.append([text, {**options, **ours}])
    return added
