"""A checkpoint as ComfyUI loads it, frozen, for training what is added to its U-Net.

The U-Net's encoder and middle give no gradients to the context, as published for Compose and Conquer.
"""

from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.sd
import torch
from comfy.ldm.modules.attention import attention_pytorch
from einops import rearrange
from torch import Tensor

from ...comfy.sticker_world import register_model_class
from ...soft_guidance.soft_guidance import SoftGuidance
from ..config import FuserConfig

PREDICTIONS = (comfy.model_base.ModelType.EPS, comfy.model_base.ModelType.V_PREDICTION)


class CheckpointError(ValueError):
    """A file that is no checkpoint that can be trained around; the message says what to give instead."""


class FrozenCheckpoint:
    """Autoencoder, text encoder and U-Net of a checkpoint, in float32, on ComfyUI's device.

    Attributes:
        device: where the U-Net computes.
        shapes: ComfyUI's settings of the U-Net.
        config: shapes of a local fuser for this U-Net, with the published extractors.
        predicts_velocity: whether the U-Net predicts v, not the noise.
        alphas: cumulative alphas of its time steps (1000).
    """

    def __init__(self, path: Path) -> None:
        """Load a checkpoint.

        Args:
            path: one file with U-Net, text encoder and autoencoder, as *Load Checkpoint* opens it.

        Raises:
            CheckpointError: another kind of file, or a model without SD 1's U-Net.
        """
        register_model_class()
        wanted = f"Give a checkpoint of SD 1.5 or a finetune of it, or the embedded one, not {path.name}."
        try:
            loaded = comfy.sd.load_checkpoint_guess_config(
                str(path), embedding_directory=None, model_options={"dtype": torch.float32}
            )
        except (RuntimeError, OSError) as error:
            raise CheckpointError(f"ComfyUI cannot open the checkpoint ({error}). {wanted}") from error
        self._patcher, self._clip, self._vae = loaded[:3]
        if self._clip is None:
            raise CheckpointError(f"There is no text encoder in the file. {wanted}")
        model = self._patcher.model
        shapes = model.model_config.unet_config
        if not _is_sd1(shapes) or model.model_type not in PREDICTIONS:
            raise CheckpointError(f"The model is not built like SD 1. {wanted}")
        model.requires_grad_(False).eval()
        self.shapes = dict(shapes)
        self.config = _fuser_config(shapes)
        self.device = self._patcher.load_device
        self.predicts_velocity = model.model_type == comfy.model_base.ModelType.V_PREDICTION
        self.alphas = 1 / (1 + model.model_sampling.sigmas.float().square())
        network = model.diffusion_model
        parts = (("input", len(network.input_blocks)), ("middle", 1), ("output", len(network.output_blocks)))
        self._blocks = [(part, number) for part, count in parts for number in range(count)]

    def ldm_weights(self) -> dict[str, Tensor]:
        """The U-Net's weights by their original (ldm) names."""
        return self._patcher.model.diffusion_model.state_dict()

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (b 3 h w) in 0..1 -> latents (b 4 h/8 w/8) at the U-Net's scale, on the CPU."""
        latents = self._vae.encode(rearrange(pictures, "b c h w -> b h w c"))
        return self._patcher.model.process_latent_in(latents).float().cpu()

    @torch.no_grad()
    def read(self, captions: list[str]) -> Tensor:
        """Captions, of which the first 75 tokens count and brackets mean nothing -> (b 77 d), on the CPU."""
        read = []
        for caption in captions:
            tokens = self._clip.tokenize(caption, disable_weights=True)
            read.append(self._clip.encode_from_tokens({name: chunks[:1] for name, chunks in tokens.items()}))
        return torch.cat(read).float().cpu()

    def prepare(self) -> None:
        """Bring the U-Net to its device; encoders that were used before may leave it."""
        comfy.model_management.load_models_gpu([self._patcher], force_full_load=True)

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        residuals: tuple[list[Tensor], Tensor] | None,
        guidance: SoftGuidance | None,
    ) -> Tensor:
        """The U-Net's prediction: x (b 4 h w), t (b), context (b n d), a local fuser's residuals -> (b 4 h w)."""

        def look(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
            return attention_pytorch(q, k, v, options["n_heads"])

        def read(q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]) -> Tensor:
            if options["block"][0] != "output":
                k, v = k.detach(), v.detach()
            grid = tuple(options["activations_shape"][-2:])
            bias = None if guidance is None else guidance.bias(grid, k.shape[1], q)
            return attention_pytorch(q, k, v, options["n_heads"], mask=bias)

        replaced = {"attn1": dict.fromkeys(self._blocks, look), "attn2": dict.fromkeys(self._blocks, read)}
        control = None if residuals is None else {"output": list(residuals[0]), "middle": [residuals[1]]}
        network = self._patcher.model.diffusion_model
        return network(x, t, context=context, control=control, transformer_options={"patches_replace": replaced})


def _is_sd1(shapes: dict[str, Any]) -> bool:
    """Whether a U-Net has SD 1's transformers: one deep, between convolutions, and nothing but a text as context."""
    depths = shapes.get("transformer_depth")
    return (
        depths is not None
        and max(depths) == 1
        and not shapes.get("use_linear_in_transformer")
        and shapes.get("adm_in_channels") is None
        and shapes.get("in_channels") == 4
    )


def _fuser_config(shapes: dict[str, Any]) -> FuserConfig:
    published = FuserConfig()
    blocks = shapes["num_res_blocks"]
    per_level = blocks if isinstance(blocks, int) else blocks[0]
    levels = len(shapes["channel_mult"])
    depths = shapes["transformer_depth"]
    per_head = max(shapes.get("num_head_channels") or 0, 0)
    config = FuserConfig(
        model_channels=shapes["model_channels"],
        channel_mult=tuple(shapes["channel_mult"]),
        num_res_blocks=per_level,
        attention_levels=tuple(level for level in range(levels) if depths[level * per_level]),
        num_heads=published.num_heads if per_head else shapes["num_heads"],
        num_head_channels=per_head,
        context_dim=shapes["context_dim"],
        stage_widths=published.stage_widths[:levels],
    )
    if problem := config.matches(shapes):
        raise CheckpointError(problem)
    return config
