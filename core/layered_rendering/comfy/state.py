"""How large the states of ComfyUI's samplers are, in the units that vision guidance is measured in."""

from torch import Tensor

from ...comfy.sampling import signal_and_noise
from ...comfy.types import ModelSampling
from ..vision_guidance import state_scale


def scale_of_state(sampling: ModelSampling, x: Tensor, sigma: Tensor) -> Tensor:
    """`state_scale` of every row, (b 1 1 ...), from how a model's sampling mixes data and noise.

    Args:
        sampling: ComfyUI's model_sampling.
        x: (b c ...), for shape and type.
        sigma: (b).
    """
    signal, noise = signal_and_noise(sampling, x, sigma)
    return state_scale(signal, noise, float(getattr(sampling, "sigma_data", 1.0)))
