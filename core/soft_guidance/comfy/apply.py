"""Soft guidance in ComfyUI: regions' tokens on the prompts of a model, each looked at only from its own region.

The regions travel as options of CONDITIONING entries and become columns of the context when a run evaluates the
entries, see `run`. So text of any length, text that a later node joins to the prompt, prompts of layers,
and entries without regions beside those with them all keep their meaning.
"""

from collections.abc import Sequence
from dataclasses import replace

from comfy.ldm.modules.attention import SpatialVideoTransformer

from ...attention.comfy.families import SOFT, UNET, family_of
from ...attention.comfy.recording import has_cross_attention
from ...comfy.runs import around_runs
from ...comfy.types import Conditioning, Model
from ...layout.masks import inside_of
from ..soft_guidance import PUBLISHED, RULES
from .run import WRAPPER, show_regions
from .tokens import RegionTokens, with_regions

METHOD = "Soft guidance"


def apply_soft_guidance(
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    regions: Sequence[RegionTokens],
    rule: str = PUBLISHED,
) -> tuple[Model, Conditioning, Conditioning]:
    """Put regions' tokens behind the text of the prompts and keep each region's attention to them inside it.

    Args:
        model: a U-Net with cross-attention, or a transformer of a family whose attention is known.
        positive: its entries keep all their options; every one gets the tokens.
        negative: the same.
        regions: where two overlap, both are looked at. Regions that the prompts have already stay.
        rule: how masks become cells of attention's grids, one of `soft_guidance.RULES`.

    Returns:
        Model, positive and negative for a sampler; the very same objects if no region has a weight.

    Raises:
        ValueError: another kind of model, or tokens or masks that cannot be meant.
    """
    regions = [region for region in regions if region.weight != 0]
    if not regions:
        return model, positive, negative
    if rule not in RULES:
        raise ValueError(f'Soft guidance has no rule "{rule}" for masks; known: {", ".join(RULES)}.')
    _check_family(model, any(region.hard_until for region in regions))
    for region in regions:
        _check_region(region, [*positive, *negative] if region.negative else positive)
    # Decided here, for the published rule takes every grey for inside.
    regions = [replace(region, mask=inside_of(region.mask).float()) for region in regions]
    both = [region for region in regions if region.negative]
    return (
        around_runs(model, WRAPPER, show_regions),
        with_regions(positive, regions, rule),
        with_regions(negative, both, rule) if both else negative,
    )


def words_for(model: Model) -> str | None:
    """What `phrase_regions` takes of a layout's embedded texts for a model.

    Raises:
        ValueError: a class whose attention is not known.
    """
    family = family_of(model, METHOD)
    return None if family is UNET else family.prompt


def _check_family(model: Model, hard: bool) -> None:
    family = family_of(model, METHOD)
    if family is UNET:
        check_model(model)
        if hard:
            raise ValueError(
                "hard_until closes the picture's attention to itself in transformers such as Flux or SD 3; this model "
                "is a U-Net. Set hard_until to 0."
            )
    if SOFT in family.refuses:
        raise ValueError(
            f"Soft guidance does not work on {family.name}: {family.refuses[SOFT]}. Use Layered Rendering, which works "
            "with every model."
        )


def check_model(model: Model) -> None:
    """Refuse models without cross-attention to their prompt's tokens.

    Raises:
        ValueError: it is one.
    """
    network = model.get_model_object("diffusion_model")
    # U-Nets of the same class: in video models cross-attention reads a picture, and in upscalers what would be
    # self-attention reads the text too, where nothing is masked.
    is_other = any(
        isinstance(part, SpatialVideoTransformer) or getattr(part, "disable_self_attn", False)
        for part in network.modules()
    )
    if is_other or not has_cross_attention(model):
        raise ValueError(
            "Soft guidance masks the cross-attention of a U-Net (SD 1.x, SD 2.x, SDXL); this model is "
            f"{type(network).__name__}, which mixes text and picture otherwise. Use Layered Rendering, which works "
            "with every model."
        )


def _check_region(region: RegionTokens, prompts: Conditioning) -> None:
    if region.tokens.ndim != 3 or region.mask.ndim != 3:
        raise ValueError(
            f"A region's tokens have the shape {tuple(region.tokens.shape)} and its mask {tuple(region.mask.shape)}; "
            "expected (pictures, tokens, width) and (pictures, height, width)."
        )
    width = region.tokens.shape[-1]
    for text, _ in prompts:
        if text.shape[-1] != width:
            raise ValueError(
                f"A region's tokens have width {width}, but the prompts have {text.shape[-1]}. Make both with the same "
                "checkpoint's text encoder, or with fusers that were trained for this checkpoint's kind."
            )
    if not 0 < region.weight < float("inf"):
        raise ValueError(f"A region has the weight {region.weight:g}; expected a number from 0 on.")
