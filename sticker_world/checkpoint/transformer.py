"""The denoiser as a transformer: FLUX.1's two kinds of blocks and its key names, at a small size.

Black Forest Labs' FLUX.1 (2024): blocks of two streams (weights for the picture and weights for the text, one attention
over both), then blocks of one stream, norms that time and the pooled text adapt, rotary positions of cells. Written for
training: nothing is changed in place, and chosen blocks give their attention.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .autoencoder import LATENT_CHANNELS
from .diffusion import CONTEXT

PATCH = 2  # latent cells to a side of a picture's token
TIME_WIDTH, TIME_FACTOR, LONGEST_PERIOD = 256, 1000.0, 10_000
EPSILON = 1e-6


@dataclass(frozen=True)
class Size:
    """Of a transformer.

    Attributes:
        width: of a token.
        heads: of every attention.
        axes: how a head's width is shared among rotary positions: of time (unused), row and column; even numbers.
        double: blocks of two streams.
        single: blocks of one stream.
    """

    width: int = 192
    heads: int = 6
    axes: tuple[int, int, int] = (8, 12, 12)
    double: int = 3
    single: int = 6


@dataclass
class Watch:
    """What an evaluation is to give besides its result.

    Attributes:
        blocks: whose attention is kept, counted through both kinds.
        behind: tokens are kept behind this double block, counted from 1.
        maps: what the picture's tokens give every text token, (b n t) a block, the mean over heads of the softmax over
            all keys.
        tokens: of the picture behind that block, (b n c).
    """

    blocks: Sequence[int] = ()
    behind: int = 0
    maps: list[Tensor] = field(default_factory=list)
    tokens: Tensor | None = None


class _Scale(nn.Module):
    """Root mean square norm of a head's width, in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * self.scale


