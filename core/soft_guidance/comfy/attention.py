"""The mask of soft guidance on the attentions of one forward pass, beside whatever other packs do there."""

import inspect
import logging
from collections.abc import Callable
from typing import Protocol

import torch
from comfy.ldm.modules import attention as backends
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

from ...attention.comfy.arguments import named_arguments
from ...attention.token_order import TokenOrder
from ...comfy.types import Options
from ..merge import Parts
from ..soft_guidance import joined_mask

Attend = Callable[..., Tensor]
# ComfyUI's own functions that add a mask to the logits; others may hand it to a kernel that ignores it. An override is
# given what is inside ComfyUI's wrapper around them.
KEEP_MASKS = tuple(
    inspect.unwrap(getattr(backends, name))
    for name in ("attention_pytorch", "attention_sub_quad", "attention_split", "attention_basic")
    if hasattr(backends, name)
)


class RowMasks(Protocol):
    """Knows what every row of an evaluation sees, see `call.SoftCall`.

    Attributes:
        drops_masks: whether the attention in use was found to ignore masks, by the shape of what it is given.
        largest_bias: bytes of a mask from which on joint attention is evaluated without one.
    """

    drops_masks: dict[tuple[int, ...], bool]
    largest_bias: int

    def bias(self, options: Options, grid: tuple[int, int], q: Tensor, length: int) -> Tensor:
        """What is added to the logits of all rows in a U-Net's cross-attention, (b n length) or (1 n length)."""

    def token_bias(self, options: Options, order: TokenOrder, q: Tensor, queries: int, keys: int) -> Tensor:
        """The same in a transformer, (b queries keys) or (1 queries keys)."""

    def token_parts(self, options: Options, order: TokenOrder, q: Tensor, keys: int, *, folds: bool) -> list[Parts]:
        """What gives the same in joint attention without a mask, for each row."""

    def text_bias(self, options: Options, tokens: int, q: Tensor) -> Tensor:
        """The same where text is refined, (b tokens tokens)."""

    def text_columns(self, options: Options, rows: int, device: torch.device) -> Tensor:
        """Where each row's text is, (rows t)."""


class MaskedAttention:
    """An attention override that can put a mask on a call.

    Args:
        call: knows the mask of every row.
        before: attention override of other packs, or none; it goes on being called, with the mask.
    """

    def __init__(self, call: RowMasks, before: Attend | None) -> None:
        self.call, self.before = call, before

    def next(self, attend: Attend, *args: object, **kwargs: object) -> Tensor:
        """The attention that is in use without a mask of ours."""
        return attend(*args, **kwargs) if self.before is None else self.before(attend, *args, **kwargs)

    def masked_attention(
        self, bias: Tensor, attend: Attend, q: Tensor, k: Tensor, v: Tensor, heads: int, **named: object
    ) -> Tensor:
        """The same with a bias (b n t) on its logits; by PyTorch's attention where the one in use ignores masks."""
        given = named.get("mask")
        named["mask"] = bias if given is None else joined_mask(bias.float(), given, q.dtype)
        found, shape = self.call.drops_masks, (*q.shape[1:], heads)
        if not found.get(shape):
            out = self.next(attend, q, k, v, heads, **named)
            if shape not in found:
                found[shape] = self._is_dropped(out, given, attend, q, k, v, heads, **named)
            if not found[shape]:
                return out
        return attention_pytorch(q, k, v, heads, **named)

    @torch.no_grad()
    def _is_dropped(
        self,
        out: Tensor,
        given: Tensor | None,
        attend: Attend,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        **named: object,
    ) -> bool:
        """Whether the attention in use ignores masks: its result is nearer to what it were without ours."""
        if self.before is None and inspect.unwrap(attend) in KEEP_MASKS:
            return False
        masked, unmasked = (
            attention_pytorch(q, k, v, heads, **(named | {"mask": each})) for each in (named["mask"], given)
        )
        if not bool((out - unmasked).abs().mean() < (out - masked).abs().mean()):
            return False
        if not any(self.call.drops_masks.values()):
            logging.warning(
                "Stagecraft: the attention that is set for this model ignores masks, which would switch soft guidance "
                "off; its attention to the text is evaluated with PyTorch's attention instead."
            )
        return True


class SoftForward(MaskedAttention):
    """Finds the attentions to the context in one forward pass of a U-Net and masks them."""

    def __init__(self, call: RowMasks, before: Attend | None) -> None:
        super().__init__(call, before)
        self.expected = False

    def expect(self, n: Tensor, context: Tensor, value: Tensor, options: Options) -> tuple[Tensor, ...]:
        """attn2_patch, the last of them: the next attention is the one to the context."""
        self.expected = True
        return n, context, value

    def check(self, n: Tensor, options: Options) -> Tensor:
        """attn2_output_patch, the first of them: the attention to the context must have been seen, and masked.

        Raises:
            ValueError: it was not, for another pack has put a function in its place that calls no overrides.
        """
        if self.expected:
            raise ValueError(
                "Another node has replaced the attention of this model by one that soft guidance cannot mask. Remove "
                "that node, or the start option that chooses it, such as an older patch for SageAttention."
            )
        return n

    def attend(
        self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: object, **kwargs: object
    ) -> Tensor:
        """Attention override."""
        if not self.expected:
            return self.next(attend, q, k, v, heads, *args, **kwargs)
        self.expected, named = False, named_arguments(args, kwargs)
        return self.masked_attention(self._bias(named["transformer_options"], q, k), attend, q, k, v, heads, **named)

    def around(self, patch: Attend) -> Attend:
        """Keep another pack's replacement of cross-attention, which knows no mask.

        It sees the text alone, as without soft guidance; what the tokens change in plain attention is added to it. That
        is exact for replacements that add something to plain attention, such as a picture's own keys and values.
        """

        def replaced(q: Tensor, k: Tensor, v: Tensor, extra_options: Options, **kwargs: object) -> Tensor:
            if not self.expected:
                return patch(q, k, v, extra_options, **kwargs)
            self.expected = False
            heads, bias = extra_options["n_heads"], self._bias(extra_options, q, k)
            text = self.call.text_columns(extra_options, len(k), k.device)[..., None]
            text_k, text_v = (x.gather(1, text.expand(-1, -1, x.shape[-1])) for x in (k, v))
            changed = attention_pytorch(q, k, v, heads, mask=bias) - attention_pytorch(q, text_k, text_v, heads)
            return patch(q, text_k, text_v, extra_options, **kwargs) + changed

        return replaced

    def _bias(self, options: Options, q: Tensor, k: Tensor) -> Tensor:
        return self.call.bias(options, tuple(options["activations_shape"][-2:]), q, k.shape[1])
