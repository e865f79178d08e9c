"""The adversarial part of an autoencoder's training: a discriminator of patches with the hinge loss.

As in Stable Diffusion's autoencoder (Rombach et al. 2022, arXiv 2112.10752, appendix G), which Text2Layer (Zhang et al.
2023, arXiv 2307.09781, section 4.1) takes it from: the discriminator of pix2pix (Isola et al. 2017), and the weight
that balances gradients of VQGAN (Esser et al. 2021, arXiv 2012.09841, equation 7).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

WIDTH, LAYERS = 64, 3
ADVERSARIAL_WEIGHT = 0.5  # Stable Diffusion's, of an adversarial gradient as strong as the other losses'
# As in the code of VQGAN and Stable Diffusion; the latter is equation 7's delta.
HIGHEST_BALANCE, SMALLEST_GRADIENT = 1e4, 1e-4


class PatchDiscriminator(nn.Module):
    """Says of every patch of a picture how real it looks: (b 3 h w) -> (b 1 h/8-2 w/8-2)."""

    def __init__(self, width: int = WIDTH, layers: int = LAYERS) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for layer in range(1, layers + 1):
            inputs, outputs = (width * min(2**k, 8) for k in (layer - 1, layer))
            stride = 2 if layer < layers else 1
            parts += [nn.Conv2d(inputs, outputs, 4, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(outputs, 1, 4, 1, 1))
        for part in self.layers:
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0.0, 0.02)
            elif isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.weight, 1.0, 0.02)

    def forward(self, pictures: Tensor) -> Tensor:
        """(b 3 h w) in 0..1 -> (b 1 h' w')."""
        return self.layers(pictures * 2 - 1)


def hinge_loss(real: Tensor, made: Tensor) -> Tensor:
    """What the discriminator minimises: real patches above 1, made ones below -1."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + made).mean())


def balance(reconstruction: Tensor, adversarial: Tensor, last: Sequence[Tensor]) -> Tensor:
    """How much stronger the reconstruction's gradient is in the last weights (VQGAN, equation 7), a scalar.

    Args:
        reconstruction: the other losses' sum.
        adversarial: the generator's loss.
        last: weights of the last layers, which both reach.
    """
    norms = []
    for loss in (reconstruction, adversarial):
        gradients = torch.autograd.grad(loss, last, retain_graph=True, allow_unused=True)
        norms.append(torch.cat([g.flatten().float() for g in gradients if g is not None]).norm())
    return (norms[0] / (norms[1] + SMALLEST_GRADIENT)).clamp(max=HIGHEST_BALANCE).detach()


def adversarial_loss(
    discriminator: PatchDiscriminator, predicted: Tensor, true: Tensor, reconstruction: Tensor, last: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Give both sides' losses, which may be summed: neither has gradients in the other's weights.

    Args:
        discriminator: the opponent.
        predicted: pictures that the autoencoder made (b 3 h w) in 0..1.
        true: what they should be.
        reconstruction: the other losses' sum, for the balance.
        last: weights of the autoencoder's last layers.

    Returns:
        The autoencoder's loss, balanced, and the discriminator's.
    """
    fixed = {name: weight.detach() for name, weight in discriminator.named_parameters()}
    fooled = -functional_call(discriminator, fixed, (predicted,)).mean()
    made, real = discriminator(predicted.detach()), discriminator(true.detach())
    return ADVERSARIAL_WEIGHT * balance(reconstruction, fooled, last) * fooled, hinge_loss(real, made)
