"""Teaches ComfyUI's stock loaders the embedded transformer: FLUX.1's architecture at a small size."""

from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch

from .sticker_world import CONTEXT, StickerClip, StickerLatents, StickerTokenizer, spread_rows

CHECKPOINTS = Path(__file__).parents[2] / "models" / "checkpoints"
WITH_VAE = CHECKPOINTS / "sticker_world.safetensors"  # the U-Net's file, whose latents the transformer was trained on


class StickerJoint(comfy.supported_models.Flux):
    """The model class for a Flux of 192 channels, 4 latent channels and a text of width 128.

    ComfyUI's detection sets what it cannot see in a file to FLUX.1's own values; `unet_extra_config` sets them right.
    """

    unet_config = {
        "image_model": "flux",
        "guidance_embed": False,
        "in_channels": 4,
        "hidden_size": 192,
        "context_in_dim": CONTEXT,
        "vec_in_dim": CONTEXT,
    }
    unet_extra_config = {"num_heads": 6, "axes_dim": [8, 12, 12], "out_channels": 4}
    sampling_settings = {"multiplier": 1.0, "shift": 1.0}
    latent_format = StickerLatents
    vae_key_prefix = ["first_stage_model."]
    text_encoder_key_prefix = ["cond_stage_model."]
    memory_usage_factor = 1.0

    @classmethod
    def matches(
        cls,
        unet_config: dict[str, Any],
        state_dict: dict[str, Any] | None = None,
        **kwargs: object,
    ) -> bool:
        """Whether the detected configuration is ours; newer hosts pass more keywords."""
        return all(unet_config.get(key) == value for key, value in cls.unet_config.items())

    def get_model(
        self, state_dict: dict[str, torch.Tensor], prefix: str = "", device: torch.device | str | None = None
    ) -> comfy.model_base.Flux:
        """ComfyUI's Flux, sampled by plain flow matching: time is sigma, 0..1."""
        return comfy.model_base.Flux(self, model_type=comfy.model_base.ModelType.FLOW, device=device)

    def process_clip_state_dict(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The text encoder's weights by ComfyUI's names, its token table spread over all of CLIP's tokens."""
        prefix = {self.text_encoder_key_prefix[0]: "clip_l."}
        return spread_rows(comfy.utils.state_dict_prefix_replace(state_dict, prefix, filter_keys=True))

    def process_clip_state_dict_for_saving(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The names of the file again."""
        kept = {key: value for key, value in state_dict.items() if key.startswith("clip_l.transformer.text_model.")}
        return comfy.utils.state_dict_prefix_replace(kept, {"clip_l.": self.text_encoder_key_prefix[0]})

    def process_vae_state_dict(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A file without a VAE shares the one in the U-Net's file."""
        if state_dict or not WITH_VAE.is_file():
            return state_dict
        weights = comfy.utils.load_torch_file(str(WITH_VAE), safe_load=True)
        return comfy.utils.state_dict_prefix_replace(weights, {self.vae_key_prefix[0]: ""}, filter_keys=True)

    def clip_target(self, state_dict: dict[str, Any] | None = None) -> comfy.supported_models_base.ClipTarget:
        """Tokenizer and text encoder."""
        return comfy.supported_models_base.ClipTarget(StickerTokenizer, StickerClip)


def register_joint_class() -> None:
    """Put our class before ComfyUI's once: FLUX.1-schnell's would take the file first. Theirs keep their own files."""
    if StickerJoint not in comfy.supported_models.models:
        comfy.supported_models.models.insert(0, StickerJoint)
