"""What the context of one conditioning entry is made of under soft guidance."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ..soft_guidance import TokenColumns, column_bias
from .tokens import RegionTokens

Area = tuple[int, ...] | None


class EntryColumns:
    """The context of one entry: its text, behind it each region's tokens, and columns that nobody sees.

    Attributes:
        length: in tokens, without the columns that nobody sees.
        size: rows and columns of latent cells that the entry is evaluated on.
        pictures: of the batch that have masks or tokens of their own; 1: all share them.
        spans: columns of each region.
        hard_until: share of the run in which the cells of each region see no cell of another one.
    """

    def __init__(
        self,
        text: Tensor,
        regions: Sequence[tuple[RegionTokens, str]],
        area: Area,
        latent: tuple[int, int],
        *,
        fills_left: bool = False,
    ) -> None:
        self.text = text
        self.size = latent if area is None else tuple(map(_clipped, latent, area[:2], area[2:]))
        self.pictures = max([1, *(max(len(region.mask), len(region.tokens)) for region, _ in regions)])
        self.tokens = [region.tokens.to(text) for region, _ in regions]
        self.masks: dict[str, list[Tensor]] = {}
        self.columns: dict[str, list[TokenColumns]] = {}
        self.spans: list[slice] = []
        self.hard_until = tuple(region.hard_until for region, _ in regions)
        count = sum(region.tokens.shape[1] for region, _ in regions)
        # Flux.2 numbers its tokens from 0 to 511 and fills up on the left: tokens behind had numbers it has never seen.
        free = _empty_columns(text) if fills_left and count else 0
        self.start = free - count if 0 < count <= free else text.shape[1]
        self.length = max(text.shape[1], self.start + count)
        stop = self.start
        for region, rule in regions:
            start, stop = stop, stop + region.tokens.shape[1]
            self.spans.append(slice(start, stop))
            masks = self.masks.setdefault(rule, [])
            columns = TokenColumns(start, stop, len(masks), region.outside, region.weight)
            self.columns.setdefault(rule, []).append(columns)
            masks.append(_cropped(region.mask.to(text.device), area, latent))
        # Equal for entries whose masks on attention are equal.
        columns_of_rules = tuple((rule, tuple(columns)) for rule, columns in self.columns.items())
        self.signature = (text.shape[1], area, columns_of_rules, tuple(id(region.mask) for region, _ in regions))
        self._context: Tensor | None = None

    def context(self, length: int, *, keeps_mean: bool = False) -> Tensor:
        """The whole context.

        Args:
            length: in tokens.
            keeps_mean: whether the mean over all columns shall be that over the text; those that nobody sees can hold
                any values.

        Returns:
            (b length c).
        """
        if self._context is None or self._context.shape[1] != length:
            behind = sum(each.shape[1] for each in self.tokens) + self.start
            parts = [self.text[:, : self.start], *self.tokens, self.text[:, behind:]]
            rows = max(len(part) for part in parts)
            joined = torch.cat([repeat_to_batch_size(part, rows) for part in parts], 1)
            self._context = F.pad(joined, (0, 0, 0, length - self.length))
            if keeps_mean and length > self.length:
                missing = length * self.text.float().mean(1) - joined.float().sum(1)
                self._context[:, self.length :] = (missing / (length - self.length))[:, None].to(joined)
        return self._context

    def bias(self, grid: tuple[int, int], length: int) -> Tensor:
        """`column_bias` of this context, (b n length)."""
        biases = [
            column_bias(self.masks[rule], columns, length, grid, rule) for rule, columns in self.columns.items()
        ] or [torch.zeros(1, grid[0] * grid[1], length, device=self.text.device)]
        bias = sum(biases[1:], biases[0])
        bias[..., self.length :] = -torch.inf
        return bias


def _empty_columns(text: Tensor) -> int:
    """How many columns of a text (b t c) before its first word are nothing but zeros."""
    is_word = (text != 0).any(-1).any(0)
    return int(is_word.int().argmax()) if bool(is_word.any()) else 0


def _clipped(cells: int, length: int, start: int) -> int:
    """How much of a length lies on the canvas."""
    return min(cells - start, length)


def _cropped(mask: Tensor, area: Area, latent: tuple[int, int]) -> Tensor:
    """The part of a mask (b h w) under an entry's area (rows, columns, top, left in latent cells)."""
    if area is None:
        return mask
    for axis, (cells, length, start) in enumerate(zip(latent, area[:2], area[2:], strict=True)):
        pixels = mask.shape[axis + 1]
        first, end = (round(min(edge, cells) * pixels / cells) for edge in (start, start + length))
        mask = mask.narrow(axis + 1, min(first, pixels - 1), max(1, end - first))
    return mask
