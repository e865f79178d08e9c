"""Teaches ComfyUI's stock loaders the embedded Sticker World checkpoints: SD 1 and FLUX.1 at a small size."""

from pathlib import Path
from typing import Any, ClassVar

import comfy.latent_formats
import comfy.model_base
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch

CONTEXT = 128
VOCABULARY_SIZE = 49408
TEXT_CONFIG = {
    "num_hidden_layers": 2,
    "hidden_size": CONTEXT,
    "num_attention_heads": 4,
    "intermediate_size": 4 * CONTEXT,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
TABLE = "clip_l.transformer.text_model.embeddings.token_embedding.weight"
TOKEN_IDS = "clip_l.token_ids"
# The U-Net's file; the transformer was trained on the latents of its autoencoder.
WITH_VAE = Path(__file__).parents[2] / "models" / "checkpoints" / "sticker_world.safetensors"


class StickerLatents(comfy.latent_formats.LatentFormat):
    """Unit-scale latents."""

    scale_factor = 1.0
    # For the sampler's live preview: least squares from latents to mean colours of 8 x 8 pixels in -1..1, as
    # `stage.py train export` prints them.
    latent_rgb_factors = [
        [-0.1403, -0.477, -0.3821],
        [0.2424, 0.2231, -0.4093],
        [-0.497, -0.3044, -0.6319],
        [-0.7282, -0.2315, -0.024],
    ]
    latent_rgb_factors_bias = [0.193, 0.1592, 0.2737]


class StickerTextModel(comfy.sd1_clip.SDClipModel):
    """CLIP's text transformer at Sticker World's size."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        model_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=dict(TEXT_CONFIG),
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class StickerClip(comfy.sd1_clip.SD1ClipModel):
    """The checkpoint's text encoder as ComfyUI's CLIP object holds it."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        model_options: dict[str, Any] | None = None,
        **kwargs: object,  # whatever the host's version passes
    ) -> None:
        super().__init__(
            device=device, dtype=dtype, model_options=model_options or {}, clip_model=StickerTextModel, **kwargs
        )


class _Tokens(comfy.sd1_clip.SDTokenizer):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **{**kwargs, "embedding_size": CONTEXT})


class StickerTokenizer(comfy.sd1_clip.SD1Tokenizer):
    """SD 1's tokenizer, expecting textual inversions of width 128."""

    def __init__(
        self,
        embedding_directory: str | list[str] | None = None,
        tokenizer_data: dict[str, Any] | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(embedding_directory, tokenizer_data or {}, tokenizer=_Tokens)


def spread_rows(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Spread the stored rows over CLIP's full token table; every other token gets the `<unk>` row.

    A file that ComfyUI saved has the full table and no `token_ids`; it is left as it is.
    """
    if (token_ids := state_dict.pop(TOKEN_IDS, None)) is not None:
        rows = state_dict[TABLE]
        table = rows[:1].repeat(VOCABULARY_SIZE, 1)
        table[token_ids[1:].long()] = rows[1:]
        state_dict[TABLE] = table
    return state_dict


class _Embedded:
    """What the classes of both embedded checkpoints have in common; stands before ComfyUI's own."""

    unet_config: ClassVar[dict[str, Any]]
    latent_format = StickerLatents

    @classmethod
    def matches(
        cls,
        unet_config: dict[str, Any],
        state_dict: dict[str, Any] | None = None,
        **kwargs: object,
    ) -> bool:
        """Whether the detected configuration is ours; newer hosts pass more keywords."""
        return all(unet_config.get(key) == value for key, value in cls.unet_config.items())

    def clip_target(self, state_dict: dict[str, Any] | None = None) -> comfy.supported_models_base.ClipTarget:
        """Tokenizer and text encoder."""
        return comfy.supported_models_base.ClipTarget(StickerTokenizer, StickerClip)


class StickerWorld(_Embedded, comfy.supported_models.SD15):
    """The model class that the stock detection picks for a U-Net with 64 channels and a context of 128."""

    unet_config = {
        "context_dim": CONTEXT,
        "model_channels": 64,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
    }
    unet_extra_config = {"num_heads": -1, "num_head_channels": 32}

    def model_type(self, state_dict: dict[str, Any], prefix: str = "") -> comfy.model_base.ModelType:
        """Sticker World predicts v."""
        return comfy.model_base.ModelType.V_PREDICTION

    def process_clip_state_dict(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The text encoder's weights by ComfyUI's names, its token table spread over all of CLIP's tokens."""
        return spread_rows(super().process_clip_state_dict(state_dict))


class StickerJoint(_Embedded, comfy.supported_models.Flux):
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
    vae_key_prefix = ["first_stage_model."]
    text_encoder_key_prefix = ["cond_stage_model."]
    memory_usage_factor = 1.0

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


def register_model_class() -> None:
    """Put our classes into ComfyUI's list once: the U-Net's behind the core's, which keep their precedence.

    The transformer's comes before them: FLUX.1-schnell's would take its file. Real Flux files stay the core's.
    """
    models = comfy.supported_models.models
    if StickerWorld not in models:
        models.append(StickerWorld)
    if StickerJoint not in models:
        models.insert(0, StickerJoint)
