"""Attention maps of chosen tokens and regions from queries and keys, and how maps become one map of a phrase."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .in_blocks import query_blocks

INDICATOR = 2.0**10  # large, because half precision has no small numbers


def token_maps(
    q: Tensor,
    k: Tensor,
    heads: int,
    columns: Tensor,
    scale: float | None = None,
    mask: Tensor | None = None,
    *,
    rows: slice | None = None,
) -> Tensor:
    """Attention that every position pays to some tokens: the asked columns of softmax(q k^T / sqrt(d)).

    The softmax is over all tokens, but only the asked columns outlive the call, also for the backward pass, which
    evaluates the logits anew.

    Args:
        q: (b n (heads d)) or (b heads n d), image positions.
        k: (b t (heads d)) or (b heads t d), tokens.
        heads: number of heads.
        columns: int64 (m), or (b m) for each row.
        scale: of the logits; None means 1 / sqrt(d).
        mask: boolean (true takes part) or added to the logits; (n t), (b n t) or (b heads n t), broadcast.
        rows: queries that are asked, where they are image positions and others; some at a time then, so that no
            matrix of all queries and keys is ever there. None: all, at once.

    Returns:
        float32 (b heads n m); differentiable in q and k.
    """
    if columns.ndim == 1:
        columns = columns[None]
    # Cloned, because an index from inference mode cannot be kept for the way back.
    columns = columns.clone().expand(len(q), -1)

    def asked(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        logits = _logits(q, k, heads, scale, mask)
        wanted = columns[:, None, None].expand(-1, *logits.shape[1:3], -1)
        return (logits.gather(-1, wanted) - logits.logsumexp(-1, keepdim=True)).exp()

    if rows is None:
        return _without_intermediates(partial(asked, mask=mask), q, k)
    if q.device.type != "cpu":
        return indicator_maps(q, k, heads, columns, scale, mask, rows=rows)
    pieces = _pieces(q, k, heads, mask, rows)
    return torch.cat([_without_intermediates(partial(asked, mask=part), piece, k) for piece, part in pieces], 2)


def indicator_maps(
    q: Tensor,
    k: Tensor,
    heads: int,
    columns: Tensor,
    scale: float | None = None,
    mask: Tensor | None = None,
    *,
    rows: slice,
) -> Tensor:
    """The same as `token_maps`, by a fused kernel: attention whose values say which key is an asked one.

    softmax(q k^T) E with E_jc = 1 where key j is column c is the column itself, so what gives attention in little
    memory gives its maps in little memory, forward and backward.
    """
    if columns.ndim == 1:
        columns = columns[None]
    q, k = _heads_first(q, heads)[:, :, rows], _heads_first(k, heads)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    if mask is not None:
        mask = _rows_of(mask[:, None] if mask.ndim == 3 else mask, rows)
        mask = mask if mask.dtype == torch.bool else mask.to(q.dtype)
    # Cloned, because an index from inference mode cannot be kept for the way back.
    columns = columns.to(k.device).clone().expand(len(k), -1)
    asked = k.new_zeros(len(k), 1, k.shape[2], columns.shape[-1]).scatter_(2, columns[:, None, None], INDICATOR)
    found = []
    # Fused kernels want values as wide as the keys; others would make the whole softmax for them.
    for values in asked.split(k.shape[-1], -1):
        width = values.shape[-1]
        values = F.pad(values, (0, k.shape[-1] - width)).expand(-1, k.shape[1], -1, -1)
        found.append(F.scaled_dot_product_attention(q, k, values, mask, scale=scale)[..., :width].float() / INDICATOR)
    return torch.cat(found, -1)


def among_words(maps: Tensor, words: Sequence[int] | None = None) -> Tensor:
    """How a position's attention is shared out among some tokens: a softmax over their columns alone.

    Energies that compare words with each other, and the question which word is at a position, need this in joint
    attention, where most of a position's attention goes to the picture, less the larger it is (TACA, arXiv 2506.07986).

    Args:
        maps: (b heads n m), columns of a softmax over more than these.
        words: those of the m among which it is shared out; None: all.

    Returns:
        (b heads n m); the columns of the words sum to 1.
    """
    among = maps if words is None else maps[..., list(words)]
    return maps / among.sum(-1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


def region_maps(
    q: Tensor,
    k: Tensor,
    heads: int,
    pools: Tensor,
    scale: float | None = None,
    mask: Tensor | None = None,
    *,
    rows: slice | None = None,
) -> Tensor:
    """Self-attention that the positions of some regions pay, on average, to every position.

    Args:
        q: (b n (heads d)) or (b heads n d), image positions.
        k: as q.
        heads: number of heads.
        pools: (o n) or (b o n), shares of every position that lie in each region.
        scale: of the logits; None means 1 / sqrt(d).
        mask: as in `token_maps`.
        rows: the image positions, where q and k hold others too; evaluated some at a time then. None: all, at once.

    Returns:
        float32 (b heads n o); sums to 1 over n; differentiable in q and k.
    """
    pools = pools.float().expand(len(q), *pools.shape[-2:])
    pools = pools / pools.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)

    def pooled(q: Tensor, k: Tensor, mask: Tensor | None, pools: Tensor) -> Tensor:
        weights = _logits(q, k, heads, scale, mask).softmax(-1)
        return einsum(pools, weights, "b o query, b heads query key -> b heads key o")

    if rows is None:
        return _without_intermediates(partial(pooled, mask=mask, pools=pools), q, k)
    k = _heads_first(k, heads)[:, :, rows]
    mask = mask if mask is None or mask.shape[-1] == 1 else mask[..., rows]
    total, start = 0, 0
    for piece, part in _pieces(q, k, heads, mask, rows):
        own = pools[..., start : start + piece.shape[2]]
        total, start = (
            total + _without_intermediates(partial(pooled, mask=part, pools=own), piece, k),
            start + piece.shape[2],
        )
    return total


def _pieces(
    q: Tensor, k: Tensor, heads: int, mask: Tensor | None, rows: slice
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Some queries at a time, (b heads n d), with their part of the mask."""
    q = _heads_first(q, heads)
    for some in query_blocks(q, _heads_first(k, heads), rows):
        yield q[:, :, some], _rows_of(mask, some)


