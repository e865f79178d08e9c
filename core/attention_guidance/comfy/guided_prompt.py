"""The prompt that is guided: where the phrases of layouts are in it, and its entries beside a sampler's own."""

from collections.abc import Sequence
from dataclasses import dataclass

import comfy.sampler_helpers
import torch
from torch import Tensor

from ...attention.comfy.families import UNET, Family
from ...attention.comfy.prompts import columns_in
from ...attention.comfy.recording import PLACE_OPTIONS
from ...clip.comfy.columns import PromptColumns
from ...clip.comfy.words import word_positions
from ...comfy.captions import embed_captions
from ...comfy.guider import OURS
from ...comfy.types import Clip, Conditioning, Entry
from ...layout.layout import Layout
from ..target import Target

FINE = 256  # cells along the longer side of a target's mask; grids of attention have at most 128
# Of the sampler's prompt, what does not apply to another prompt for the whole canvas and the whole run. Nor does what
# our other methods have written on it: they would take the guided prompt for one of theirs.
NOT_COPIED = (
    *PLACE_OPTIONS,
    "set_area_to_bounds",
    "default",
    "start_percent",
    "end_percent",
    "clip_start_percent",
    "clip_end_percent",
    "cross_attn",
    "pooled_output",
    "attention_mask",
    "model_conds",
    "uuid",
)


@dataclass(frozen=True)
class Words:
    """Where one layout's phrases are among the recorded tokens, and what shall be there.

    Attributes:
        positions: int64 (m), of the recorded tokens along the prompt; those below 0 count from its end.
        compared: which of the m are the words that an energy compares with each other.
        prompt: where all words of the prompt are.
        targets: one for each region that is guided; columns count through `positions`.
    """

    positions: Tensor
    compared: tuple[int, ...]
    prompt: PromptColumns
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class GuidedPrompt:
    """The prompts of a batch's pictures in one CONDITIONING, which are of one length.

    Attributes:
        embedded: with a row for each picture, or one for all.
        words: of each picture, or of all; of a picture whose prompt has another length those that its row has instead.
        rows: pictures that it is meant for; the others have a prompt of their own, and nothing here moves them.
    """

    embedded: Conditioning
    words: tuple[Words, ...]
    rows: frozenset[int]


def find_words(family: Family, clip: Clip, layout: Layout, caption: str, all_words: bool) -> Words:
    """Find the phrases of a layout's regions; those with strength 0 are left out, those of one phrase are one thing.

    Args:
        family: of the network that reads the prompt.
        clip: embeds it.
        layout: what shall be where.
        caption: what is embedded.
        all_words: whether every word is recorded beside the phrases.

    Raises:
        LayoutError: a phrase that the prompt does not say.
    """
    regions = [region for region in layout.sorted_regions() if region.strength != 0]
    remedy = ", or give the region another name that the prompt has"
    embedded = [] if family is UNET else embed_captions(clip, [caption])
    prompt = columns_in(family, clip, caption, [region.phrase for region in regions], embedded, remedy)
    every = (word_positions(clip, caption) if family is UNET else prompt.words) if all_words else []
    recorded = sorted({*every, *prompt.recorded})
    columns = {position: column for column, position in enumerate(recorded)}
    # At the canvas' size, or what is enough of it: finer than any grid of attention.
    side = max(layout.height, layout.width)
    height, width = (max(1, round(FINE * length / side)) for length in (layout.height, layout.width))
    targets: dict[tuple[int, ...], Target] = {}
    for region, each in zip(regions, prompt.phrases, strict=True):
        own = tuple(columns[position] for position in each)
        mask, weight = region.mask_on(height, width), region.strength
        if own in targets:
            # One energy for each box would draw the same attention out of the others.
            mask, weight = torch.maximum(mask, targets[own].mask), max(weight, targets[own].weight)
        targets[own] = Target(own, mask, weight)
    compared = tuple(columns[position] for position in every)
    return Words(torch.tensor(recorded, dtype=torch.int64), compared, prompt, tuple(targets.values()))


def embed_prompts(family: Family, clip: Clip, captions: Sequence[str], words: Sequence[Words]) -> list[GuidedPrompt]:
    """Embed the prompt of each picture, or one for all.

    U-Nets take prompts of different lengths in one batch, for to repeat a prompt changes nothing in cross-attention.
    Where text is a part of the state it does, so there each length is evaluated by itself.
    """
    lengths = [each.prompt.length for each in words]
    if family is UNET:
        lengths = [0] * len(words)
    found = []
    for length in dict.fromkeys(lengths):
        rows = [i for i, each in enumerate(lengths) if each == length]
        if not any(words[i].targets for i in rows):
            continue
        chosen = [i if i in rows else rows[0] for i in range(len(words))]
        embedded = embed_captions(clip, [captions[i] for i in chosen])
        found.append(GuidedPrompt(embedded, tuple(words[i] for i in chosen), frozenset(rows)))
    return found


def entries_like(embedded: Conditioning, conds: dict[str, list[Entry]]) -> list[Entry]:
    """The guided prompt with all that the sampler's prompt for the whole canvas has besides its text."""
    given = conds.get("positive") or next(iter(conds.values()))
    whole = next((entry for entry in given if "mask" not in entry and "area" not in entry), given[0])
    options = {key: value for key, value in whole.items() if key not in NOT_COPIED and not str(key).startswith(OURS)}
    entries = comfy.sampler_helpers.convert_cond(embedded)
    return [{**options, **entry} for entry in entries]


def region_masks(words: Sequence[Words]) -> Tensor:
    """(o h w), or (b o h w) with empty masks where a picture has fewer regions."""
    most = max(len(each.targets) for each in words)
    # Of any picture: all regions of some may be switched off.
    empty = torch.zeros_like(next(target.mask for each in words for target in each.targets))
    masks = [
        torch.stack([target.mask for target in each.targets] + [empty] * (most - len(each.targets))) for each in words
    ]
    return masks[0] if len(masks) == 1 else torch.stack(masks)