class _HeadNorms(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_norm, self.key_norm = _Scale(width), _Scale(width)


class _Projections(nn.Module):
    """A stream's way into attention and out of it."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.norm = _HeadNorms(size.width // size.heads)
        self.proj = nn.Linear(size.width, size.width)


class _Embedder(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(inputs, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class _Modulation(nn.Module):
    """Shift, scale and gate of every norm of a stream, out of time and pooled text; zero at the start of training."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.number = number
        self.lin = nn.Linear(width, number * width)
        nn.init.zeros_(self.lin.weight)
        nn.init.zeros_(self.lin.bias)

    def forward(self, vector: Tensor) -> tuple[Tensor, ...]:
        return self.lin(F.silu(vector)).float()[:, None].chunk(self.number, -1)


def _normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift


def _mlp(size: Size) -> nn.Sequential:
    wide = 4 * size.width
    return nn.Sequential(nn.Linear(size.width, wide), nn.GELU(approximate="tanh"), nn.Linear(wide, size.width))


def time_embedding(t: Tensor) -> Tensor:
    """Cosines, then sines, of t in 0..1: (b) -> (b 256)."""
    half = TIME_WIDTH // 2
    rates = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half, device=t.device) / half)
    angles = TIME_FACTOR * t[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


def rotary_angles(rows: int, columns: int, axes: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Angle of every pair of a head's numbers at every cell, row by row: (n d/2). Text tokens stand at angle 0."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    places = torch.stack([torch.zeros_like(row), row, column], -1).reshape(-1, 3).double()
    parts = []
    for place, width in zip(places.unbind(1), axes, strict=True):
        rates = 1 / LONGEST_PERIOD ** torch.linspace(0, (width - 2) / width, width // 2, dtype=torch.float64)
        parts.append(place[:, None] * rates)
    return torch.cat(parts, -1).float().to(device)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Turn neighbouring numbers as the two parts of complex ones: x (b h n d), turn complex (n d/2)."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turn).flatten(-2)


def _heads(qkv: Tensor, norm: _HeadNorms, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=heads)
    return norm.query_norm(q), norm.key_norm(k), v


class StickerTransformer(nn.Module):
    """Flux at a small size. Its `state_dict` has the names that ComfyUI's class for FLUX.1 has in files."""

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.size = size = size or Size()
        if sum(size.axes) * size.heads != size.width:
            raise ValueError(f"Axes {size.axes} times {size.heads} heads do not make a width of {size.width}.")
        inputs = LATENT_CHANNELS * PATCH**2
        self.img_in, self.txt_in = nn.Linear(inputs, size.width), nn.Linear(CONTEXT, size.width)
        self.time_in, self.vector_in = _Embedder(TIME_WIDTH, size.width), _Embedder(CONTEXT, size.width)
        self.double_blocks = nn.ModuleList(DoubleBlock(size) for _ in range(size.double))
        self.single_blocks = nn.ModuleList(SingleBlock(size) for _ in range(size.single))
        self.final_layer = _Last(size.width, inputs)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, pooled: Tensor, watch: Watch | None = None) -> Tensor:
        """The velocity, noise minus picture, at x = (1 - t) picture + t noise.

        Args:
            x: (b 4 h w), h and w even.
            t: (b) in 0..1.
            context: the text's tokens (b t 128).
            pooled: the text as one vector (b 128).
            watch: filled where it is given.
        """
        watch = watch or Watch()
        rows, columns = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        image = self.img_in(rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=PATCH, q=PATCH)).float()
        text = self.txt_in(context).float()
        vector = self.time_in(time_embedding(t)) + self.vector_in(pooled)
        angles = rotary_angles(rows, columns, self.size.axes, x.device)
        angles = torch.cat([angles.new_zeros(text.shape[1], angles.shape[1]), angles])
        attend = _Attention(torch.polar(torch.ones_like(angles), angles), text.shape[1], watch)
        for number, block in enumerate(self.double_blocks):
            image, text = block(image, text, vector, attend)
            if number + 1 == watch.behind:
                watch.tokens = image
        both = torch.cat([text, image], 1)
        for block in self.single_blocks:
            both = block(both, vector, attend)
        out = self.final_layer(both[:, text.shape[1] :], vector)
        return rearrange(out, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=PATCH, q=PATCH)


class _Attention:
    """Every block's attention in an evaluation: over text and picture, text first."""

    def __init__(self, turn: Tensor, texts: int, watch: Watch) -> None:
        self.turn, self.texts, self.watch, self.block = turn, texts, watch, 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b h n d) each -> (b n (h d))."""
        q, k = (_turned(x, self.turn).to(v.dtype) for x in (q, k))
        watched = self.block in self.watch.blocks
        # On a CPU the fused attention's backward pass takes three times as long as plain products' both passes.
        if watched or (v.requires_grad and v.device.type == "cpu"):
            weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1)
            out = weights.to(v.dtype) @ v
            if watched:
                self.watch.maps.append(weights[:, :, self.texts :, : self.texts].float().mean(1))
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        self.block += 1
        return rearrange(out, "b h n d -> b n (h d)")


class DoubleBlock(nn.Module):
    """Picture and text with weights of their own, one attention over both."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.img_mod, self.txt_mod = _Modulation(size.width, 6), _Modulation(size.width, 6)
        self.img_attn, self.txt_attn = _Projections(size), _Projections(size)
        self.img_mlp, self.txt_mlp = _mlp(size), _mlp(size)

    def forward(self, image: Tensor, text: Tensor, vector: Tensor, attend: _Attention) -> tuple[Tensor, Tensor]:
        """(b n c), (b t c) and (b c) -> the first two."""
        of_image, of_text = self.img_mod(vector), self.txt_mod(vector)
        parts = [
            _heads(attention.qkv(_normed(x, *by[:2])), attention.norm, self.heads)
            for x, attention, by in ((text, self.txt_attn, of_text), (image, self.img_attn, of_image))
        ]
        out = attend(*(torch.cat(pair, 2) for pair in zip(*parts, strict=True)))
        text_out, image_out = out.split([text.shape[1], image.shape[1]], 1)
        image = image + of_image[2] * self.img_attn.proj(image_out)
        image = image + of_image[5] * self.img_mlp(_normed(image, *of_image[3:5]))
        text = text + of_text[2] * self.txt_attn.proj(text_out)
        return image, text + of_text[5] * self.txt_mlp(_normed(text, *of_text[3:5]))


class SingleBlock(nn.Module):
    """One stream; attention and the perceptron side by side."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.modulation = _Modulation(size.width, 3)
        self.linear1 = nn.Linear(size.width, 7 * size.width)  # queries, keys, values, and the perceptron's four
        self.linear2 = nn.Linear(5 * size.width, size.width)
        self.norm = _HeadNorms(size.width // size.heads)

    def forward(self, x: Tensor, vector: Tensor, attend: _Attention) -> Tensor:
        """(b n c) and (b c) -> (b n c)."""
        shift, scale, gate = self.modulation(vector)
        qkv, wide = self.linear1(_normed(x, shift, scale)).split([3 * self.size.width, 4 * self.size.width], -1)
        out = attend(*_heads(qkv, self.norm, self.size.heads))
        return x + gate * self.linear2(torch.cat([out, F.gelu(wide, approximate="tanh")], -1))


class _Last(nn.Module):
    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        for layer in (self.linear, self.adaLN_modulation[1]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        return self.linear(_normed(x, *self.adaLN_modulation(vector).float()[:, None].chunk(2, -1)))