def _rows_of(mask: Tensor | None, rows: slice) -> Tensor | None:
    return mask if mask is None or mask.shape[-2] == 1 else mask[..., rows, :]


def _heads_first(x: Tensor, heads: int) -> Tensor:
    """(b heads n d) of either layout."""
    return x if x.ndim == 4 else rearrange(x, "b n (heads d) -> b heads n d", heads=heads)


def _logits(q: Tensor, k: Tensor, heads: int, scale: float | None, mask: Tensor | None) -> Tensor:
    """float32 (b heads n t)."""
    q, k = (_heads_first(x.float(), heads) for x in (q, k))
    if q.shape[1] != k.shape[1]:  # several heads of queries share one of keys
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
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


def in_frames(maps: Tensor, pictures: int, frames: int) -> Tensor:
    """Maps (n h w) of tokens as one for each frame of each picture, ((b f) h w); a token may cover several frames."""
    maps = rearrange(maps, "(b f) h w -> b f h w", b=pictures)
    return rearrange(maps.repeat_interleave(-(-frames // maps.shape[1]), 1)[:, :frames], "b f h w -> (b f) h w")


def smoothed(maps: Tensor) -> Tensor:
    """Blur maps (n h w) by a 3 x 3 Gaussian of one cell, as FOCUS does (arXiv 2510.02315)."""
    side = torch.exp(-0.5 * torch.arange(-1.0, 2.0, device=maps.device, dtype=maps.dtype) ** 2)
    kernel = side[:, None] * side[None] / side.sum() ** 2
    return F.conv2d(F.pad(maps[:, None], (1, 1, 1, 1), mode="replicate"), kernel[None, None])[:, 0]


def phrase_map(maps: Tensor, grid: tuple[int, int], columns: Sequence[int]) -> Tensor:
    """Where a phrase looks at one site: the mean over heads and over its tokens.

    Args:
        maps: (b heads (h w) m) of an `AttentionRecorder`, or (b heads (f h w) m) of a video.
        grid: rows and columns of the site.
        columns: which of the m are the phrase's.

    Returns:
        (b h w), or ((b f) h w) of a video.
    """
    mean = reduce(maps[..., list(columns)], "b heads n m -> b n", "mean")
    return rearrange(mean, "b (f h w) -> (b f) h w", h=grid[0], w=grid[1])
