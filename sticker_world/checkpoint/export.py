"""From training weights to the shipped checkpoint: one file in the SD layout, in fp16."""

import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..world.vocabulary import vocabulary
from .autoencoder import widen

LAYERS_PER_BLOCK = 1
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_FIXED = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_PART = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)")


def _resnet_name(rest: str) -> str:
    layer, kind = rest.rsplit(".", 1)
    return f"{_RESNET[layer]}.{kind}"


def _ldm_name(key: str, attention_at: set[str]) -> str:
    """The original (ldm) name of a diffusers U-Net weight.

    Args:
        key: a name in `UNet2DConditionModel.state_dict()`.
        attention_at: the `up_blocks.N` that hold attention; there an upsampler comes third, else second.
    """
    per_block = LAYERS_PER_BLOCK + 1
    if found := _PART.fullmatch(key):
        way, block, kind, index = found[1], int(found[2]), found[3], int(found[4])
        rest = found[5]
        if kind == "downsamplers":
            return f"input_blocks.{per_block * (block + 1)}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            place = 2 if f"up_blocks.{block}" in attention_at else 1
            return f"output_blocks.{per_block * block + LAYERS_PER_BLOCK}.{place}.{rest}"
        number = 1 + per_block * block + index if way == "down" else per_block * block + index
        stem = f"{'input' if way == 'down' else 'output'}_blocks.{number}"
        return f"{stem}.0.{_resnet_name(rest)}" if kind == "resnets" else f"{stem}.1.{rest}"
    if found := _MIDDLE.fullmatch(key):
        kind, index, rest = found[1], int(found[2]), found[3]
        return f"middle_block.{2 * index}.{_resnet_name(rest)}" if kind == "resnets" else f"middle_block.1.{rest}"
    layer, kind = key.rsplit(".", 1)
    return f"{_FIXED[layer]}.{kind}"


def ldm_names(keys: Iterable[str]) -> dict[str, str]:
    """The original (ldm) names, as SD checkpoints use them, of all weights of a diffusers U-Net."""
    keys = list(keys)
    attention_at = {".".join(key.split(".")[:2]) for key in keys if key.startswith("up_") and ".attentions." in key}
    return {key: _ldm_name(key, attention_at) for key in keys}


def _write(out: dict[str, Tensor], text: dict[str, Tensor], path: Path) -> None:
    """Write a checkpoint's weights and its text encoder in half precision.

    The text table has only the known words' rows, and `token_ids` says which CLIP ids they are.
    """
    prefix = "cond_stage_model.transformer.text_model."
    out |= {prefix + key.removeprefix("text_model."): value for key, value in text.items() if "position_ids" not in key}
    halves = {key: value.to(torch.float16).contiguous() for key, value in out.items()}
    halves["cond_stage_model.token_ids"] = torch.tensor(vocabulary().token_ids, dtype=torch.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(halves, path, metadata={"format": "pt", "stagecraft": "sticker_world"})


def _part(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}


def export_checkpoint(
    diffusion: dict[str, Tensor], autoencoder: dict[str, Tensor], latent_stats: tuple[float, float], path: Path
) -> None:
    """Write U-Net, text encoder and autoencoder as one SD-layout safetensors.

    Args:
        diffusion: averaged weights of `StickerDiffusion`.
        autoencoder: averaged narrow weights of `Autoencoder`.
        latent_stats: mean and standard deviation of the encoder's raw output; the file's own scale makes latents unit.
        path: the file.
    """
    unet = _part(diffusion, "unet")
    out = {f"model.diffusion_model.{name}": unet[key] for key, name in ldm_names(unet).items()}
    out |= {f"first_stage_model.{key}": value for key, value in widen(autoencoder).items()}
    mean, std = latent_stats
    out["first_stage_model.vae_scale"] = torch.tensor(std)  # stock TAESD: latent = encoder(x) / scale + shift
    out["first_stage_model.vae_shift"] = torch.tensor(-mean / std)
    _write(out, _part(diffusion, "text"), path)


def export_transformer(weights: dict[str, Tensor], path: Path) -> None:
    """Write transformer and text encoder as one safetensors by FLUX.1's names.

    Args:
        weights: averaged weights of `TaughtTransformer`.
        path: the file. It has no autoencoder; the embedded one is in the U-Net's file.
    """
    out = {f"model.diffusion_model.{key}": value for key, value in _part(weights, "transformer").items()}
    _write(out, _part(weights, "text"), path)
