"""Attention that gives the logarithm of its softmax's denominator too, by which attentions over parts can be merged."""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from .in_blocks import attention_gradients, query_blocks

Kernel = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
CLOSE = 2e-2  # of half precision on numbers near 1; a kernel that is not meant gives others altogether


def attention_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(q k^T / sqrt(d)) v without a mask, and the log of the sum of the exponentiated logits.

    By the fastest of PyTorch's kernels that gives both on this device, in this type and width. What no kernel takes is
    evaluated for some queries at a time, so no matrix of all queries and keys is ever there, in the backward pass
    either.

    Args:
        q: (b heads n d).
        k: (b heads t d).
        v: (b heads t d).

    Returns:
        (b heads n d) in the type of q, and float32 (b heads n) (float64 of float64); both differentiable.
    """
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return _AttentionWithLse.apply(q, k, v)
    return _evaluate(q, k, v)


class _AttentionWithLse(torch.autograd.Function):
    """PyTorch's kernels have no derivative of the second result; here both have one."""

    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate without a graph."""
        out, lse = _evaluate(q, k, v)
        ctx.save_for_backward(q, k, v, lse)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g_out: Tensor, g_lse: Tensor) -> tuple[Tensor, ...]:
        """Gradients of q, k and v."""
        *given, lse = ctx.saved_tensors
        return attention_gradients(*given, g_out, lse, g_lse)


def _evaluate(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return _kernel(q.device, q.dtype, q.shape[-1])(q, k, v)


def plain_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The same by matrix products, for some queries at a time; where no kernel gives both, and to test those that do.

    Args and results as for `attention_with_lse`.
    """
    kind = torch.promote_types(q.dtype, torch.float32)
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3], dtype=kind)
    for rows in query_blocks(q, k, near=False):
        logits = (q[:, :, rows].to(kind) * q.shape[-1] ** -0.5) @ k.to(kind).mT
        lse[:, :, rows] = total = logits.logsumexp(-1)
        out[:, :, rows] = (logits - total[..., None]).exp().to(v.dtype) @ v
    return out, lse


def _cpu(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)


def _flash(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)
    return out, lse[..., : q.shape[2]]


def _efficient(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
    return out, lse[..., : q.shape[2]]  # filled up to a multiple of 32


_KERNELS: dict[str, tuple[Kernel, ...]] = {"cpu": (_cpu,), "cuda": (_flash, _efficient)}


@lru_cache
def _kernel(device: torch.device, dtype: torch.dtype, width: int) -> Kernel:
    """The first kernel that is there and gives what it should: these operations are no promise of PyTorch's."""
    with torch.inference_mode(False), torch.no_grad():
        # Of two numbers of tokens that are no multiples of anything, heads and values that all differ.
        tokens = torch.arange(2 * 3 * 37 * width, device=device).view(1, 6, 37, width)
        q, k, v = (torch.sin(tokens * step).to(dtype) for step in (0.7, 1.3, 2.1))
        q = q[:, :, :19].transpose(1, 2).contiguous().transpose(1, 2)  # as they come from joined heads
        expected = plain_with_lse(q, k, v)
        for kernel in _KERNELS.get(device.type, ()):
            try:
                found = kernel(q, k, v)
            except (AttributeError, RuntimeError, TypeError):
                continue
            if all(map(_is_close, found, expected)):
                return kernel
    return plain_with_lse


def _is_close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and torch.allclose(found.float(), expected.float(), rtol=CLOSE, atol=CLOSE)
