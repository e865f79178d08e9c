"""Counts the floating-point operations of a job, also of one that goes back through a network."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch._ops import OpOverload
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class _Counter(TorchDispatchMode):
    """PyTorch's own counter follows modules too, by hooks that a gradient of single tensors does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

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
        out = func(*args, **kwargs)
        if count is not None:
            self.total += count(*args, **kwargs, out_val=out)
        return out


@torch.no_grad()
def count_operations(run: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention in a run."""
    with _Counter() as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.total
