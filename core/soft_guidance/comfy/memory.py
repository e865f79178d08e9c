"""What a run of soft guidance remembers from one evaluation of prompts to the next."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from ...comfy.types import Entry
from ..merge import Parts
from .columns import EntryColumns

WRAPPER = "stagecraft_soft_guidance"
LARGEST_BIAS = 2**24  # bytes


class Memory:
    """What is remembered from one evaluation of prompts to the next.

    Attributes:
        drops_masks: whether the attention in use was found to ignore masks, by the shape of what it is given, for a
            kernel may take heads of one width and leave others to another; without a shape that was not tried.
        biases: that were made.
        largest_bias: bytes of a mask from which on joint attention is evaluated without one.
    """

    def __init__(self, largest_bias: int = LARGEST_BIAS) -> None:
        self.largest_bias = largest_bias
        self.drops_masks: dict[tuple[int, ...], bool] = {}
        self.biases: dict[Hashable, Tensor] = {}
        self._parts: dict[Hashable, list[Parts]] = {}
        self._columns: dict[Hashable, tuple[Tensor, EntryColumns]] = {}

    def columns_of(self, place: int, entry: Entry, x: Tensor, *, fills_left: bool) -> EntryColumns:
        """What an entry's context is made of; the same object as long as nothing has changed."""
        conds, area = entry["model_conds"], entry.get("area")
        text, regions = conds["c_crossattn"].cond, conds[WRAPPER].cond if WRAPPER in conds else ()
        key = (place, entry["uuid"], area and tuple(area), tuple(x.shape[-2:]))
        known = self._columns.get(key)
        if known is None or known[0] is not text:
            columns = EntryColumns(text, regions, key[2], key[3], fills_left=fills_left)
            known = self._columns[key] = (text, columns)
        return known[1]

    def parts_of(self, key: Hashable, make: Callable[[], list[Parts]]) -> list[Parts]:
        """What joint attention is taken apart into."""
        if key not in self._parts:
            with torch.inference_mode(False):  # numbers of tokens that were made in it cannot be kept for a way back
                self._parts[key] = make()
        return self._parts[key]
