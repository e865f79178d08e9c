"""Gradients through steps that overwrite what an earlier step has saved for its derivative."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from weakref import WeakSet

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Saved:
    """A tensor as a step of the way forward has saved it: itself, or a copy from the moment it was overwritten."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def alias(self) -> tuple[int, torch.Size, tuple[int, ...]]:
        """What part of its storage it shows; the same of two is one copy."""
        return self.tensor.storage_offset(), self.tensor.shape, self.tensor.stride()


class _CopyBeforeWrite(TorchDispatchMode):
    """Before a step writes into a storage, what is saved of it is copied.

    By storage and not by address, because what is written is often a part of what was saved; and a saved tensor holds
    its storage, so that no other one can lie there in the meantime.
    """

    def __init__(self) -> None:
        super().__init__()
        self.saved: dict[int, WeakSet[_Saved]] = defaultdict(WeakSet)

    def save(self, tensor: Tensor) -> _Saved:
        # Without its graph: a step that saves its own result would otherwise keep itself alive, unseen by Python.
        saved = _Saved(tensor.detach())
        self.saved[tensor.untyped_storage().data_ptr()].add(saved)
        return saved

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        for index, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[index] if index < len(args) else kwargs.get(argument.name)
                for each in tree_leaves(written):
                    if isinstance(each, Tensor):
                        self._copy(each)
        return func(*args, **kwargs)

    def _copy(self, written: Tensor) -> None:
        copies: dict[object, Tensor] = {}
        for saved in self.saved.pop(written.untyped_storage().data_ptr(), ()):
            alias = saved.alias
            if alias not in copies:
                copies[alias] = saved.tensor.clone()
            saved.tensor = copies[alias]


@contextmanager
def overwriting_allowed() -> Iterator[None]:
    """A way forward and back in which steps may write into tensors that earlier steps have saved.

    For networks and other packs' patches that add in place where a gradient was never expected. It costs a copy of what
    is overwritten, no more. PyTorch's own `allow_mutation_on_saved_tensors` (2.11) knows a tensor by its address: a
    write into a part that begins elsewhere passes it unseen, and a copied tensor's address, once free, names another.
    """
    mode = _CopyBeforeWrite()
    with saved_tensors_hooks(mode.save, lambda saved: saved.tensor), mode:
        yield
