"""Vision guidance of LRDiff (Layered Rendering Diffusion, arXiv 2311.18435).

Every layer's evaluation sees the shared noisy latent plus a constant vector inside the layer's mask and minus it
outside, so the model is inclined to draw there what the layer asks for, and nowhere else. The vector is taken off the
prediction again, so it steers without being painted.
"""

import torch
from einops import einsum, rearrange
from torch import Tensor


def vision_guidance(delta: Tensor, mask: Tensor) -> Tensor:
    """Xi of Eq. 5: +delta inside the mask, -delta outside; in between for soft masks.

    Args:
        delta: (c), one latent vector in the model's own latent space (unit-variance data).
        mask: (h w) in 0..1, the region's own mask in latent cells, hidden parts included.

    Returns:
        (c h w), in units of the variance-preserving state x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps.
    """
    return einsum(delta, 2 * mask - 1, "c, h w -> c h w")


def state_scale(signal: Tensor, noise: Tensor, data_deviation: float = 1.0) -> Tensor:
    """How many times larger a sampler's state is than the variance-preserving one that xi is measured in.

    A state x = signal * x_0 + noise * eps is the variance-preserving state times this factor, so xi times this factor
    is what has to be added to x. For signal = 1 and noise = sigma it is sqrt(sigma^2 + 1).

    reconstructed: the paper knows only the variance-preserving state. A flow model's x = (1 - t) x_0 + t eps is the
    same process up to this factor, sqrt((1 - t)^2 + t^2), which is 1 at both ends. Where the data has another deviation
    than 1 (EDM), x and xi are measured in it.

    Args:
        signal: factor of x_0 in the state, any shape.
        noise: factor of eps in the state, same shape.
        data_deviation: standard deviation that the model assumes of x_0.

    Returns:
        Same shape as signal.
    """
    return torch.sqrt(signal**2 + (noise / data_deviation) ** 2)


def fused_prediction(denoised: Tensor, offsets: Tensor, visible: Tensor) -> Tensor:
    """Fuse the layers' predictions into one for the unperturbed state: D = sum_i Mbar_i (D_i - Delta_i).

    reconstructed: Eq. 7 and 8 of the paper were not legible in any source. Each layer is evaluated at x + Delta_i with
    its own caption, what the network gives out is cut by the layers' visible masks and summed, and that sum moves the
    unperturbed x. In terms of clean predictions D = x - sigma * output this is the formula above: without the second
    term xi would be painted into the picture. A flow model's velocities fuse by the same formula.

    Args:
        denoised: (n b c h w), every layer's clean prediction at its own perturbed state x + Delta_i.
        offsets: (n c h w), Delta_i = xi_i * `state_scale`; zero for a layer without guidance.
        visible: (n h w), a partition of unity.

    Returns:
        (b c h w).
    """
    unperturbed = denoised - rearrange(offsets, "n c h w -> n 1 c h w")
    return einsum(unperturbed, visible, "n b c h w, n h w -> b c h w")
