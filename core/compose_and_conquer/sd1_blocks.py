"""The layers of SD 1's encoder, named as its files name them, and the one layer that CnC adds: the denormalisation.

All of them are built from `Operations`, so that a host can pass its own layers.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

GROUPS = 32
TRANSFORMER_EPS = 1e-6  # of the group normalisation in front of SD 1's transformers; everything else has 1e-5
LONGEST_PERIOD = 10000

Attend = Callable[..., Tensor]
Modulation = tuple[Tensor, Tensor]  # what a normalised feature map is multiplied with, and what is added to it


class Operations(Protocol):
    """A namespace of layers: torch.nn, or a host's own, which cast or load their weights when they are used."""

    Linear: Callable[..., nn.Module]
    Conv2d: Callable[..., nn.Module]
    GroupNorm: Callable[..., nn.Module]
    LayerNorm: Callable[..., nn.Module]


def fused_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, *, grid: tuple[int, int]) -> Tensor:
    """Softmax attention: (b n (heads d)), (b t (heads d)) twice -> (b n (heads d)).

    Args:
        q: queries, one per cell of the grid.
        k: keys.
        v: values.
        heads: how many.
        grid: rows and columns of the queries, for functions of this shape that mask by place; not needed here.
    """
    q, k, v = (rearrange(x, "b n (heads d) -> b heads n d", heads=heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)")


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoids of SD's time steps, cosines first: (b) -> (b width), float32."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(LONGEST_PERIOD) / half * steps)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all weights zero, so that what it feeds starts out unchanged."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class Denormalisation(nn.Module):
    """FDN: a feature map, normalised, is scaled and shifted by another one (Uni-ControlNet; CnC, section 3.1).

    FDN(h, f) = GN(h) (1 + conv_gamma(f)) + conv_beta(f)
    """

    def __init__(self, channels: int, feature_channels: int, operations: Operations) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels, affine=False)  # torch's own: it has no weights to load
        self.conv_gamma = operations.Conv2d(feature_channels, channels, 3, padding=1)
        self.conv_beta = operations.Conv2d(feature_channels, channels, 3, padding=1)

    def modulation(self, feature: Tensor) -> Modulation:
        """(b f h w) -> (b c h w) twice, which stay as they are through all steps of a run."""
        return 1 + self.conv_gamma(feature), self.conv_beta(feature)

    def forward(self, h: Tensor, modulation: Modulation) -> Tensor:
        """(b c h w), and a modulation of as many rows or of one for all -> (b c h w)."""
        scale, shift = modulation
        return self.norm(h) * scale + shift


