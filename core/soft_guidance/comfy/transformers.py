"""The mask of soft guidance on the attentions of one forward pass of a transformer, or what does the same without one.

A bias (b keys keys) is at hand for every attention, and cheap as long as it is small. A large one costs memory, keeps
the fastest kernels off, and some attentions ignore it; there joint attention is taken apart, see `merge`. Text that is
refined, and cross-attention, have no keys of the picture, so their masks stay small.
"""

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from einops import rearrange
from torch import Tensor, nn

from ...attention.comfy.arguments import named_arguments
from ...attention.comfy.families import Family
from ...attention.comfy.orders import Call
from ...attention.token_order import TokenOrder
from ...comfy.types import Options
from ..merge import merged_attention
from .attention import KEEP_MASKS, Attend, MaskedAttention, RowMasks

OF_LOGITS = ("scale", "enable_gqa")  # what newer versions can be asked for besides
MOST_PARTS = 64  # of one row's attention; masks that overlap in many ways have more, hard ones above all


@dataclass(frozen=True)
class Inputs:
    """What goes into an evaluation of a network.

    Attributes:
        shape: of the latent.
        text: tokens of the context.
        given: the rest, by name.
    """

    shape: Sequence[int]
    text: int
    given: Mapping[str, object]


class TransformerForward(MaskedAttention):
    """Finds the attentions to the text in one forward pass, those that refine it among them, and masks them.

    Args:
        call: knows the mask of every row.
        before: attention override of other packs, or none; it goes on being called, with the mask.
        network: that is evaluated.
        family: of its class.
        inputs: what it is given.
    """

    def __init__(
        self,
        call: RowMasks,
        before: Attend | None,
        network: nn.Module,
        family: Family,
        inputs: Inputs,
    ) -> None:
        super().__init__(call, before)
        self.network, self.family, self.inputs = network, family, inputs
        self.refiners = len(attrgetter(family.refiner)(network)) if family.refiner else 0
        self.counts: Counter[tuple[int, int]] = Counter()
        self.masked = 0

    def attend(
        self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: object, **kwargs: object
    ) -> Tensor:
        """Attention override."""
        named = named_arguments(args, kwargs)
        axis = 2 if named.get("skip_reshape") else 1
        queries, keys = q.shape[axis], k.shape[axis]
        number = self.counts[queries, keys]
        self.counts[queries, keys] += 1
        plain = partial(self.next, attend, q, k, v, heads, *args, **kwargs)
        if len(q) != self.inputs.shape[0]:  # not of the batch's rows
            return plain()
        options = named["transformer_options"]
        if self._refines(queries, keys, number):
            return self.masked_attention(self.call.text_bias(options, keys, q), attend, q, k, v, heads, **named)
        inputs = self.inputs
        order = self.family.order(
            Call(self.network, queries, keys, inputs.shape, inputs.text, inputs.given, number, all_that_see=True)
        )
        if order is None or not order.words:
            return plain()
        self.masked += 1
        if self._is_mergeable(order, attend, q, k, heads, named):
            merged = self._merged(order, attend, q, k, v, heads, named)
            if merged is not None:
                return merged
        bias = self.call.token_bias(options, order, q, queries, keys)
        return self.masked_attention(bias, attend, q, k, v, heads, **named)

    def _is_mergeable(
        self, order: TokenOrder, attend: Attend, q: Tensor, k: Tensor, heads: int, named: Options
    ) -> bool:
        """Whether a call is to be evaluated without a mask, and can be."""
        is_other = named.get("mask") is not None or q.numel() != k.numel() or any(map(named.get, OF_LOGITS))
        if not order.is_joint or is_other:
            return False
        if self.call.drops_masks.get((*q.shape[1:], heads)):
            return True
        # Another pack's override may look for the text in what it is given, or change the attention as a whole.
        keys = k.shape[2 if named.get("skip_reshape") else 1]
        return self.before is None and len(q) * keys**2 * q.element_size() > self.call.largest_bias

    def _merged(
        self, order: TokenOrder, attend: Attend, q: Tensor, k: Tensor, v: Tensor, heads: int, named: Options
    ) -> Tensor | None:
        """The attention without a mask; None where it has too many parts."""
        if not named.get("skip_reshape"):  # SD 3 has the heads of its values apart, behind the tokens
            q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))

        def in_use(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            how = named | {"skip_reshape": True, "skip_output_reshape": True}
            return self.next(attend, q, k, v, heads, **how)

        # Those that keep masks are ComfyUI's plain ones; of others the speed is wanted that they were chosen for.
        folds = self.before is not None or inspect.unwrap(attend) not in KEEP_MASKS
        parts = self.call.token_parts(named["transformer_options"], order, q, k.shape[2], folds=folds)
        if max(len(each.base) + len(each.added) for each in parts) > MOST_PARTS:
            return None
        out = merged_attention(q, k, v, parts, in_use if folds else None)
        return out if named.get("skip_output_reshape") else rearrange(out, "b heads n d -> b n (heads d)")

    def _refines(self, queries: int, keys: int, number: int) -> bool:
        """Whether a call is one of those that refine the text; they come before others of the same shape."""
        if number >= self.refiners or queries != keys:
            return False
        multiple = getattr(self.network, "pad_tokens_multiple", None) or 1
        return keys in (self.inputs.text, self.inputs.text + -self.inputs.text % multiple)

    def check(self) -> None:
        """Make sure, behind the pass, that the text was seen and masked.

        Raises:
            ValueError: it was not, for another pack has put a function in the place of attention.
        """
        if not self.masked:
            raise ValueError(
                "Another node has replaced the attention of this model by one that soft guidance cannot mask, or cuts "
                "the picture into parts. Remove that node, or the start option that chooses it."
            )
