"""What CaT2I-AE is trained with: Text2Layer (Zhang et al. 2023, arXiv 2307.09781), section 4.1.

L = L_img(F) + L_img(B) + L_img(I) + lambda L_mask, where L_img is a perceptual distance, l1 and an adversarial loss as
in Stable Diffusion's autoencoder. The paper does not say what its norms are summed over. # reconstructed: over the
channels of a pixel, then the mean over pixels; colours in -1..1, as in Stable Diffusion's autoencoder, masks in 0..1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from ..layers.placing import keep_inside
from .autoencoder import LayeredOutput, compose

MASK_WEIGHT = 1.0  # lambda
COMPOSITION_WEIGHT, LAPLACIAN_WEIGHT = 2.0, 3.0
COMPOSITION_EPSILON = 1e-6
LAPLACIAN_LEVELS = 3
COLOURS, COLOUR_RANGE = 3, 2.0  # channels of a picture, and how far black is from white
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)  # reconstructed: the usual kernel of a Laplacian pyramid
# reconstructed: the foreground has no meaning outside the mask. Full weight on the black there would darken its edges.
OUTSIDE_WEIGHT = 0.1

Perceptual = Callable[[Tensor, Tensor], Tensor]  # two batches of pictures (b 3 h w) in 0..1 -> a scalar


@dataclass(frozen=True)
class Layers:
    """The truth: foreground (b 3 h w), background (b 3 h w) and mask (b 1 h w), in 0..1."""

    foreground: Tensor
    background: Tensor
    mask: Tensor

    def composite(self) -> Tensor:
        """I = m F + (1 - m) B, (b 3 h w)."""
        return compose(self.foreground, self.background, self.mask)


def blur(mask: Tensor) -> Tensor:
    """Binomial blur, the border's values repeated outside: (b c h w) -> (b c h w)."""
    kernel = mask.new_tensor(BINOMIAL) / sum(BINOMIAL)
    channels = mask.shape[1]
    rows, columns = (repeat(kernel, f"k -> c 1 {shape}", c=channels) for shape in ("k 1", "1 k"))
    mask = F.conv2d(F.pad(mask, (0, 0, 2, 2), "replicate"), rows, groups=channels)
    return F.conv2d(F.pad(mask, (2, 2, 0, 0), "replicate"), columns, groups=channels)


def laplacian_pyramid(mask: Tensor, levels: int = LAPLACIAN_LEVELS) -> list[Tensor]:
    """What every halving of the size loses, finest first: (b c h w) -> (b c h/2^j w/2^j) for j = 0, 1, ...

    The sides are multiples of 2^levels.
    """
    bands = []
    for _ in range(levels):
        # Means of 2 x 2 lie where `interpolate` takes a smaller picture's values to lie; every second value would not.
        smaller = F.avg_pool2d(blur(mask), 2)
        bands.append(mask - F.interpolate(smaller, mask.shape[-2:], mode="bilinear"))
        mask = smaller
    return bands


def laplacian_loss(predicted: Tensor, mask: Tensor) -> Tensor:
    """l_lap = sum_j 2^(j-1) |Lap_j(m^) - Lap_j(m)| over three levels, finest first (section 4.1)."""
    bands = laplacian_pyramid(predicted - mask)  # the pyramid is linear
    return sum(2**j * band.abs().mean() for j, band in enumerate(bands))


def composition_loss(predicted: Tensor, truth: Layers) -> Tensor:
    """l_comp = sqrt((C - C^)^2 + eps^2) (section 4.1).

    # reconstructed: C^ is garbled in print; as in matting, the predicted mask over the true layers.
    """
    error = truth.composite() - compose(truth.foreground, truth.background, predicted)
    return COLOURS * (error.square() + COMPOSITION_EPSILON**2).sqrt().mean()


def mask_loss(predicted: Tensor, truth: Layers) -> Tensor:
    """L_mask = l1(m, m^) + 2 l_comp + 3 l_lap (section 4.1); the masks are (b 1 h w)."""
    return (
        F.l1_loss(predicted, truth.mask)
        + COMPOSITION_WEIGHT * composition_loss(predicted, truth)
        + LAPLACIAN_WEIGHT * laplacian_loss(predicted, truth.mask)
    )


def picture_l1(predicted: Tensor, true: Tensor) -> Tensor:
    """l1 of pictures (b 3 h w) in 0..1, at the scale of -1..1 and summed over the colours."""
    return COLOURS * COLOUR_RANGE * F.l1_loss(predicted, true)


def foreground_l1(predicted: Tensor, truth: Layers) -> Tensor:
    """`picture_l1` of the foreground, what lies outside of it at a tenth of the weight."""
    inside = keep_inside(torch.ones_like(truth.mask), truth.mask)
    weight = OUTSIDE_WEIGHT + (1 - OUTSIDE_WEIGHT) * inside
    error = (predicted - keep_inside(truth.foreground, truth.mask)).abs().mean(1, keepdim=True)
    return COLOURS * COLOUR_RANGE * (weight * error).sum() / weight.sum()


def seen_pictures(output: LayeredOutput, truth: Layers) -> dict[str, tuple[Tensor, Tensor]]:
    """Prediction and truth of F, B and, if there is one, of the auxiliary I, as a loss on whole pictures sees them.

    A foreground is black outside its mask in both, because nothing that lies there counts.
    """
    pairs = {
        "foreground": (keep_inside(output.foreground, truth.mask), keep_inside(truth.foreground, truth.mask)),
        "background": (output.background, truth.background),
    }
    if output.image is not None:
        pairs["image"] = (output.image, truth.composite())
    return pairs


def stack_pictures(pairs: dict[str, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """What `seen_pictures` gives as one batch of predictions and one of truths, both (b 3 h w)."""
    predicted, true = (torch.cat(pictures) for pictures in zip(*pairs.values(), strict=True))
    return predicted, true


def layered_loss(
    output: LayeredOutput, truth: Layers, perceptual: Perceptual | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_img on F, B and I with equal weights plus L_mask; the adversarial part is in `patch_discriminator`.

    Args:
        output: predicted layers, not clamped.
        truth: what they should be.
        perceptual: LPIPS, or a distance that stands for it; None for l1 alone.

    Returns:
        The loss, and its parts by name, without gradients.
    """
    pairs = seen_pictures(output, truth)
    parts = {name: picture_l1(*pair) for name, pair in pairs.items() if name != "foreground"}
    parts["foreground"] = foreground_l1(output.foreground, truth)
    parts["mask"] = MASK_WEIGHT * mask_loss(output.mask, truth)
    if perceptual is not None:
        # Stable Diffusion's autoencoder adds one to the error of every value, so of every colour.
        parts["perceptual"] = COLOURS * len(pairs) * perceptual(*stack_pictures(pairs))
    return sum(parts.values()), {name: part.detach() for name, part in parts.items()}


def feature_distance(predicted: list[Tensor], true: list[Tensor]) -> Tensor:
    """Distance between two pictures in a network's features: LPIPS (Zhang et al. 2018) without its learned weights.

    Args:
        predicted: features of every stage (b c h w).
        true: the same of the other picture.
    """
    pairs = zip(predicted, true, strict=True)
    return torch.stack(
        [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean() for a, b in pairs]
    ).mean()


def kl_loss(mean: Tensor, logvar: Tensor) -> Tensor:
    """Divergence of the posterior from a unit normal distribution, mean over all values of the latent."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