class ResBlock(nn.Module):
    """SD's residual block."""

    def __init__(self, channels: int, emb_channels: int, out_channels: int, operations: Operations) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            self.make_norm(channels, operations), nn.SiLU(), operations.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(emb_channels, out_channels))
        self.out_layers = nn.Sequential(
            self.make_norm(out_channels, operations),
            nn.SiLU(),
            nn.Identity(),  # SD's drop-out, which is 0
            zeroed(operations.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        is_same = channels == out_channels
        self.skip_connection = nn.Identity() if is_same else operations.Conv2d(channels, out_channels, 1)

    def make_norm(self, channels: int, operations: Operations) -> nn.Module:
        """What stands first in `in_layers` and `out_layers`."""
        return operations.GroupNorm(GROUPS, channels)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """(b c h w), (b e) -> (b o h w)."""
        h = self.in_layers(x) + rearrange(self.emb_layers(emb), "b c -> b c 1 1")
        return self.skip_connection(x) + self.out_layers(h)


class InjectedResBlock(ResBlock):
    """A residual block of which both normalisations are denormalised by an extractor's feature map."""

    def __init__(
        self,
        channels: int,
        emb_channels: int,
        out_channels: int,
        feature_channels: int,
        operations: Operations,
    ) -> None:
        super().__init__(channels, emb_channels, out_channels, operations)
        self.norm_in = Denormalisation(channels, feature_channels, operations)
        self.norm_out = Denormalisation(out_channels, feature_channels, operations)

    def make_norm(self, channels: int, operations: Operations) -> nn.Module:
        """Nothing: the denormalisations come before the sequences."""
        return nn.Identity()

    def modulations(self, feature: Tensor) -> tuple[Modulation, Modulation]:
        """(b f h w) -> what both denormalisations make of it."""
        return self.norm_in.modulation(feature), self.norm_out.modulation(feature)

    def forward(self, x: Tensor, emb: Tensor, modulations: tuple[Modulation, Modulation]) -> Tensor:
        """(b c h w), (b e), two modulations of as many rows or of one for all -> (b o h w)."""
        before, after = modulations
        h = self.in_layers(self.norm_in(x, before)) + rearrange(self.emb_layers(emb), "b c -> b c 1 1")
        return self.skip_connection(x) + self.out_layers(self.norm_out(h, after))


class Downsample(nn.Module):
    """Half the sides, rounded up."""

    def __init__(self, channels: int, operations: Operations) -> None:
        super().__init__()
        self.op = operations.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b c h w) -> (b c ceil(h/2) ceil(w/2))."""
        return self.op(x)


class GatedGELU(nn.Module):
    """One linear layer to twice the width; the second half, through a GELU, gates the first."""

    def __init__(self, channels: int, out_channels: int, operations: Operations) -> None:
        super().__init__()
        self.proj = operations.Linear(channels, 2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(... c) -> (... o)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Gated GELU to four times the width, drop-out, and a linear layer to the width that is asked for."""

    def __init__(self, channels: int, out_channels: int, operations: Operations, dropout: float = 0.0) -> None:
        super().__init__()
        inner = 4 * channels
        self.net = nn.Sequential(
            GatedGELU(channels, inner, operations), nn.Dropout(dropout), operations.Linear(inner, out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(... c) -> (... o)."""
        return self.net(x)


class Attention(nn.Module):
    """SD's attention layer around any attention function."""

    def __init__(self, channels: int, context_dim: int, heads: int, operations: Operations) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = operations.Linear(channels, channels, bias=False)
        self.to_k = operations.Linear(context_dim, channels, bias=False)
        self.to_v = operations.Linear(context_dim, channels, bias=False)
        self.to_out = nn.Sequential(operations.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor, attend: Attend, grid: tuple[int, int]) -> Tensor:
        """(b n c), (b t d) -> (b n c)."""
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        return self.to_out(attend(q, k, v, self.heads, grid=grid))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each around a residual."""

    def __init__(self, channels: int, context_dim: int, heads: int, operations: Operations) -> None:
        super().__init__()
        self.attn1 = Attention(channels, channels, heads, operations)
        self.attn2 = Attention(channels, context_dim, heads, operations)
        self.ff = FeedForward(channels, channels, operations)
        self.norm1 = operations.LayerNorm(channels)
        self.norm2 = operations.LayerNorm(channels)
        self.norm3 = operations.LayerNorm(channels)

    def forward(self, x: Tensor, context: Tensor, look: Attend, attend: Attend, grid: tuple[int, int]) -> Tensor:
        """(b n c), (b t d) -> (b n c); `look` is the function of the self-attention, `attend` of the other."""
        own = self.norm1(x)
        x = x + self.attn1(own, own, look, grid)
        x = x + self.attn2(self.norm2(x), context, attend, grid)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """SD 1's transformer of depth 1 on a feature map, between two 1 x 1 convolutions."""

    def __init__(self, channels: int, context_dim: int, heads: int, operations: Operations) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(GROUPS, channels, eps=TRANSFORMER_EPS)
        self.proj_in = operations.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, context_dim, heads, operations)])
        self.proj_out = zeroed(operations.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, context: Tensor, look: Attend, attend: Attend) -> Tensor:
        """(b c h w), (b t d) -> (b c h w)."""
        grid = (x.shape[-2], x.shape[-1])
        h = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        for block in self.transformer_blocks:
            h = block(h, context, look, attend, grid)
        return x + self.proj_out(rearrange(h, "b (h w) c -> b c h w", h=grid[0]))
