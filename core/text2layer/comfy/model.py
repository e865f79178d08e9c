"""Text2Layer files in ComfyUI: where they lie, and their U-Net as an ordinary model for ComfyUI's samplers.

The U-Net is the checkpoint's own architecture on other latents. So ComfyUI's detection says what it is, and its loader
places it; only the latents' preview, the kind of prediction, and what lies below are ours.
"""

from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from ...comfy.named_files import NamedFiles
from ...comfy.sticker_world import register_model_class
from ...comfy.types import Model
from ..autoencoder import LayeredAutoencoder
from ..files import SAFE, Text2LayerFile, Text2LayerFileError, V, read_text2layer
from .vae import LayeredVae

TEXT2LAYER = "text2layer"  # the kind of model folder; the front door adds the embedded one to it
EMBEDDED = "sticker_world_text2layer.safetensors"
BELOW = "concat_latent_image"  # the option of CONDITIONING under which ComfyUI's own nodes put such a latent
MARK = "stagecraft_text2layer."  # among a U-Net's weights: behind it stands what it predicts
PROBES, PROBE_SIDE = 8, 4  # smooth latents that the preview's colours are fitted to, and their cells a side

TEXT2LAYER_FILES = NamedFiles(
    TEXT2LAYER,
    Text2LayerFileError,
    'There is no Text2Layer file "{name}"; found: {found}. Choose one of these, or put yours into models/{kind}.',
    nothing="There is no Text2Layer file yet. Make the embedded one with: python stage.py train text2layer, or put "
    "your own into models/{kind}; then start ComfyUI again.",
    suffixes=SAFE,
    embedded=EMBEDDED,
)


class LayeredLatents(comfy.latent_formats.LatentFormat):
    """Latents of unit variance, as the layered VAE gives them."""

    def __init__(self) -> None:
        # Of this file's own autoencoder, set when it is loaded; ComfyUI reads them for the sampler's live preview.
        self.latent_rgb_factors: list[list[float]] | None = None
        self.latent_rgb_factors_bias: list[float] | None = None


class Text2LayerModel(comfy.model_base.BaseModel):
    """A U-Net that may have as many input channels again, for the latent of what lies below the layer it paints."""

    @property
    def takes_below(self) -> bool:
        """Whether it has them."""
        return self.model_config.unet_config["in_channels"] > self.latent_format.latent_channels

    def extra_conds(self, **kwargs: object) -> dict[str, Any]:
        """What goes to the U-Net besides the latent.

        Raises:
            Text2LayerFileError: prompts of another checkpoint's text encoder.
        """
        text, wanted = kwargs.get("cross_attn"), self.model_config.unet_config.get("context_dim")
        if isinstance(text, Tensor) and wanted and text.shape[-1] != wanted:
            raise Text2LayerFileError(
                f"The prompts have {text.shape[-1]} values for each word; this Text2Layer file reads {wanted}. Connect "
                "the CLIP of the checkpoint that the file was trained from."
            )
        return super().extra_conds(**kwargs)

    def concat_cond(self, noise: Tensor, device: torch.device, **kwargs: object) -> Tensor | None:
        """The latent of what lies below, zeros where nothing is said of it, as half of the training pictures were."""
        if not self.takes_below:
            return None
        below = kwargs.get(BELOW)
        if not isinstance(below, Tensor):
            return torch.zeros_like(noise)
        below = below.to(device)
        if below.shape[1:] != noise.shape[1:]:
            below = comfy.utils.common_upscale(below, noise.shape[-1], noise.shape[-2], "bilinear", "center")
        return comfy.utils.resize_to_batch_size(below, len(noise))


