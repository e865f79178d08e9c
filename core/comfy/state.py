"""How the states of ComfyUI's samplers mix data and noise."""

import torch
from torch import Tensor

from .types import ModelSampling


def signal_and_noise(sampling: ModelSampling, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Shares a and b of states a x0 + b eps, as a model's own sampling mixes them.

    Args:
        sampling: ComfyUI's model_sampling.
        x: (b c ...), for shape and type.
        sigma: (b), noise levels as samplers count them.

    Returns:
        (b 1 1 ...) each: 1 and sigma of eps and v models, 1 - sigma and sigma of flows.
    """
    one = x.new_ones((len(x),) + (1,) * (x.ndim - 1))
    zero = torch.zeros_like(one)
    return sampling.noise_scaling(sigma, zero, one), sampling.noise_scaling(sigma, one, zero)
