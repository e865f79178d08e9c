"""The embedded U-Net and text encoder, frozen, as CnC's fusers are trained around them.

Its encoder and middle run without gradients, as published, so that image tokens learn through the decoder's attention.
"""

import math
from collections.abc import Callable, Mapping

import torch
from diffusers.models.attention_processor import Attention
from einops import rearrange, repeat
from torch import Tensor

from ...core.soft_guidance.soft_guidance import SoftGuidance
from ..checkpoint.diffusion import StickerDiffusion
from ..checkpoint.export import ldm_names
from ..training.fast_norm import use_fast_norms
from ..training.loop import pick_device


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, *, grid: tuple[int, int], bias: Tensor | None = None
) -> Tensor:
    """Attention in plain matrix products, whose backward pass is faster on a CPU than the fused one's.

    Args:
        q: queries (b n (heads d)).
        k: keys (b t (heads d)).
        v: values (b t (heads d)).
        heads: how many.
        grid: of the queries; not needed here.
        bias: added to the logits (b n t), or none.

    Returns:
        (b n (heads d)).
    """
    q, k, v = (rearrange(x, "b n (h d) -> (b h) n d", h=heads) for x in (q, k, v))
    logits = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(q.shape[-1])
    if bias is not None:
        logits = logits + repeat(bias.to(logits.dtype), "b n t -> (b h) n t", h=heads)
    return rearrange(torch.bmm(logits.softmax(-1).to(v.dtype), v), "(b h) n d -> b n (h d)", h=heads)


def guided_attention(guidance: SoftGuidance) -> Callable[..., Tensor]:
    """`plain_attention` under soft guidance, for the cross-attentions of the local fuser."""

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, *, grid: tuple[int, int]) -> Tensor:
        return plain_attention(q, k, v, heads, grid=grid, bias=guidance.bias(grid, k.shape[1], q))

    return attend


class GuidedAttention:
    """A diffusers attention processor in plain matrix products, with soft guidance in cross-attention where it is set.

    Attributes:
        guidance: of the batch at hand, or None.
    """

    def __init__(self, learns: bool) -> None:
        """Take whether gradients reach the context here: in the decoder they do, in encoder and middle they do not."""
        self.learns = learns
        self.guidance: SoftGuidance | None = None

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> Tensor:
        """(b n c) -> (b n c); the context of cross-attention is (b t d)."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and not self.learns:
            context = context.detach()
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        side = math.isqrt(q.shape[1])
        bias = None
        if encoder_hidden_states is not None and self.guidance is not None:
            bias = self.guidance.bias((side, side), k.shape[1], q)
        return attn.to_out[0](plain_attention(q, k, v, attn.heads, grid=(side, side), bias=bias))


class FrozenDenoiser:
    """The embedded U-Net and text encoder, frozen, with room for residuals, image tokens and soft guidance."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Take the averaged weights of `StickerDiffusion`."""
        self.device = pick_device()
        self.model = StickerDiffusion()
        self.model.load_state_dict(weights)
        self.model.eval().requires_grad_(False).to(self.device)
        unet = self.model.unet
        unet.to(memory_format=torch.channels_last)
        self.sites = {name: GuidedAttention(name.startswith("up_blocks")) for name in unet.attn_processors}
        unet.set_attn_processor(dict(self.sites))  # diffusers empties the dictionary
        if self.device.type == "cpu":
            use_fast_norms(unet)

    def ldm_weights(self) -> dict[str, Tensor]:
        """The U-Net's weights by their original (ldm) names."""
        weights = self.model.unet.state_dict()
        return {name: weights[key] for key, name in ldm_names(weights).items()}

    @torch.no_grad()
    def read(self, rows: Tensor) -> Tensor:
        """Captions in the compact vocabulary (b 77) -> tokens (b 77 d)."""
        return self.model.text(input_ids=rows).last_hidden_state

    def __call__(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        residuals: tuple[list[Tensor], Tensor] | None,
        guidance: SoftGuidance | None,
    ) -> Tensor:
        """v-prediction: x (b 4 h w), t (b), context (b n d), the local fuser's residuals -> (b 4 h w)."""
        for site in self.sites.values():
            site.guidance = guidance
        added = {}
        if residuals is not None:
            added = {"down_block_additional_residuals": residuals[0], "mid_block_additional_residual": residuals[1]}
        return self.model.unet(x, t, context, **added).sample
