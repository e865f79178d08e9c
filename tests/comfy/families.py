"""Checkpoints of six model families at a size that runs on a CPU: ComfyUI's own classes with random weights.

Nothing is imitated but two text encoders: Wan's needs a tokenizer that lies in its checkpoint, and Qwen-Image's carries
a vision tower that has only one size. Text encoders are not what these families are built to test.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.latent_formats
import comfy.ldm.wan.vae
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import comfy.taesd.taesd
import comfy.text_encoders.sd3_clip
import torch
from comfy.ldm.flux.model import FluxParams
from stagecraft.tests.comfy.signatures import accepted

CELL = 8  # pixels per latent cell, in all of these families
WIDTH = 16  # of every text encoder

CLIP_TEXT = {
    "num_hidden_layers": 3,  # SDXL and SD3 read the last but one
    "hidden_size": WIDTH,
    "num_attention_heads": 2,
    "intermediate_size": WIDTH,
    "hidden_act": "quick_gelu",
}
T5_TEXT = {"num_layers": 1, "d_model": WIDTH, "d_ff": WIDTH, "d_kv": 8, "num_heads": 2}
TEXT_SIZES = {"clip_l_model_config": CLIP_TEXT, "clip_g_model_config": CLIP_TEXT, "t5xxl_model_config": T5_TEXT}
POOLED = WIDTH  # each of the two CLIPs gives as much

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [0, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1],
    "use_spatial_transformer": True,
    "legacy": False,
}
POSITIONS = 8  # sides of SD3's table of positions, in patches
NETWORKS = {
    "SD15": UNET | {"context_dim": WIDTH},
    "SDXL": UNET
    | {
        "context_dim": 2 * WIDTH,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": POOLED + 6 * 256,  # six sizes and offsets beside the text
    },
    "SD3": {
        "depth": 1,
        "input_size": None,
        "in_channels": 16,
        "out_channels": 16,
        "adm_in_channels": 2 * POOLED,
        "context_embedder_config": {
            "target": "torch.nn.Linear",
            "params": {"in_features": 4096, "out_features": 64},  # ComfyUI pads both CLIPs to 4096
        },
        "num_patches": POSITIONS**2,
        "pos_embed_max_size": POSITIONS,
        "qk_norm": "rms",
    },
    "Flux": {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "vec_in_dim": POOLED,
        "context_in_dim": WIDTH,
        "hidden_size": 32,
        "mlp_ratio": 2.0,
        "num_heads": 2,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [4, 6, 6],
        "theta": 10000,
        "patch_size": 2,
        "qkv_bias": True,
        "guidance_embed": True,
        **accepted(FluxParams, txt_ids_dims=[]),
    },
    "QwenImage": {
        "image_model": "qwen_image",
        "in_channels": 64,
        "num_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "axes_dims_rope": (4, 6, 6),
    },
    "WAN21_T2V": {
        "image_model": "wan2.1",
        "model_type": "t2v",
        "dim": 24,
        "ffn_dim": 48,
        "freq_dim": 32,
        "text_dim": WIDTH,
        "num_heads": 2,
        "num_layers": 1,
    },
}
FAMILIES = tuple(NETWORKS)


def fill(module: torch.nn.Module, seed: int) -> None:
    """Give a module weights that keep the size of what goes through it; ComfyUI's own layers start with none."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if name.endswith(".gamma") or weight.ndim < 2:
            noise = 0.1 * noise + (1.0 if name.endswith(("weight", "scale", "gamma")) else 0.0)
        else:
            noise = noise / weight[0].numel() ** 0.5
        weight.data.copy_(noise)


