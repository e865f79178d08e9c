"""A VQGAN as VQGAN+CLIP uses it: the nearest code with a straight gradient, pictures clamped with one that leads back.

Esser et al., Taming Transformers for High-Resolution Image Synthesis (arXiv 2012.09841). Both gradients are those of
the canonical VQGAN+CLIP loop.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx

from ..weights.folders import ModelFolderError

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
KIND = "VQModel"  # diffusers' name of the class, as a config.json says it

Weights = dict[str, Tensor]


class VQGANFileError(ModelFolderError):
    """A folder or a file that is no usable VQGAN."""


class _StraightThrough(torch.autograd.Function):
    """Codes forward, exactly; backward as if they were the latent."""

    @staticmethod
    def forward(ctx: FunctionCtx, latent: Tensor, codes: Tensor) -> Tensor:
        return codes.clone()

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _ClampWithGradient(torch.autograd.Function):
    """Clamp to 0..1; a value outside keeps its gradient where a step against it leads back inside."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clamp(0, 1)

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        return gradient * (gradient * (values - values.clamp(0, 1)) >= 0)


def straight_through(latent: Tensor, codes: Tensor) -> Tensor:
    """Give the codes, and the latent (same shape) the gradient that they get."""
    return _StraightThrough.apply(latent, codes)


def clamp_with_gradient(values: Tensor) -> Tensor:
    """Clamp to 0..1. A value that is outside gets a gradient only where a step against it leads back."""
    return _ClampWithGradient.apply(values)


@dataclass(frozen=True)
class VQGAN:
    """Pictures as a grid of codes from a code-book.

    Attributes:
        network: diffusers' VQModel, frozen, in float32. Its pictures lie in -1..1.
        name: for people.
    """

    network: nn.Module
    name: str = "VQGAN"

    @property
    def factor(self) -> int:
        """Pixels along the side of a cell."""
        return 2 ** (len(self.network.config.block_out_channels) - 1)

    @property
    def codes(self) -> Tensor:
        """The code-book: (n c)."""
        return self.network.quantize.embedding.weight

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of the code-book in every channel: (1 c 1 1) each."""
        low, high = self.codes.detach().aminmax(dim=0)
        return rearrange(low, "c -> 1 c 1 1"), rearrange(high, "c -> 1 c 1 1")

    def nearest(self, latent: Tensor) -> Tensor:
        """The code nearest to each cell, by squared distance: (b c h w) -> (b c h w), without a gradient."""
        with torch.no_grad():
            cells = rearrange(latent, "b c h w -> (b h w) c")
            # The cell's own square is the same for every code, so it is left out.
            distances = self.codes.square().sum(1) - 2 * cells @ self.codes.T
            codes = self.codes[distances.argmin(1)]
        return rearrange(codes, "(b h w) c -> b c h w", b=len(latent), h=latent.shape[2])

    def decode(self, latent: Tensor) -> Tensor:
        """Paint a latent's nearest codes.

        Args:
            latent: (b c h w).

        Returns:
            (b 3 f*h f*w) in 0..1. Its gradient passes quantisation unchanged, and clamping as `clamp_with_gradient`.
        """
        codes = straight_through(latent, self.nearest(latent))
        spatial = codes if self.network.config.norm_type == "spatial" else None  # MoVQ normalises by the codes
        return clamp_with_gradient((self.network.decoder(self.network.post_quant_conv(codes), spatial) + 1) / 2)

    def encode(self, pictures: Tensor) -> Tensor:
        """The codes of pictures (b 3 h w) in 0..1, sides whole cells: (b c h/f w/f)."""
        return self.nearest(self.network.quant_conv(self.network.encoder(2 * pictures - 1)))

    def random_codes(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Codes drawn evenly from the book: (1 c height width) cells, on the code-book's device.

        Args:
            height: rows of cells.
            width: columns of cells.
            generator: on the CPU, so that a seed gives the same start on every device.
        """
        chosen = torch.randint(len(self.codes), (height * width,), generator=generator)
        return rearrange(self.codes[chosen.to(self.codes.device)], "(h w) c -> 1 c h w", h=height)
