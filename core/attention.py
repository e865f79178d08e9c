"""Cross-attention maps of phrases."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor


def phrase_attention(q: Tensor, k: Tensor, heads: int, columns: Tensor) -> Tensor:
    """Attention that every position pays to some tokens: the mean over heads and tokens of softmax(q k^T / sqrt(d)).

    Args:
        q: (b n (heads d)), image positions.
        k: (b t (heads d)), tokens.
        heads: number of heads.
        columns: int64 (m), the tokens that are asked for.

    Returns:
        float32 (b n); only the asked columns of the softmax are kept in memory.
    """
    q, k = (rearrange(x.float(), "b n (heads d) -> b heads n d", heads=heads) for x in (q, k))
    logits = torch.einsum("bhnd,bhtd->bhnt", q, k) * q.shape[-1] ** -0.5
    chosen = (logits[..., columns] - logits.logsumexp(-1, keepdim=True)).exp()
    return reduce(chosen, "b heads n m -> b n", "mean")


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