class FixedText:
    """Stands where a text encoder would: every prompt has one embedding (1 t c), drawn at random from its letters.

    Args:
        tokens: how many of them every prompt has; None: as many as words, like Qwen-Image's, which pads nothing.
    """

    def __init__(self, tokens: int | None) -> None:
        self.tokens = tokens

    def tokenize(self, text: str) -> list[str]:
        """Split at spaces."""
        return text.split()

    def encode_from_tokens_scheduled(self, words: list[str]) -> list[list[Any]]:
        """Give the words' CONDITIONING."""
        generator = torch.Generator().manual_seed(zlib.crc32(" ".join(words).encode()))
        return [[torch.randn(1, self.tokens or 1 + len(words), WIDTH, generator=generator), {}]]


class RememberingVAE(comfy.sd.VAE):
    """ComfyUI's VAE that encodes the same picture only once: the tests ask for the same few colours over and over."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """As `comfy.sd.VAE` does."""
        key = (pixels.shape, pixels.numpy().tobytes())
        if key not in self.__dict__.setdefault("remembered", {}):
            self.remembered[key] = super().encode(pixels)
        return self.remembered[key].clone()


@dataclass(frozen=True)
class Family:
    """A checkpoint as ComfyUI's loaders give it.

    Attributes:
        name: of its class in `comfy.supported_models`.
        model: ComfyUI's ModelPatcher.
        clip: what encodes prompts.
        vae: ComfyUI's VAE, of the model's own latent channels.
        frames: sizes of the latent between channels and rows; () for pictures.
    """

    name: str
    model: Any
    clip: Any
    vae: Any
    frames: tuple[int, ...]

    def latent(self, height: int, width: int, batch: int = 1) -> torch.Tensor:
        """Give an empty latent, (b c h w) or (b c t h w)."""
        channels = self.model.get_model_object("latent_format").latent_channels
        return torch.zeros(batch, channels, *self.frames, height, width)


def build_family(name: str) -> Family:
    """Build a small checkpoint of one of `FAMILIES`."""
    config = getattr(comfy.supported_models, name)({**NETWORKS[name], "dtype": torch.float32})
    model = config.get_model({}, "", device="cpu")
    fill(model.diffusion_model, 1)
    if name == "SD3":  # a table that is no parameter, and that ComfyUI leaves without values
        model.diffusion_model.pos_embed.copy_(0.3 * torch.randn(1, POSITIONS**2, 64, generator=_generator(5)))
    cpu = torch.device("cpu")
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)
    frames = {"QwenImage": (1,), "WAN21_T2V": (3,)}.get(name, ())
    return Family(name, patcher, _TEXTS[name](config), _vae(config.latent_format), frames)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _own_text(config: comfy.supported_models_base.BASE) -> comfy.sd.CLIP:
    return _small_clip(config.clip_target({}))


def _sd3_text(config: comfy.supported_models_base.BASE) -> comfy.sd.CLIP:
    """As from a file with both CLIPs but no T5, which may be left out."""
    parts = {f"text_encoders.clip_{part}.transformer.text_model.final_layer_norm.weight": None for part in "lg"}
    return _small_clip(config.clip_target(parts))


def _small_clip(target: comfy.supported_models_base.ClipTarget) -> comfy.sd.CLIP:
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32, **TEXT_SIZES})
    fill(clip.cond_stage_model, 2)
    return clip


_TEXTS: dict[str, Callable[[comfy.supported_models_base.BASE], comfy.sd.CLIP | FixedText]] = {
    "SD15": _own_text,
    "SDXL": _own_text,
    "SD3": _sd3_text,
    "Flux": _own_text,
    "QwenImage": lambda config: FixedText(None),
    "WAN21_T2V": lambda config: FixedText(8),
}


def _vae(latent_format: comfy.latent_formats.LatentFormat) -> RememberingVAE:
    """TAESD's format for pictures; for 5-D latents Wan's own autoencoder, whose width ComfyUI reads from the file."""
    if latent_format.latent_dimensions == 3:
        small = comfy.ldm.wan.vae.WanVAE(dim=4, z_dim=16, temperal_downsample=[False, True, True])
    else:
        small = comfy.taesd.taesd.TAESD(latent_channels=latent_format.latent_channels)
    fill(small, 3)
    return RememberingVAE(sd=small.state_dict())
