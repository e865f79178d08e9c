"""Soft guidance (Compose and Conquer, arXiv 2401.09048): tokens that only their own region of the picture looks at.

Tokens of a reference picture, or of any other prompt, stand behind the text in the context of cross-attention. Text
columns are open to every position of the picture; a region's columns only inside its mask. All columns share one
softmax, so a region's tokens compete with the text there and are not there at all elsewhere.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..attention.sites import CROSS, Site
from ..layout.masks import resample_by_area

PUBLISHED, AREA = "as published", "area"
RULES = (PUBLISHED, AREA)
WEIGHT_AT_1 = 10.0  # of a layout's phrases, what the node's strength of 1, as recommended, stands for
Grid = tuple[int, int]


@dataclass(frozen=True)
class TokenColumns:
    """Columns of a context that belong to one region.

    Attributes:
        start: first column, as in a slice: below 0 it is counted from the end of the context.
        stop: column behind the last, as in a slice; 0 is the end of the context.
        mask: which of the masks is the region's.
        outside: whether the columns are open where the mask is not, instead of where it is.
        weight: times what the softmax would pay to the columns: 2 is as if each stood there twice, 0 closes them.
    """

    start: int
    stop: int
    mask: int = 0
    outside: bool = False
    weight: float = 1.0

    def in_context(self, tokens: int) -> slice:
        """The columns of a context of so many tokens.

        Raises:
            ValueError: the context does not have them.
        """
        start = self.start + tokens if self.start < 0 else self.start
        stop = self.stop + tokens if self.stop <= 0 else self.stop
        if not 0 <= start < stop <= tokens:
            raise ValueError(
                f"A region's tokens are to be the columns {self.start} to {self.stop} of a context of {tokens} tokens. "
                "Give the context behind which they were appended."
            )
        return slice(start, stop)


def two_sides(tokens: int) -> tuple[TokenColumns, TokenColumns]:
    """Columns of Compose and Conquer's foreground and, behind them, background, `tokens` each, at the context's end."""
    return TokenColumns(-2 * tokens, -tokens), TokenColumns(-tokens, 0, outside=True)


def cell_mask(mask: Tensor, grid: Grid, rule: str = PUBLISHED) -> Tensor:
    """Decide which cells of an attention's grid belong to a mask.

    Args:
        mask: float (b h w) in 0..1, any size.
        grid: rows and columns of the queries.
        rule: "as published": bicubic without antialiasing, then everything but 0, overshoot included, which looks at a
            window of 4 x 4 pixels around a cell's centre and loses what is thinner than the gaps; on non-square grids,
            where the published code stops, the same. "area": cells of which at least half lies in the mask.

    Returns:
        bool (b (h w)) of the grid.

    Raises:
        ValueError: an unknown rule.
    """
    if rule == PUBLISHED:
        cells = F.interpolate(mask.float()[:, None], grid, mode="bicubic", align_corners=False)[:, 0] != 0
    elif rule == AREA:
        cells = resample_by_area(mask, *grid) >= 0.5
    else:
        raise ValueError(f'Soft guidance has no rule "{rule}" for masks; known: {", ".join(RULES)}.')
    return rearrange(cells, "b h w -> b (h w)")


def column_mask(
    masks: Sequence[Tensor], columns: Sequence[TokenColumns], tokens: int, grid: Grid, rule: str = PUBLISHED
) -> Tensor:
    """Which column each position may look at: M' of the paper, for any number of regions.

    Args:
        masks: (b h w) each in 0..1, any sizes, b pictures or 1 for all.
        columns: of the regions; those of nobody are text and open everywhere.
        tokens: in the context.
        grid: rows and columns of the queries.
        rule: of `cell_mask`.

    Returns:
        bool (b (h w) tokens).

    Raises:
        ValueError: columns that the context does not have, or an unknown rule.
    """
    return column_bias(masks, columns, tokens, grid, rule) > -torch.inf


def column_bias(
    masks: Sequence[Tensor], columns: Sequence[TokenColumns], tokens: int, grid: Grid, rule: str = PUBLISHED
) -> Tensor:
    """What is added to the logits: `column_mask` with the regions' weights.

    Args and errors as for `column_mask`.

    Returns:
        float32 (b (h w) tokens): 0 for open columns, the logarithm of the weight where it is not 1, -inf for closed.
    """
    cells = [cell_mask(mask, grid, rule) for mask in masks]
    rows = max((len(each) for each in cells), default=1)
    device = cells[0].device if cells else None
    bias = torch.zeros(rows, grid[0] * grid[1], tokens, device=device)
    for each in columns:
        is_open = ~cells[each.mask] if each.outside else cells[each.mask]
        log_weight = math.log(each.weight) if each.weight > 0 else -torch.inf
        bias[:, :, each.in_context(tokens)] = torch.where(is_open, log_weight, -torch.inf)[:, :, None]
    return bias


def joined_mask(bias: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Add a bias to the mask that an attention has already.

    Args:
        bias: float (b n t), -inf for closed columns.
        mask: boolean (true takes part) or added to the logits; (n t), (b n t) or (b heads n t), broadcast; or none.
        dtype: of the queries.

    Returns:
        What is added to the logits, with the lowest number of the type for closed columns: (b n t), or (b heads n t).
    """
    if mask is not None:
        mask = mask if mask.dtype == torch.bool else mask.float()
        bias = bias[:, None] if mask.ndim == 4 else bias
        bias = bias.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else bias + mask
    return bias.to(dtype).clamp(min=torch.finfo(dtype).min)


