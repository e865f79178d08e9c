"""Which blocks of a transformer show where phrases look, found without labels: those whose maps agree with the others'.

Published choices disagree (Seg4Diff, arXiv 2509.18096: the ninth of SD 3's 24; ConceptAttention, arXiv 2502.04320:
Flux's last double blocks; FOCUS, arXiv 2510.02315: all), and averaging all costs much, so it is measured, once a run.
Ours: on Sticker World's U-Net it picks the sites whose maps hit the exact masks best, at every noise level
(`tests/sticker_world/test_block_choice.py`), where smoothness, disjointness and the text's share mislead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

FINEST = 32  # cells along the longer side of the maps that are compared
FIRST_SHARE = 0.6  # of the blocks; a pass that ends behind the last chosen one is shorter by the rest
MOST, LEAST, SHARE = 5, 2, 5  # a fifth of the blocks, within these bounds


def pooled_map(found: Tensor, grid: tuple[int, int]) -> Tensor:
    """What the choice needs of a block's map: its mean over heads, on a grid that is fine enough.

    Args:
        found: (b heads (f h w) m).
        grid: rows and columns of a frame.

    Returns:
        (b m f h' w'), float32.
    """
    maps = reduce(found.detach().float(), "b heads n m -> b n m", "mean")
    maps = rearrange(maps, "b (f h w) m -> (b m) f h w", h=grid[0], w=grid[1])
    scale = min(1.0, FINEST / max(grid))
    size = tuple(max(1, round(scale * side)) for side in grid)
    maps = maps if size == grid else F.interpolate(maps, size, mode="area")
    return rearrange(maps, "(b m) f h w -> b m f h w", b=len(found))


@dataclass(frozen=True)
class WordMaps:
    """What the blocks of a network show of the words of one prompt.

    Attributes:
        maps: of every block in order of evaluation, (b m f h w) of `pooled_map`, of one grid.
        phrases: of each, which of the m are its tokens.
        words: which of the m are words of the prompt, the phrases' among them.
    """

    maps: Sequence[Tensor]
    phrases: Sequence[Sequence[int]]
    words: Sequence[int]


def choose_blocks(prompts: Sequence[WordMaps]) -> list[int]:
    """Choose the blocks in whose maps phrases are where most other blocks have them.

    How much a block looks at the text at all says nothing: in the embedded transformer those whose maps lie on the
    things best give it a tenth of what an even look would, because most of the 77 tokens are the prompt's end.

    Args:
        prompts: one for each picture with a prompt of its own.

    Returns:
        Numbers of the best `MOST` to `LEAST` among the first `FIRST_SHARE` of all, ascending; none where no block says
        anything: a phrase that is all of a prompt stands out from no other word.
    """
    contrasted = [
        replace(each, phrases=[phrase for phrase in each.phrases if not set(phrase) >= set(each.words)])
        for each in prompts
    ]
    told = [each for each in contrasted if each.phrases]
    blocks = len(told[0].maps) if told else 0
    if not blocks:
        return []
    scores = torch.stack([block_scores(each) for each in told]).mean(0).tolist()
    first = max(LEAST, FIRST_SHARE * blocks)
    ranked = sorted((-score, i) for i, score in enumerate(scores) if i < first)
    count = min(MOST, max(LEAST, round(blocks / SHARE)))
    return sorted(i for _, i in ranked[:count])


def block_scores(prompt: WordMaps) -> Tensor:
    """How much each block agrees with all the others on where phrases are.

    A phrase's contrast map is its share among the words, z-scored, so that what all words have in common cancels:
    stripes of positions, and sinks. A block's score is the mean over phrases of the correlation of its contrast map
    with the mean of all other blocks'.

    Returns:
        (blocks), at most 1.
    """
    contrasts = torch.stack([_contrasts(each, prompt.phrases, prompt.words) for each in prompt.maps])
    total = contrasts.sum(0)
    scores = []
    for own in contrasts:
        others = (total - own) / max(1, len(contrasts) - 1)
        deviation = others.std(-1)
        scores.append(((own * others).mean(-1) / deviation.where(deviation > 0, 1)).mean())
    return torch.stack(scores)


def _contrasts(maps: Tensor, phrases: Sequence[Sequence[int]], words: Sequence[int]) -> Tensor:
    """(phrases b n) of one block, with mean 0 and deviation 1."""
    maps = rearrange(maps, "b m f h w -> b m (f h w)")
    every = maps[:, list(words)].mean(1).clamp(min=torch.finfo(maps.dtype).tiny)
    found = torch.stack([maps[:, list(phrase)].mean(1) / every for phrase in phrases])
    found = found - found.mean(-1, keepdim=True)
    deviation = found.std(-1, keepdim=True)
    return found / deviation.where(deviation > 0, 1)
