"""Attention that keeps queries, keys and values for its backward pass, and nothing else."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from .in_blocks import attention_gradients

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
JOINED = 3  # dimensions of (b n (heads d)); transformers split the heads before: (b heads n d)


class RecomputedAttention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d)) v by any function, also one without a derivative; the backward pass is exact.

    The backward pass evaluates the softmax again, for a block of queries at a time. PyTorch's own fused attention has a
    slow backward pass on CPUs, and plain attention keeps the softmax: 537 MB for each self-attention of SD 1.5 at
    64 x 64 cells.

    Call it by `recomputed_attention`.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, heads: int, attend: Attend) -> Tensor:
        """Evaluate without a graph."""
        ctx.save_for_backward(q, k, v)
        ctx.heads = heads
        return attend(q, k, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k and v, of those that are asked for."""
        heads, (_, needs_k, needs_v, *_) = ctx.heads, ctx.needs_input_grad
        given = ctx.saved_tensors
        q, k, v, g = (_split(x, heads) for x in (*given, gradient))
        dq, dk, dv = attention_gradients(q, k, v, g, needs_k=needs_k, needs_v=needs_v)
        if given[0].ndim == JOINED:
            dq, dk, dv = (rearrange(x, "b heads n d -> b n (heads d)") for x in (dq, dk, dv))
        return dq, dk if needs_k else None, dv if needs_v else None, None, None


def _split(x: Tensor, heads: int) -> Tensor:
    """(b heads n d), as it may be given."""
    return rearrange(x, "b n (heads d) -> b heads n d", heads=heads) if x.ndim == JOINED else x


def recomputed_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, attend: Attend) -> Tensor:
    """Attention by `attend` (q, k, v -> out) whose backward pass keeps no softmax.

    Args:
        q: (b n (heads d)) or (b heads n d), and so are k and v.
        k: (b t (heads d)).
        v: (b t (heads d)); or (b t heads d) beside joined queries.
        heads: number of heads.
        attend: plain attention with scale 1 / sqrt(d), without a mask, by any backend; what it gives may have either
            shape too.

    Returns:
        (b n (heads d)), or what `attend` gives.
    """
    if q.ndim == JOINED:  # SD 3 leaves the heads of its values apart
        k, v = k.flatten(2), v.flatten(2)
    return RecomputedAttention.apply(q, k, v, heads, attend)
