"""taming-transformers' weights of a VQGAN by the names of diffusers' VQModel, and its configuration from their shapes.

Esser et al., Taming Transformers for High-Resolution Image Synthesis (arXiv 2012.09841); the published checkpoints.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .vqgan import CONFIG, WEIGHTS, VQGANFileError, Weights

BOOK = "quantize.embedding.weight"
GUMBEL_BOOK = "quantize.embed.weight"
PART_OF_NET2NET = "first_stage_model."
GROUPS = 32  # of taming's group normalisation, at every width
MODEL_PARTS = ("encoder.", "decoder.", "quantize.", "quant_conv.", "post_quant_conv.")

# taming-transformers' names -> diffusers'; the rules are applied one after another.
RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^encoder\.down\.(\d+)\.", r"encoder.down_blocks.\1."),
        (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
        (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        (r"\.block\.(\d+)\.", r".resnets.\1."),
        (r"\.attn\.(\d+)\.", r".attentions.\1."),
        (r"\.(down|up)sample\.conv\.", r".\1samplers.0.conv."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"\.norm_out\.", ".conv_norm_out."),
        (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
        (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
        (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
    )
)


def from_taming(weights: Mapping[str, Tensor], name: str) -> tuple[dict[str, Any], Weights]:
    """Map weights by taming-transformers' names onto diffusers' VQModel.

    The published `.yaml` says nothing that the weights do not show: widths, blocks per level, which levels have
    attention, and the code-book.

    Args:
        weights: other weights than the model's, such as the discriminator's, are left out.
        name: the file's, for errors.

    Returns:
        VQModel's configuration, and the weights by its names.

    Raises:
        VQGANFileError: not a VQGAN, or one with another way to quantise.
    """
    found = model_weights(weights, name)
    try:
        config = _config_of(found)
    except KeyError as error:
        raise VQGANFileError(f"{name} is damaged, or no VQGAN: the weight {error.args[0]} is missing.") from error
    levels = len(config["block_out_channels"])
    return config, {diffusers_name(key, levels): _as_linear(key, value) for key, value in found.items()}


def model_weights(weights: Mapping[str, Tensor], name: str) -> Weights:
    """The model's weights alone, by taming-transformers' names.

    Raises:
        VQGANFileError: not a VQGAN, or one with another way to quantise.
    """
    if PART_OF_NET2NET + BOOK in weights:  # a transformer's checkpoint with its VQGAN in it
        part = len(PART_OF_NET2NET)
        weights = {key[part:]: value for key, value in weights.items() if key.startswith(PART_OF_NET2NET)}
    if GUMBEL_BOOK in weights:
        raise VQGANFileError(
            f"{name} is a VQGAN with Gumbel quantisation, which finds its codes in another way. Choose one with "
            "a nearest-code book, such as vqgan_imagenet_f16_16384."
        )
    if BOOK not in weights:
        raise VQGANFileError(
            f"{name} is no VQGAN: it has no code-book ({BOOK}). Choose a checkpoint of taming-transformers, or a "
            "folder of diffusers' VQModel."
        )
    found = {key: value for key, value in weights.items() if key.startswith(MODEL_PARTS)}
    if any(key.startswith("encoder.down_blocks.") for key in found):
        raise VQGANFileError(
            f"{name} has diffusers' names, which do not show the whole configuration. Put it with its {CONFIG} into a "
            f"folder in models/vqgan, as {WEIGHTS}."
        )
    return found


def diffusers_name(name: str, levels: int) -> str:
    """What diffusers' VQModel calls a weight of taming-transformers; it counts the decoder's levels from below.

    Args:
        name: taming-transformers'.
        levels: how many there are.
    """
    if up := re.match(r"decoder\.up\.(\d+)\.", name):
        name = f"decoder.up_blocks.{levels - 1 - int(up[1])}.{name[up.end() :]}"
    for pattern, replacement in RULES:
        name = pattern.sub(replacement, name)
    return name


def _as_linear(name: str, weight: Tensor) -> Tensor:
    """Attention's 1 x 1 convolutions are linear layers in diffusers."""
    is_attention = re.search(r"\.attn(_1|\.\d+)\.(q|k|v|proj_out)\.weight$", name)
    return weight.flatten(1) if is_attention else weight


def _config_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """VQModel's configuration from the weights' names and shapes."""

    def count(pattern: str) -> int:
        return len({found[1] for key in weights if (found := re.match(pattern, key))})

    levels, blocks = count(r"encoder\.down\.(\d+)\."), count(r"encoder\.down\.0\.block\.(\d+)\.")
    widths = [weights[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in range(levels)]
    attends = [f"encoder.down.{level}.attn.0.norm.weight" in weights for level in range(levels)]
    return {
        "in_channels": weights["encoder.conv_in.weight"].shape[1],
        "out_channels": weights["decoder.conv_out.weight"].shape[0],
        "down_block_types": ["AttnDownEncoderBlock2D" if each else "DownEncoderBlock2D" for each in attends],
        "up_block_types": ["AttnUpDecoderBlock2D" if each else "UpDecoderBlock2D" for each in reversed(attends)],
        "block_out_channels": widths,
        "layers_per_block": blocks,
        "latent_channels": weights["encoder.conv_out.weight"].shape[0],
        "num_vq_embeddings": weights[BOOK].shape[0],
        "vq_embed_dim": weights[BOOK].shape[1],
        "norm_num_groups": GROUPS,
        "mid_block_add_attention": "encoder.mid.attn_1.norm.weight" in weights,
    }