class SoftGuidance:
    """Attention processor that keeps every region's tokens to its region; one for each run.

    It remembers what it has made for each grid, so it belongs to one run's masks and device.
    """

    def __init__(self, masks: Sequence[Tensor], columns: Sequence[TokenColumns], rule: str = PUBLISHED) -> None:
        """Take masks, columns and rule as `column_mask` does."""
        self.masks, self.columns, self.rule = tuple(masks), tuple(columns), rule
        self._known: dict[tuple[Grid, int, torch.dtype, torch.device], Tensor] = {}

    def bias(self, grid: Grid, tokens: int, like: Tensor) -> Tensor:
        """`column_bias` as `joined_mask` gives it, in the type and on the device of another tensor."""
        key = (grid, tokens, like.dtype, like.device)
        if key not in self._known:
            bias = column_bias(self.masks, self.columns, tokens, grid, self.rule)
            self._known[key] = joined_mask(bias, None, like.dtype).to(like.device)
        known = self._known[key]
        # What inference mode has made cannot be kept for a way back.
        return known.clone() if known.is_inference() and torch.is_grad_enabled() else known

    def __call__(
        self,
        attend: Callable[..., Tensor],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        mask: Tensor | None,
        site: Site,
    ) -> Tensor:
        """Attend with the closed columns masked.

        Args:
            attend: the rest of the stack, `(q, k, v, heads, mask, site) -> out`.
            q: (b (h w) (heads d)).
            k: (b t (heads d)).
            v: (b t (heads d)).
            heads: number of heads.
            mask: as `joined_mask` takes it.
            site: a cross-attention; others are handed on as they are.

        Returns:
            (b (h w) (heads d)).
        """
        if site.stream != CROSS:
            return attend(q, k, v, heads, mask, site)
        bias = self.bias(site.grid, k.shape[1], q)
        return attend(q, k, v, heads, bias if mask is None else joined_mask(bias, mask, q.dtype), site)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, *, grid: Grid) -> Tensor:
        """Attend, for networks that take an attention function: shapes as in `__call__`."""
        q, k, v = (rearrange(x, "b n (heads d) -> b heads n d", heads=heads) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, self.bias(grid, k.shape[2], q)[:, None])
        return rearrange(out, "b heads n d -> b n (heads d)")
