"""Attention maps of chosen tokens and regions from queries and keys, and how maps become one map of a phrase."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def token_maps(
    q: Tensor, k: Tensor, heads: int, columns: Tensor, scale: float | None = None, mask: Tensor | None = None
) -> Tensor:
    """Attention that every position pays to some tokens: the asked columns of softmax(q k^T / sqrt(d)).

    The softmax is over all tokens, but only the asked columns outlive the call, also for the backward pass, which
    evaluates the logits anew.

    Args:
        q: (b n (heads d)), image positions.
        k: (b t (heads d)), tokens.
        heads: number of heads.
        columns: int64 (m), or (b m) for each row.
        scale: of the logits; None means 1 / sqrt(d).
        mask: boolean (true takes part) or added to the logits; (n t), (b n t) or (b heads n t), broadcast.

    Returns:
        float32 (b heads n m); differentiable in q and k.
    """
    if columns.ndim == 1:
        columns = columns[None]
    # Cloned, because an index from inference mode cannot be kept for the way back.
    columns = columns.clone().expand(len(q), -1)

    def asked(q: Tensor, k: Tensor) -> Tensor:
        logits = _logits(q, k, heads, scale, mask)
        wanted = columns[:, None, None].expand(-1, *logits.shape[1:3], -1)
        return (logits.gather(-1, wanted) - logits.logsumexp(-1, keepdim=True)).exp()

    return _without_intermediates(asked, q, k)


def region_maps(
    q: Tensor, k: Tensor, heads: int, pools: Tensor, scale: float | None = None, mask: Tensor | None = None
) -> Tensor:
    """Self-attention that the positions of some regions pay, on average, to every position.

    Args:
        q: (b n (heads d)), image positions.
        k: (b n (heads d)).
        heads: number of heads.
        pools: (o n) or (b o n), shares of every position that lie in each region.
        scale: of the logits; None means 1 / sqrt(d).
        mask: as in `token_maps`.

    Returns:
        float32 (b heads n o); sums to 1 over n; differentiable in q and k.
    """
    pools = pools.float().expand(len(q), *pools.shape[-2:])
    pools = pools / pools.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)

    def pooled(q: Tensor, k: Tensor) -> Tensor:
        weights = _logits(q, k, heads, scale, mask).softmax(-1)
        return einsum(pools, weights, "b o query, b heads query key -> b heads key o")

    return _without_intermediates(pooled, q, k)


def _logits(q: Tensor, k: Tensor, heads: int, scale: float | None, mask: Tensor | None) -> Tensor:
    """float32 (b heads n t)."""
    q, k = (rearrange(x.float(), "b n (heads d) -> b heads n d", heads=heads) for x in (q, k))
    logits = einsum(q, k, "b heads n d, b heads t d -> b heads n t") * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        return logits
    mask = mask[:, None] if mask.ndim == 3 else mask
    return logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask.float()


def _without_intermediates(function: Callable[..., Tensor], q: Tensor, k: Tensor) -> Tensor:
    """Evaluate a function of which the backward pass keeps only the arguments."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad):
        return checkpoint(function, q, k, use_reentrant=False, preserve_rng_state=False)
    return function(q, k)


def average_maps(maps: Sequence[Tensor], height: int, width: int) -> Tensor:
    """Average maps of several grids on one: each is brought to the grid bilinearly.

    reconstructed: LRDiff averages one map per down stage; on which grid and with which resampling is not said.

    Args:
        maps: (b h w) each, any grids.
        height: rows of the result.
        width: columns of the result.

    Returns:
        (b height width).
    """
    resized = [F.interpolate(m[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0] for m in maps]
    return torch.stack(resized).mean(0)


def phrase_map(maps: Tensor, grid: tuple[int, int], columns: Sequence[int]) -> Tensor:
    """Where a phrase looks at one site: the mean over heads and over its tokens.

    Args:
        maps: (b heads (h w) m) of an `AttentionRecorder`.
        grid: rows and columns of the site.
        columns: which of the m are the phrase's.

    Returns:
        (b h w).
    """
    return rearrange(reduce(maps[..., list(columns)], "b heads n m -> b n", "mean"), "b (h w) -> b h w", h=grid[0])
