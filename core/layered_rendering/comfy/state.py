"""How large the states of ComfyUI's samplers are, in the units that vision guidance is measured in."""

import torch
from torch import Tensor

from ...comfy.types import ModelSampling
from ..vision_guidance import state_scale


def scale_of_state(sampling: ModelSampling, x: Tensor, sigma: Tensor) -> Tensor:
    """`state_scale` of every row, (b 1 1 ...), from how a model's sampling mixes data and noise.

    Args:
        sampling: ComfyUI's model_sampling.
        x: (b c ...), for shape and type.
        sigma: (b).
    """
    one = x.new_ones((len(x),) + (1,) * (x.ndim - 1))
    zero = torch.zeros_like(one)
    signal, noise = sampling.noise_scaling(sigma, zero, one), sampling.noise_scaling(sigma, one, zero)
    return state_scale(signal, noise, float(getattr(sampling, "sigma_data", 1.0)))
