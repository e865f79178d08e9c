"""Inversion: from a picture back along the probability-flow ODE to the noise that a sampler would paint it from.

States are those of ComfyUI's and k-diffusion's samplers: x = x_0 + sigma eps for eps and v models, and
x = (1 - sigma) x_0 + sigma eps for flow models. In both, dx/dsigma = (x - D(x, sigma)) / sigma with D the network's
clean prediction, so one function serves all of them.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]  # x (b ...), sigma () -> clean prediction (b ...)
Report = Callable[[int, Tensor, Tensor], None]  # number of the step, clean prediction, state
Rescale = Callable[[Tensor, Tensor], Tensor]  # sigma, sigma' -> factor ()

# reconstructed: where inversion starts is not in any source. The slope needs a sigma above 0; at this one the picture
# and its state differ by less than a float16 can tell.
SMALLEST_SIGMA = 1e-4
BEST_PSNR = 100.0  # dB; what equal pictures are given instead of infinity, which no JSON knows


def rising_sigmas(sigmas: Tensor) -> Tensor:
    """Turn a sampler's noise levels round, so that an inversion passes through the levels that the sampler will visit.

    Args:
        sigmas: (s), falling, the last may be 0.

    Returns:
        (s) or (s+1), rising, beginning with a small positive one in place of 0.

    Raises:
        ValueError: noise levels that do not fall, or fewer than two.
    """
    rising = sigmas.flip(0)
    _check_rising(rising)
    if rising[0] <= SMALLEST_SIGMA:
        rising = rising[1:]
    return torch.cat([torch.clamp(rising[:1] / 2, max=SMALLEST_SIGMA), rising])


def invert(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    refinements: int = 0,
    report: Report | None = None,
    rescale: Rescale | None = None,
) -> Tensor:
    """Follow the probability-flow ODE to rising noise levels with Euler steps (DDIM inversion).

    A step is x' = x + (sigma' - sigma) s with the slope s = (x - D(x, sigma)) / sigma; Euler's and DDIM's step are the
    same. What differs is where the slope is taken. Without refinements and without `rescale` it is taken where the step
    departs (explicit Euler; Song et al., arXiv 2010.02502, Eq. 13 backwards). With `rescale` the network sees the state
    that departs but is told the noise level that the step arrives at, as prompt-to-prompt's and diffusers' DDIM
    inversion have it. With refinements it is taken where the step arrives, found by that many fixed-point iterations
    (implicit Euler), from the slope of the step before or from the one that `rescale` gives: an Euler sampler that goes
    back on the same levels takes its slope there too, so it returns to the start, the more exactly the more
    iterations. For an exact D the iteration contracts by 1 - sigma / sigma' or better.

    Args:
        denoise: the network's clean prediction.
        x: (b ...), the picture's latent in the model's own scale.
        sigmas: (s), rising, all above 0; see `rising_sigmas`.
        refinements: 0 costs s - 1 evaluations, n > 0 costs n (s - 1) + 1, or (n + 1) (s - 1) with `rescale`.
        report: called after every step.
        rescale: (sigma, sigma') -> factor by which the state of one level becomes the state of the other with the same
            network input; None takes the slope where the step departs.

    Returns:
        (s b ...), the state at every noise level, x first.

    Raises:
        ValueError: noise levels that do not rise or are not all above 0.
    """
    _check_rising(sigmas)
    if sigmas[0] <= 0:
        raise ValueError(f"Inversion starts at sigma {float(sigmas[0]):g}; expected a small one above 0, such as 1e-4.")
    states = [x]
    for number, (sigma, following) in enumerate(pairwise(sigmas)):
        departing = states[-1]
        if rescale is not None:
            clean, slope = _slope(denoise, rescale(sigma, following) * departing, following)
        elif number == 0 or refinements == 0:
            clean, slope = _slope(denoise, departing, sigma)
        x = departing + (following - sigma) * slope
        for _ in range(refinements):
            clean, slope = _slope(denoise, x, following)
            x = departing + (following - sigma) * slope
        states.append(x)
        if report is not None:
            report(number, clean, x)
    return torch.stack(states)


def _slope(denoise: Denoiser, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    clean = denoise(x, sigma)
    return clean, (x - clean) / sigma


def renormalised(state: Tensor, size: Tensor) -> Tensor:
    """Give every picture's state mean 0 and the deviation that pure noise has at its level.

    An incomplete inversion leaves states whose mean and deviation are not quite noise's, which samplers paint as a cast
    or as too much or too little contrast.

    Args:
        state: (b ...).
        size: (), the deviation of pure noise in this state.

    Returns:
        (b ...).
    """
    # reconstructed: no source normalises; all channels together, because each channel's mean is part of the layout.
    rows = state.flatten(1)
    centred = rows - rows.mean(1, keepdim=True)
    return (centred / centred.std(1, keepdim=True) * size).reshape(state.shape)


def reconstruction_psnr(found: Tensor, expected: Tensor, peak: float | None = None) -> list[float]:
    """Peak signal-to-noise ratio of every picture or latent of a batch, in dB; at most `BEST_PSNR`.

    Args:
        found: (b ...).
        expected: (b ...).
        peak: largest difference that is possible, 1 for pictures; None takes each row's own range, for latents.
    """
    found, expected = found.float().flatten(1), expected.float().flatten(1)
    low, high = expected.aminmax(dim=1)
    peaks = high - low if peak is None else torch.full_like(high, peak)
    ratio = 20 * torch.log10(peaks) - 10 * torch.log10((found - expected).square().mean(1))
    return ratio.clamp(max=BEST_PSNR).tolist()


def psnr_report(found: Sequence[float], *, of_pictures: bool) -> str:
    """Say in words what `reconstruction_psnr` found."""
    against = "the VAE's round trip" if of_pictures else "the given latent"
    each = f" ({', '.join(f'{value:.1f}' for value in found)})" if len(found) > 1 else ""
    return f"The picture comes back at {sum(found) / len(found):.1f} dB against {against}{each}."


def state_at(trajectory: Tensor, sigmas: Tensor, sigma: Tensor) -> Tensor:
    """The state of an inversion at any noise level; between its levels it is linear in sigma, as its steps are.

    Args:
        trajectory: (s b ...), as `invert` gives it.
        sigmas: (s), rising.
        sigma: (b), a noise level for each row; beyond both ends the nearest step is continued.

    Returns:
        (b ...).
    """
    before = (torch.searchsorted(sigmas, sigma.contiguous(), right=True) - 1).clamp(0, len(sigmas) - 2)
    share = (sigma - sigmas[before]) / (sigmas[before + 1] - sigmas[before])
    rows = torch.arange(trajectory.shape[1], device=trajectory.device)
    share = share.to(trajectory).reshape(-1, *(1,) * (trajectory.ndim - 2))
    return torch.lerp(trajectory[before, rows], trajectory[before + 1, rows], share)


def blend_noise(kept: Tensor, fresh: Tensor, keep: Tensor) -> Tensor:
    """Mix two noises of equal variance so that the variance stays, if they are independent: k a + sqrt(1 - k^2) b.

    Args:
        kept: (b ...), what counts with k.
        fresh: (b ...), what counts with the rest.
        keep: k in 0..1, broadcasts against both; 1 gives exactly `kept`, 0 exactly `fresh`.

    Returns:
        (b ...).
    """
    return keep * kept + torch.sqrt(1 - keep**2) * fresh


def _check_rising(sigmas: Tensor) -> None:
    if sigmas.ndim != 1 or len(sigmas) < 2 or not bool((sigmas.diff() > 0).all()):
        shown = ", ".join(f"{float(sigma):g}" for sigma in sigmas.flatten()[:4])
        raise ValueError(
            f"The noise levels {shown} ({sigmas.numel()} of them) do not rise step by step as an inversion needs them. "
            "Use a schedule whose noise levels fall from the first to the last, and at least one step."
        )
