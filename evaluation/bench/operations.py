"""Counts the floating-point operations of a job, also of one that goes back through a network."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry, register_flop_formula, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


# PyTorch counts these on a GPU alone.
@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu)
def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: object, **__: object) -> int:
    return sdpa_flop_count(q, k, v)


@register_flop_formula(aten._scaled_dot_product_flash_attention_for_cpu_backward)
def _attention_backward(
    out: Sequence[int], q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: object, **__: object
) -> int:
    return sdpa_backward_flop_count(out, q, k, v)


class _Counter(TorchDispatchMode):
    """PyTorch's own counter follows modules too, by hooks that a gradient of single tensors does not allow."""

    def __init__(self, unevaluated: bool) -> None:
        super().__init__()
        self.total, self.unevaluated = 0, unevaluated

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        count = flop_registry.get(func._overloadpacket)
        if count is None:
            with self:  # in inference mode an operation may come here before it is taken apart
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = _zeros(func, args, kwargs) if count is not None and self.unevaluated else func(*args, **kwargs)
        if count is not None:
            self.total += count(*args, **kwargs, out_val=out)
        return out


def _zeros(func: OpOverload, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
    """Zeros in the shape of what an operation gives."""
    given = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
    device = next(tensor.device for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor))
    out = func(*given[0], **given[1])
    return tree_map_only(Tensor, lambda tensor: torch.zeros_like(tensor, device=device), out)


@torch.no_grad()
def count_operations(run: Callable[[], object], unevaluated: bool = False) -> int:
    """Floating-point operations of matrix products, convolutions and attention in a run.

    Args:
        run: that is counted.
        unevaluated: count products without computing them, which takes little time: their results are zeros, so only
            for what does not depend on values. Attention is left to PyTorch's kernel, which keeps nothing of tokens
            times tokens, and on the way back does again what it has not kept.
    """
    with _Counter(unevaluated) as counter, nullcontext() if unevaluated else sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.total
