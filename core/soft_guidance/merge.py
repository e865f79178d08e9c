"""Soft guidance in joint attention without a mask: attentions over parts of the keys, merged by their log-sum-exps.

Who sees whom is that of `joint.joint_bias`. Most tokens see the same keys, those that belong to all, so they are one
attention without a mask, which any fused kernel evaluates. What a region's cells see besides is another one, of few
keys. With out and lse of both, over keys A and over keys B with weight w,

    lse = log(exp(lse_A) + w exp(lse_B)),    out = exp(lse_A - lse) out_A + w exp(lse_B - lse) out_B

is the attention over A and B (as flash attention merges blocks, Dao et al., arXiv 2205.14135). Nothing of the size of
queries times keys is ever in memory, and closed pairs are not evaluated at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..attention.token_order import TokenOrder
from ..attention.with_lse import attention_with_lse
from .joint import CLOSED

Tokens = slice | Tensor  # a tensor of their numbers where they are not neighbours
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # (b heads n d) each, without a mask


@dataclass(frozen=True)
class Part:
    """An attention of some queries over some keys.

    Attributes:
        rows: of the queries.
        keys: that they see.
        log_weight: what is added to all its logits.
    """

    rows: Tokens
    keys: Tokens
    log_weight: float = 0.0


@dataclass(frozen=True)
class Parts:
    """One joint attention, taken apart.

    Attributes:
        base: no two have a row in common; rows of none are those of columns that nobody sees.
        added: what rows of `base` see besides.
    """

    base: tuple[Part, ...]
    added: tuple[Part, ...] = ()


def joint_parts(
    order: TokenOrder,
    keys: int,
    seen: Tensor,
    spans: Sequence[slice],
    hard: Sequence[bool] = (),
    *,
    folds: bool = False,
) -> Parts:
    """Take a joint attention apart so that it is the one with `joint_bias` on its logits.

    Args:
        order: where text and picture are.
        keys: tokens of the whole sequence.
        seen: (n t), of one picture, as `joint_bias` takes it of several; a region has one weight in all its cells.
        spans: columns of each region among the t.
        hard: as `joint_bias` takes it.
        folds: put a region's columns of weight 1 among the keys of its cells instead of beside them: more attentions,
            but where all weights are 1 nothing has to be merged, so any attention can evaluate them.
    """
    device = seen.device
    everywhere = repeat(seen, "n t -> (f n) t", f=order.frames)
    first = everywhere[:, [span.start for span in spans]]
    numbers = torch.arange(keys, device=device)
    text, image = numbers[order.text], numbers[order.image]
    inside = torch.zeros(keys, len(spans) + 1, dtype=torch.bool, device=device)  # and of no region
    inside[order.image, : len(spans)] = first > CLOSED
    log_weights = [float(column.amax()) for column in first.T]
    is_private = torch.zeros(keys, dtype=torch.bool, device=device)
    is_private[order.text] = (seen == CLOSED).all(0)
    for span in spans:
        is_private[text[span]] = True
    shared = numbers[~is_private]
    apart = torch.zeros(len(spans) + 1, dtype=torch.bool, device=device)
    if sum(hard) > 1:
        apart[: len(hard)] = torch.tensor(hard, device=device)
    folded = torch.tensor([*(folds and weight == 0 for weight in log_weights), False], device=device)
    # Tokens that see the same keys are rows of one attention.
    kinds, which = torch.unique(inside[shared] & (apart | folded), dim=0, return_inverse=True)
    base = []
    for number, kind in enumerate(kinds):
        is_seen = ~is_private
        if bool((kind & apart).any()):
            is_seen &= ~((inside & apart).any(1) & ~(inside & apart & kind).any(1))
        for region in (kind & folded).nonzero().flatten().tolist():
            is_seen[text[spans[region]]] = True
        base.append(Part(_compact(shared[which == number]), _compact(numbers[is_seen])))
    added = []
    for region, (span, log_weight) in enumerate(zip(spans, log_weights, strict=True)):
        cells = image[inside[order.image, region]]
        base.append(Part(_compact(text[span]), _compact(torch.cat([text[span], cells]).sort().values)))
        if len(cells) and not folded[region]:
            added.append(Part(_compact(cells), _compact(text[span]), log_weight))
    return Parts(tuple(base), tuple(added))


def merged_attention(q: Tensor, k: Tensor, v: Tensor, parts: Sequence[Parts], attend: Attend | None = None) -> Tensor:
    """Evaluate a joint attention that was taken apart.

    Args:
        q: (b heads n d).
        k: as q.
        v: as q.
        parts: of each row of the batch; rows that have the very same object are evaluated together.
        attend: what evaluates rows of which nothing has to be merged; None: what evaluates the others.

    Returns:
        (b heads n d), 0 in the rows of columns that nobody sees.
    """
    found, start = [], 0
    for _, same in groupby(parts, key=id):
        rows = list(same)
        batch = slice(start, start + len(rows))
        found.append(_merged(q[batch], k[batch], v[batch], rows[0], attend))
        start += len(rows)
    return found[0] if len(found) == 1 else torch.cat(found)


def _merged(q: Tensor, k: Tensor, v: Tensor, parts: Parts, attend: Attend | None) -> Tensor:
    # Heads behind tokens in memory, as who joins them wants it.
    out = rearrange(q.new_zeros(len(q), q.shape[2], q.shape[1], v.shape[3]), "b n heads d -> b heads n d")
    lse = q.new_zeros(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))
    for part in parts.base:
        given = _of(q, part.rows), _of(k, part.keys), _of(v, part.keys)
        if attend is not None and not parts.added:
            out = _put(out, part.rows, attend(*given))
        else:
            found, found_lse = attention_with_lse(*given)
            out, lse = _put(out, part.rows, found), _put(lse, part.rows, found_lse)
    for part in parts.added:
        more, more_lse = attention_with_lse(_of(q, part.rows), _of(k, part.keys), _of(v, part.keys))
        more_lse = more_lse + part.log_weight
        before, before_lse = _of(out, part.rows), _of(lse, part.rows)
        both = torch.logaddexp(before_lse, more_lse)
        shares = [(each - both).exp()[..., None] for each in (before_lse, more_lse)]
        out = _put(out, part.rows, (before * shares[0] + more * shares[1]).to(out.dtype))
        lse = _put(lse, part.rows, both)
    return out


def _of(x: Tensor, tokens: Tokens) -> Tensor:
    """Some tokens of (b heads n ...)."""
    return x[:, :, tokens] if isinstance(tokens, slice) else x.index_select(2, tokens)


def _put(x: Tensor, tokens: Tokens, values: Tensor) -> Tensor:
    """Write them; in place where there is no way back, which may still need what they replace."""
    if values.requires_grad:
        if isinstance(tokens, slice):
            return x.slice_scatter(values, 2, tokens.start, tokens.stop)
        return x.index_copy(2, tokens, values)
    if isinstance(tokens, slice):
        x[:, :, tokens] = values
        return x
    return x.index_copy_(2, tokens, values)


def _compact(numbers: Tensor) -> Tokens:
    """Neighbours as a slice, which copies nothing."""
    if not len(numbers):
        return slice(0, 0)
    start, stop = int(numbers[0]), int(numbers[-1]) + 1
    return slice(start, stop) if stop - start == len(numbers) else numbers
