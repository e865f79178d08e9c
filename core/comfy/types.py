"""ComfyUI's things by the names that signatures of this pack give them."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from comfy.clip_vision import ClipVisionModel as ClipVision
from comfy.clip_vision import Output as ClipVisionOutput
from comfy.latent_formats import LatentFormat
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher as Model
from comfy.patcher_extension import WrapperExecutor as Executor
from comfy.patcher_extension import WrappersMP as Wrappers
from comfy.samplers import CFGGuider as Guider
from comfy.samplers import KSamplerX0Inpaint as Denoiser  # the model as a sampler's function calls it
from comfy.samplers import Sampler
from comfy.sd import CLIP as Clip
from comfy.sd import VAE as Vae
from comfy.sd import StyleModel
from torch import Tensor

__all__ = [
    "BaseModel",
    "Callback",
    "Clip",
    "ClipVision",
    "ClipVisionOutput",
    "Conditioning",
    "Denoiser",
    "Entry",
    "Executor",
    "Guider",
    "LatentFormat",
    "Model",
    "ModelSampling",
    "Options",
    "Sampler",
    "StyleModel",
    "Vae",
    "Wrappers",
]

Options: TypeAlias = dict[str, Any]  # of a model or of a prompt: any pack's values under any pack's keys
Entry: TypeAlias = dict[str, Any]  # of a prompt, as samplers hold it: its options, its embedding among them
Conditioning: TypeAlias = list[list[Any]]  # as nodes hold it: pairs of an embedding (b t d) and its options
Callback: TypeAlias = Callable[[int, Tensor, Tensor, int], None]  # step, clean prediction, state, steps


class ModelSampling(Protocol):
    """How a model's states mix data and noise, whatever class of ComfyUI's says it."""

    sigma_min: Tensor
    sigma_max: Tensor

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """The state at a noise level."""

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """The state as the network sees it."""

    def timestep(self, sigma: Tensor) -> Tensor:
        """The time step of a noise level."""

    def percent_to_sigma(self, percent: float) -> float:
        """The noise level at a share of the run."""
