"""Tokens of regions from what a graph has: a layout's phrases, any CONDITIONING, or a style model's picture."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ...attention.comfy.recording import PLACE_OPTIONS
from ...clip.comfy.columns import prompt_columns
from ...comfy.captions import embed_captions
from ...comfy.types import Clip, ClipVisionOutput, Conditioning, StyleModel
from ...layout.layout import Layout, refuse_loras
from ...layout.masks import is_same_aspect
from ...layout.region import LayoutError
from .tokens import TOKENS, RegionTokens

FINEST = 1024  # pixels along the longer side of a mask; grids of attention are far coarser
# What a prompt's options do to a sampler's prompt and cannot do to tokens behind another's.
NOT_KEPT = (*PLACE_OPTIONS, "default", "start_percent", "end_percent", "control", "gligen", "hooks", TOKENS)


def phrase_regions(
    clip: Clip,
    layout: Layout | Sequence[Layout],
    weight: float,
    *,
    hard_until: float = 0.0,
    words: str | None = None,
) -> list[RegionTokens]:
    """Each region's own prompt, or its phrase, as tokens that are seen where the region is, and the background's.

    For a U-Net the whole embedded prompt is taken, with its start and padding, which get most of the attention that a
    prompt gets. So at weight 1 a region attends to its own prompt about as much as to the text, at 10 ten times as
    much. For a transformer the words alone are taken: there a text may be padded to 512 tokens, which are rows of
    attention too. The negative prompt has no part in it, so CFG amplifies the phrases as it does the text.

    Args:
        clip: ComfyUI's CLIP.
        layout: one, or one for each picture of the batch. Where regions overlap the nearest has the place,
            and where none is, the background.
        weight: times each region's own strength.
        hard_until: of the regions; the background's cells are seen by all.
        words: what stands in an embedded prompt, one of `clip.comfy.columns`' ways, to take its words; None: the whole.
    """
    layouts = [layout] if isinstance(layout, Layout) else list(layout)
    refuse_loras(layouts, "Soft Guidance")
    seen = _visible(layouts)
    embed = partial(_embedded, clip, words=words)
    found = _at_one_place(
        embed, [each.background for each in layouts], [weight] * len(layouts), [each[0] for each in seen]
    )
    for place in range(max(len(each.regions) for each in layouts)):
        # None: this picture has fewer.
        here = [each.sorted_regions()[place] if place < len(each.regions) else None for each in layouts]
        texts = ["" if region is None else region.prompt or region.phrase for region in here]
        weights = [0.0 if region is None else weight * region.strength for region in here]
        masks = [each[min(place + 1, len(each) - 1)] for each in seen]
        found += [replace(each, hard_until=hard_until) for each in _at_one_place(embed, texts, weights, masks)]
    return found


def _at_one_place(
    embed: Callable[[str], Tensor], texts: Sequence[str], weights: Sequence[float], masks: Sequence[Tensor]
) -> list[RegionTokens]:
    """Regions of the same place in painter's order, one in each picture; those without a text or weight are none."""
    seen = dict.fromkeys(text for text, weight in zip(texts, weights, strict=True) if text and weight)
    embedded = {text: embed(text) for text in seen}
    if not embedded:
        return []
    longest = math.lcm(*(each.shape[1] for each in embedded.values()))
    repeats = {text: longest // each.shape[1] for text, each in embedded.items()}
    repeated = {text: each.repeat(1, repeats[text], 1) for text, each in embedded.items()}
    # Tokens that stand there more often than their prompt has them count as much less.
    weights = [weight / repeats[text] if text in embedded else 0.0 for text, weight in zip(texts, weights, strict=True)]
    unseen = next(iter(repeated.values()))
    tokens = torch.cat([repeated.get(text, unseen) for text in texts]) if len(set(texts)) > 1 else unseen
    # A region has one weight in all pictures; pictures with another have it apart, with masks of their own.
    return [
        RegionTokens(
            tokens,
            torch.stack([mask * (each == own) for mask, each in zip(masks, weights, strict=True)]),
            weight=own,
            negative=False,
        )
        for own in sorted(set(weights) - {0.0})
    ]


def _embedded(clip: Clip, text: str, words: str | None) -> Tensor:
    """The tokens (1 m c) of a layout's text, or of its words alone.

    Raises:
        ValueError: the CLIP gives the text several embeddings, one after another.
        LayoutError: it cannot be told which of the tokens are words.
    """
    found = embed_captions(clip, [text])
    if len(found) != 1:
        raise ValueError(
            f'The CLIP on Soft Guidance embeds "{text}" in {len(found)} ways, one for each keyframe of its scheduled '
            "LoRA hooks, but a region's tokens are the same for the whole run. Connect clip from before Set CLIP "
            "Hooks, or switch schedule_clip off there; the sampler's prompts keep their schedule."
        )
    # The CLIP's own hooks have changed the text encoder by now; on the model they act by the sampler's prompts.
    (tokens, options), *_ = found
    tokens = conditioning_tokens([[tokens, {key: value for key, value in options.items() if key != "hooks"}]])
    columns = None if words is None else prompt_columns(clip, text, [], tokens.shape[1], words).words
    return tokens[:, columns] if columns else tokens


def _visible(layouts: Sequence[Layout]) -> list[Tensor]:
    """(regions+1 h w) of each layout, the background first, all at one size."""
    height, width = layouts[0].height, layouts[0].width
    for each in layouts:
        if not is_same_aspect(each.height, each.width, height, width):
            raise LayoutError(
                f"The layouts of one batch have canvases of {width} x {height} and {each.width} x {each.height} "
                "pixels, but its pictures have one shape. Give all layouts the same width and height."
            )
    coarser = math.ceil(max(height, width) / FINEST)
    return [each.visible_masks(math.ceil(height / coarser), math.ceil(width / coarser)) for each in layouts]


def conditioning_tokens(conditioning: Conditioning) -> Tensor:
    """The tokens (b m c) of a prompt.

    Raises:
        ValueError: it has several parts, of which it cannot be told which is meant, or options that tokens cannot keep.
    """
    if len(conditioning) != 1:
        raise ValueError(
            f"The region's CONDITIONING has {len(conditioning)} parts, such as a schedule or a combination has; "
            "expected one prompt. Encode it by CLIP Text Encode, and chain a Region Tokens node for each part."
        )
    tokens, options = conditioning[0]
    if lost := [name for name in NOT_KEPT if options.get(name) is not None]:
        raise ValueError(
            f"The region's CONDITIONING has options that its tokens cannot keep: {', '.join(lost)}. Connect the prompt "
            "as CLIP Text Encode gives it, without nodes that set areas, masks, step ranges, ControlNets or hooks; "
            "the region's own mask and strength are Region Tokens' inputs, and hooks work on the sampler's prompt."
        )
    return tokens


def style_tokens(style_model: StyleModel, clip_vision_output: ClipVisionOutput) -> Tensor:
    """The tokens (1 m c) that a style model makes of pictures, as Apply Style Model appends them to a prompt.

    Raises:
        ValueError: pictures that another CLIP Vision has encoded than the style model reads.
    """
    found, own = clip_vision_output.last_hidden_state, getattr(style_model.model, "style_embedding", None)
    if own is not None and own.shape[-1] != found.shape[-1]:
        raise ValueError(
            f"The style model reads pictures encoded at width {own.shape[-1]}, but this CLIP Vision gives "
            f"{found.shape[-1]}. Encode them with the one that belongs to it, as clip-vit-large-patch14 does to "
            "t2iadapter_style."
        )
    return style_model.get_cond(clip_vision_output).flatten(0, 1)[None]
