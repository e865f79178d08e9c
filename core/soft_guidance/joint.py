"""Soft guidance where text and picture attend in one sequence: a region's text is closed to other places and texts.

In cross-attention only the picture's rows have to be masked, for the text is the same in every block. In joint
attention it is a state: a word of the prompt that may look at a region's words carries them everywhere in the next
block. So a region's words see themselves and their own cells, and are seen by these alone. What refines the text before
it meets the picture has to be closed in the same way.

Rows against keys; G the prompt, R a region's words, I its cells, "w" open with the logarithm of a weight:

|        | G | R own | R other | I own | other cells |
|--------|---|-------|---------|-------|-------------|
| G      | o | x     | x       | o     | o           |
| R      | x | o     | x       | o     | x           |
| I      | o | w     | x       | o     | o, hard: x  |
| others | o | x     | x       | o     | o           |
"""

from collections.abc import Sequence

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..attention.token_order import TokenOrder

CLOSED = -torch.inf


def text_bias(spans: Sequence[slice], tokens: int, device: torch.device | None = None) -> Tensor:
    """What is added to the logits of text that attends to itself.

    Args:
        spans: columns of each region, each of which sees itself alone, and of those that nobody sees.
        tokens: in all.
        device: of the result.

    Returns:
        float32 (tokens tokens): 0 for open, -inf for closed.
    """
    part = torch.zeros(tokens, dtype=torch.int64, device=device)  # 0: the prompt's own
    for number, span in enumerate(spans, start=1):
        part[span] = number
    is_closed = part[:, None] != part[None]
    return torch.zeros(tokens, tokens, device=device).masked_fill(is_closed, CLOSED)


def joint_bias(order: TokenOrder, keys: int, seen: Tensor, spans: Sequence[slice], hard: Sequence[bool] = ()) -> Tensor:
    """What is added to the logits of one joint attention.

    Args:
        order: where text and picture are.
        keys: tokens of the whole sequence.
        seen: (b n t), what the cells of one frame may see of the text, as `soft_guidance.column_bias` gives it; columns
            that are closed everywhere are nobody's.
        spans: columns of each region among the t.
        hard: whether the cells of each region see no cell of another one; none: of no region.

    Returns:
        float32 (b keys keys).
    """
    seen = seen.float()
    bias = torch.zeros(len(seen), keys, keys, device=seen.device)
    text, image = order.text, order.image
    everywhere = repeat(seen, "b n t -> b (f n) t", f=order.frames)
    bias[:, image, text] = everywhere
    inside = [everywhere[..., span.start] > CLOSED for span in spans]
    # Whatever is neither the picture nor a region's own sees the columns that belong to all.
    is_own = torch.zeros(order.words, dtype=torch.bool, device=seen.device)
    for span in spans:
        is_own[span] = True
    private = torch.arange(text.start, text.stop, device=seen.device)[is_own | (seen == CLOSED).all(1).all(0)]
    shared_rows = torch.ones(keys, dtype=torch.bool, device=seen.device)
    shared_rows[image] = False
    shared_rows[private] = False
    bias[:, shared_rows.nonzero(), private] = CLOSED
    for span, cells in zip(spans, inside, strict=True):
        rows = slice(text.start + span.start, text.start + span.stop)
        bias[:, rows] = CLOSED
        bias[:, rows, rows] = 0
        bias[:, rows, image] = torch.where(cells, 0.0, CLOSED)[:, None]
    apart = [cells for cells, is_hard in zip(inside, hard, strict=False) if is_hard]
    if len(apart) > 1:
        members = rearrange(apart, "regions b n -> b n regions").float()
        is_in = members.any(-1)
        strangers = is_in[:, :, None] & is_in[:, None] & (members @ members.mT == 0)
        bias[:, image, image] = bias[:, image, image].masked_fill(strangers, CLOSED)
    return bias


def cross_bias(order: TokenOrder, queries: int, seen: Tensor, spans: Sequence[slice]) -> Tensor:
    """What is added to the logits of a transformer's cross-attention to its text.

    Args:
        order: where the picture is among the queries.
        queries: tokens.
        seen: (b n t) as in `joint_bias`.
        spans: columns of each region among the t.

    Returns:
        float32 (b queries t); queries that are no cells of the picture, such as a reference's, see no region.
    """
    bias = torch.zeros(len(seen), queries, seen.shape[-1], device=seen.device)
    for span in spans:
        bias[..., span] = CLOSED
    bias.masked_fill_((seen == CLOSED).all(1, keepdim=True), CLOSED)
    bias[:, order.image] = repeat(seen.float(), "b n t -> b (f n) t", f=order.frames)
    return bias