class Text2LayerConfig(comfy.supported_models.SD15):
    """What ComfyUI's loader picks for weights with our mark: the settings of whichever class the U-Net has without."""

    def __init__(self, unet_config: dict[str, Any]) -> None:
        plain = _plain_class(unet_config)
        self.unet_extra_config = plain.unet_extra_config
        self.memory_usage_factor = plain.memory_usage_factor
        super().__init__(unet_config)
        self.latent_format = LayeredLatents()

    @classmethod
    def matches(
        cls,
        unet_config: dict[str, Any],
        state_dict: dict[str, Any] | None = None,
        **kwargs: object,  # newer hosts pass more
    ) -> bool:
        """Whether the weights have our mark."""
        return any(key.startswith(MARK) for key in state_dict or ())

    def get_model(
        self,
        state_dict: dict[str, Any],
        prefix: str = "",
        device: torch.device | str | None = None,
    ) -> Text2LayerModel:
        """Build the model; its weights come afterwards."""
        kinds = comfy.model_base.ModelType
        kind = kinds.V_PREDICTION if MARK + V in state_dict else kinds.EPS
        return Text2LayerModel(self, model_type=kind, device=device)

    def process_unet_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take the mark out again."""
        return {key: value for key, value in state_dict.items() if not key.startswith(MARK)}


def _plain_class(unet_config: dict[str, Any]) -> type:
    """The class of ComfyUI, or the embedded checkpoint's, that has such a U-Net.

    Raises:
        Text2LayerFileError: none does.
    """
    register_model_class()
    for known in comfy.supported_models.models:
        if known is not Text2LayerConfig and known.matches(unet_config):
            return known
    raise Text2LayerFileError(
        "the file's U-Net is none that ComfyUI knows: expected that of SD 1.5, or of the embedded checkpoint"
    )


def load_text2layer(name: str) -> tuple[Model, LayeredVae]:
    """Open a file of the drop-down.

    Returns:
        ComfyUI's ModelPatcher around a `Text2LayerModel`, and the VAE of its latents.

    Raises:
        Text2LayerFileError: it is gone, damaged, or holds something else.
        ImportError: diffusers, whose blocks the autoencoder is built from, is not installed.
    """
    file = read_text2layer(TEXT2LAYER_FILES.require(name))
    autoencoder = LayeredAutoencoder(file.config)
    autoencoder.load_state_dict(file.autoencoder)
    vae = LayeredVae(autoencoder.float(), file.scale, file.shift)
    model = _load_model(name, file)
    factors, bias = _preview_colours(vae)
    latent_format = model.model.latent_format
    latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias = factors, bias
    # How newer versions of ComfyUI make a second copy of the model, for which they need no preview.
    model.cached_patcher_init = (_load_model, (name,))
    return model, vae


def _load_model(name: str, file: Text2LayerFile | None = None, disable_dynamic: bool = False) -> Model:
    file = file or read_text2layer(TEXT2LAYER_FILES.require(name))
    if Text2LayerConfig not in comfy.supported_models.models:
        comfy.supported_models.models.insert(0, Text2LayerConfig)
    weights = file.unet | {MARK + file.prediction: torch.zeros(1, dtype=torch.float16)}
    options = {"disable_dynamic": True} if disable_dynamic else {}
    try:
        model = comfy.sd.load_diffusion_model_state_dict(weights, **options)
    except Exception as error:  # ComfyUI's detection stumbles anywhere over weights of a shape that it does not expect
        raise Text2LayerFileError(f"{name} cannot be used: {error}.") from error
    if model is None or not isinstance(model.model, Text2LayerModel):
        raise Text2LayerFileError(f"{name} cannot be used: ComfyUI does not recognise its U-Net.")
    if missing := sorted(model.model.diffusion_model.state_dict().keys() - file.unet.keys()):
        raise Text2LayerFileError(
            f"{name} lacks {len(missing)} weights of its U-Net, {missing[0]} first. Take the original file."
        )
    model.model.latent_format.latent_channels = file.config.latent_channels
    return model


def _preview_colours(vae: LayeredVae) -> tuple[list[list[float]], list[float]]:
    """Least squares from latents to the composite's mean colour in each cell in -1..1, over smooth random latents."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(PROBES, vae.channels, 2, 2, generator=generator)
    latents = F.interpolate(coarse, (PROBE_SIDE, PROBE_SIDE), mode="bilinear", align_corners=True)
    colours = reduce(
        vae.decode(latents).composite().cpu(), "b c (h p) (w q) -> (b h w) c", "mean", p=vae.cell, q=vae.cell
    )
    inputs = rearrange(latents, "b c h w -> (b h w) c")
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    solution = torch.linalg.lstsq(inputs, 2 * colours - 1).solution
    return solution[:-1].tolist(), solution[-1].tolist()
