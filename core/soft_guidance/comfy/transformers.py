"""The mask of soft guidance on the attentions of one forward pass of a transformer."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from torch import Tensor, nn

from ...attention.comfy.arguments import named_arguments
from ...attention.comfy.families import Family
from ...attention.comfy.orders import Call
from ...comfy.types import Options
from .attention import Attend, MaskedAttention, RowMasks


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
        bias = self._bias_of(q, k, named)
        if bias is None:
            return self.next(attend, q, k, v, heads, *args, **kwargs)
        return self.masked_attention(bias, attend, q, k, v, heads, **named)

    def _bias_of(self, q: Tensor, k: Tensor, named: Options) -> Tensor | None:
        """What a call's logits get; None where it is none that sees text, or not of the batch's rows."""
        axis = 2 if named.get("skip_reshape") else 1
        queries, keys = q.shape[axis], k.shape[axis]
        number = self.counts[queries, keys]
        self.counts[queries, keys] += 1
        if len(q) != self.inputs.shape[0]:
            return None
        options = named["transformer_options"]
        if self._refines(queries, keys, number):
            return self.call.text_bias(options, keys, q)
        inputs = self.inputs
        order = self.family.order(
            Call(self.network, queries, keys, inputs.shape, inputs.text, inputs.given, number, all_that_see=True)
        )
        if order is None or not order.words:
            return None
        self.masked += 1
        return self.call.token_bias(options, order, q, queries, keys)

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
