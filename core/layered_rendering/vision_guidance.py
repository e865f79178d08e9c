"""Vision guidance of LRDiff (Layered Rendering Diffusion, arXiv 2311.18435).

Every layer's evaluation sees the shared noisy latent plus a constant vector inside the layer's mask and minus it
outside, so the model is inclined to draw there what the layer asks for, and nowhere else. The state itself stays as it
is, so nothing of the vector is left once the layers hand over.
"""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

AUTO, COLOUR, DYNAMIC, REFERENCE, VECTOR = "auto", "colour", "dynamic", "reference", "vector"
SOURCES = (AUTO, COLOUR, DYNAMIC, REFERENCE, VECTOR)
EVERY_STEP, FIRST_STEP, AS_PUBLISHED = "every step", "first step", "as published"
INJECTIONS = (EVERY_STEP, FIRST_STEP, AS_PUBLISHED)
AS_SEEN, WITHOUT = "as seen", "without the vector"
READINGS = (AS_SEEN, WITHOUT)
PUBLISHED_INJECTIONS = 5  # steps after which the authors' script adds xi again
PUBLISHED_TOP_K = 20  # the script's `topk`; the paper prints no K
# reconstructed: both were chosen on the tuning layouts (`stage.py evaluate --sweep`). The published script switches
# after 16 of 51 steps (0.31); for lambda, the factor of Eq. 6, no value is printed. Higher strengths fill boxes a
# little better, but with flatter things.
DEFAULT_T0 = 0.7
LAMBDA_AT_1 = 0.6  # what the nodes' strength of 1, as recommended, stands for


@dataclass(frozen=True, eq=False)
class VisionGuidance:
    """Where delta comes from, and how it is used.

    Attributes:
        source: "colour", the latent of each region's colour; "vector", the same given vector for all; "reference", the
            mean latent of one picture per region; "dynamic", Eq. 6. The first three are the paper's constant vector.
            "auto" decides for each region: its picture, else its colour, else the dynamic vector where that can be
            measured, else none.
        top_k: K of Eq. 6, positions in latent cells.
        inside: factor of +delta inside a region; Eq. 5 has 1, the authors' script 0.05 (its lambda2).
        outside: factor of -delta outside; Eq. 5 has 1, the authors' script 0.20 (its lambda1).
        inject: when a layer's network sees xi: at "every step" of the layered part, at the "first step" only, or
            "as published", which only trajectories know: added for good to the initial noise, and after each of the
            first five steps with the scale of the authors' script.
        reading: of Eq. 7 and 8, see `compositing.fused_prediction`: a layer's clean picture is taken "as seen", or the
            network's output is applied to the state "without the vector".
        vector: (c) numbers in the model's latent space, for "vector".
        references: (n h w 3) in 0..1, one for each region in painter's order, for "reference" and "auto".

    Raises:
        ValueError: an unknown source or injection, K below 1, or a source without what it needs.
    """

    source: str = COLOUR
    top_k: int = PUBLISHED_TOP_K
    inside: float = 1.0
    outside: float = 1.0
    inject: str = EVERY_STEP
    reading: str = AS_SEEN
    vector: tuple[float, ...] = ()
    references: Tensor | None = None

    def __post_init__(self) -> None:
        for name, known in (("source", SOURCES), ("inject", INJECTIONS), ("reading", READINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f'Vision guidance has the {name} "{getattr(self, name)}"; known: {", ".join(known)}.')
        if self.top_k < 1:
            raise ValueError(f"Vision guidance has top_k {self.top_k}; expected 1 or more latent cells.")
        if self.source == VECTOR and not self.vector:
            raise ValueError('Vision guidance by "vector" needs the vector: one number for each latent channel.')
        if self.source == REFERENCE and self.references is None:
            raise ValueError('Vision guidance by "reference" needs pictures. Connect one for each region.')


def vision_guidance(delta: Tensor, mask: Tensor, inside: float | Tensor = 1.0, outside: float | Tensor = 1.0) -> Tensor:
    """Xi of Eq. 5: +delta inside the mask, -delta outside; in between for soft masks.

    Args:
        delta: (b c), latent vectors in the model's own latent space (unit-variance data).
        mask: (b h w) in 0..1, the region's own mask in latent cells, hidden parts included; b may be 1.
        inside: factor inside the mask (the authors' script's lambda2).
        outside: factor outside the mask (its lambda1).

    Returns:
        (b c h w), in units of the variance-preserving state x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps.
    """
    sides = inside * mask - outside * (1 - mask)
    return rearrange(delta, "b c -> b c 1 1") * rearrange(sides, "b h w -> b 1 h w")


def dynamic_vector(state: Tensor, attention: Tensor, top_k: int) -> Tensor:
    """Delta of Eq. 6 without its lambda: the mean noisy latent where a phrase's attention is strongest.

    See `dynamic_scale` for its length.

    Args:
        state: (b c h w), the variance-preserving noisy latent of the first step.
        attention: (b h w), the phrase's cross-attention on the same grid.
        top_k: K; at most all the cells are taken.

    Returns:
        (b c).
    """
    places = rearrange(attention, "b h w -> b (h w)").topk(min(top_k, attention[0].numel()), dim=-1).indices
    cells = rearrange(state, "b c h w -> b c (h w)")
    return torch.gather(cells, 2, repeat(places, "b k -> b c k", c=cells.shape[1])).mean(-1)


def dynamic_scale(cells: int, data: Tensor) -> Tensor:
    """What makes a dynamic vector about as long as a colour's, so that one strength serves both.

    reconstructed: the paper prints no lambda. Latents of colours are about as long as a cell of unit noise. Of a mean
    over cells the noise is shorter by the square root of their number; what is there of a picture is not.

    Args:
        cells: how many the mean is over: K of Eq. 6, times the frames of a video.
        data: share a of data in the variance-preserving state a x_0 + sqrt(1 - a^2) eps, any shape.

    Returns:
        Same shape as data.
    """
    return (data**2 + (1 - data**2) / cells) ** -0.5


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
