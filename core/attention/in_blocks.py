"""Attention's logits for some queries at a time, and the exact way back that never has all of them."""

from collections.abc import Iterator

import torch
from torch import Tensor

AT_ONCE = 2**24  # logits of some queries that are in memory together
NEAR = 2**22  # the same on a CPU, whose caches these 16 MB stay near: a third less time with the way back


def query_blocks(q: Tensor, k: Tensor, rows: slice | None = None, *, near: bool = True) -> Iterator[slice]:
    """Some queries at a time, with no more logits than may be in memory together.

    Args:
        q: (b heads n d).
        k: (b heads t d).
        rows: queries that are asked, with both ends; None: all.
        near: whether a CPU's caches count, as on a way back.
    """
    rows = slice(0, q.shape[2]) if rows is None else rows
    numbers = min(AT_ONCE, NEAR) if near and q.device.type == "cpu" else AT_ONCE
    step = max(1, numbers // max(1, q.shape[0] * q.shape[1] * k.shape[2]))
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(start + step, rows.stop))


def attention_gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g_out: Tensor,
    lse: Tensor | None = None,
    g_lse: Tensor | None = None,
    *,
    needs_k: bool = True,
    needs_v: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of softmax(q k^T / sqrt(d)) v and of the log of its denominator, the softmax P evaluated again.

    For logits s: ds = P (g_out v^T - rowsum(P g_out v^T) + g_lse). As Rabe and Staats do (arXiv 2112.05682), for a
    block of queries at a time.

    Args:
        q: (b heads n d).
        k: (b heads t d).
        v: (b heads t d).
        g_out: (b heads n d), the result's gradient.
        lse: (b heads n), the logarithm where it is known; in its type the softmax is evaluated then.
        g_lse: (b heads n), its gradient.
        needs_k: whether the gradient of k is asked for; else it is zeros.
        needs_v: the same of v.

    Returns:
        Gradients of q, k and v.
    """
    scale = q.shape[-1] ** -0.5
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for rows in query_blocks(q, k):
        weights = _softmax(q[:, :, rows], k, scale, None if lse is None else lse[:, :, rows, None])
        if needs_v:
            dv += weights.mT @ g_out[:, :, rows]
        slope = g_out[:, :, rows] @ v.mT
        slope.sub_((slope * weights).sum(-1, keepdim=True))
        if g_lse is not None:
            slope.add_(g_lse[:, :, rows, None].to(slope))
        slope.mul_(weights)
        dq[:, :, rows] = (slope @ k).mul_(scale)
        if needs_k:
            dk.add_(slope.mT @ q[:, :, rows], alpha=scale)
    return dq, dk, dv


def _softmax(q: Tensor, k: Tensor, scale: float, lse: Tensor | None) -> Tensor:
    if lse is None:
        kind = torch.promote_types(q.dtype, torch.float32)
        return ((q * scale) @ k.mT).softmax(-1, dtype=kind).to(q.dtype)
    return ((q.to(lse.dtype) * scale) @ k.to(lse.dtype).mT - lse).exp().to(q.dtype)
