"""Gradients through a network whose weights were made in inference mode, without copying a weight."""

from collections.abc import Iterator
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


class NotDifferentiableError(RuntimeError):
    """A network that has no gradient; the message says what was found."""


class GradientSession:
    """Context manager in which a module's weights are normal tensors on the very memory of its own.

    PyTorch refuses inference-mode tensors in a graph that is to be differentiated. A normal tensor on the same storage
    is accepted, and to exchange the two costs no memory. Weights ask for no gradient, so the graph keeps what the
    gradient of an input needs and no more. On leaving, also by an exception, the module holds its own objects again.
    A weight of several tensors, such as a quantised one with its scale (ComfyUI's QuantizedTensor), is put together
    anew from its parts on their own memory; what it does with an input is its own affair.

    A session may be entered again and again; the exchanged tensors are kept as long as the weights stay where they are.

        session = GradientSession(unet)
        with session, torch.inference_mode(False), torch.enable_grad():
            x = x.clone().requires_grad_()
            gradient, = torch.autograd.grad(energy(unet(x)), x)

    Raises:
        NotDifferentiableError: on entering, where a weight is of a kind that cannot be exchanged, such as a quantised
            one that does not show its parts, or has no data.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._exchanged: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
        self._own: list[tuple[dict[str, Tensor | None], str, Tensor]] = []

    def __enter__(self) -> "GradientSession":
        if self._own:
            raise RuntimeError("This gradient session is already entered.")
        try:
            # What is made here must be no inference tensor, whatever mode the caller is in.
            with torch.inference_mode(False):
                for tensors, name, weight in list(_weights(self.module)):
                    if weight.requires_grad or any(part.is_inference() for part in _parts(weight)):
                        tensors[name] = self._normal(tensors, name, weight)
                        self._own.append((tensors, name, weight))
                    else:
                        _check(weight, name)
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for tensors, name, weight in self._own:
            tensors[name] = weight
        self._own.clear()

    def _normal(self, tensors: dict[str, Tensor | None], name: str, weight: Tensor) -> Tensor:
        own, normal = self._exchanged.get((id(tensors), name), (None, None))
        if own is weight and _memory(normal) == _memory(weight) and normal.dtype == weight.dtype:
            return normal
        _check(weight, name)
        normal = _on_same_memory(weight)
        self._exchanged[id(tensors), name] = weight, normal
        return normal


def _on_same_memory(weight: Tensor) -> Tensor:
    """A normal tensor that asks for no gradient."""
    if is_traceable_wrapper_subclass(weight):
        names, kind = weight.__tensor_flatten__()
        parts = {name: _on_same_memory(getattr(weight, name)) for name in names}
        return type(weight).__tensor_unflatten__(parts, kind, weight.size(), weight.stride())
    if not weight.is_inference():
        return weight.detach()
    normal = torch.empty(0, dtype=weight.dtype, device=weight.device)
    normal.set_(weight.untyped_storage(), weight.storage_offset(), weight.size(), weight.stride())
    return normal


def _parts(weight: Tensor) -> list[Tensor]:
    """The tensors that hold its numbers: most often itself."""
    if not is_traceable_wrapper_subclass(weight):
        return [weight]
    return [part for name in weight.__tensor_flatten__()[0] for part in _parts(getattr(weight, name))]


def _memory(weight: Tensor) -> list[int]:
    return [part.data_ptr() for part in _parts(weight)]


def differentiable(module: nn.Module) -> GradientSession:
    """Give a `GradientSession` for one use in a with statement."""
    return GradientSession(module)


def normal_copy(value: object) -> object:
    """A value in which no tensor is of inference mode: those are cloned, in lists, tuples and dictionaries too.

    Call it in `torch.inference_mode(False)`; it is meant for the small inputs of a network, not for weights.
    """
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, dict):
        return {key: normal_copy(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(normal_copy(each) for each in value)
    return value


def _weights(module: nn.Module) -> Iterator[tuple[dict[str, Tensor | None], str, Tensor]]:
    """Every parameter and buffer with the dictionary that holds it; one that is shared, in every place."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, weight in tensors.items():
                if weight is not None:
                    yield tensors, name, weight


def _check(weight: Tensor, name: str) -> None:
    if type(weight) not in (Tensor, nn.Parameter) and not is_traceable_wrapper_subclass(weight):
        raise NotDifferentiableError(f'The weight "{name}" is of the quantised kind {type(weight).__name__}.')
    if any(part.is_meta for part in _parts(weight)):
        raise NotDifferentiableError(f'The weight "{name}" has no data; it is loaded only while it is used.')
    # Counters and token tables are whole numbers too, but small ones; whole numbers as a matrix stand for a weight.
    if isinstance(weight, nn.Parameter) and not weight.is_floating_point() and weight.ndim > 1:
        raise NotDifferentiableError(f'The weight "{name}" is quantised to {str(weight.dtype).removeprefix("torch.")}.')
