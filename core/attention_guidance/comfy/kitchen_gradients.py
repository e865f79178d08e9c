"""The derivative of rotary position embeddings in comfy-kitchen, ComfyUI's own kernels, which is left out there."""

import functools
from collections.abc import Callable

import comfy
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

NAMESPACE = "comfy_kitchen"
OF_TWO = ("apply_rope", "apply_rope_split_half")  # of queries and keys; the same name with a 1 is that of one tensor


@functools.cache
def differentiate_rope() -> tuple[str, ...]:
    """Register the derivative for every such operation that is there and has none; happens once.

    They turn pairs of numbers, x -> F x with 2 x 2 matrices F. A rotation's way back is F^T g, the same operation with
    its matrices transposed.

    Returns:
        The operations that have one from here on. What fails is left as it is: PyTorch names an operation without a
        derivative when it comes to it.
    """
    kitchen, known = getattr(getattr(comfy, "quant_ops", None), "ck", None), _operations()
    registered = []
    for two in OF_TWO:
        one = getattr(kitchen, f"{two}1", None)
        for name, inputs in ((two, 2), (f"{two}1", 1)):
            if one is None or _is_differentiable(known, name):
                continue
            torch.library.register_autograd(
                f"{NAMESPACE}::{name}", _way_back(one, inputs), setup_context=_keep_matrices
            )
            registered.append(name)
    return tuple(registered)


def _operations() -> dict[str, object]:
    """Operations that were defined in Python, by their full name."""
    library = getattr(getattr(torch, "_library", None), "custom_ops", None)
    return getattr(library, "OPDEFS", {})


def _is_differentiable(known: dict[str, object], name: str) -> bool:
    """Whether an operation has a derivative, or nobody can say: registering another would replace it silently."""
    return getattr(known.get(f"{NAMESPACE}::{name}"), "_backward_fn", NotImplemented) is not None


def _keep_matrices(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
    """Keep F, the last input."""
    ctx.save_for_backward(inputs[-1])


def _way_back(turn: Callable[[Tensor, Tensor], Tensor], inputs: int) -> Callable[..., tuple[Tensor | None, ...]]:
    """Gradients of as many inputs, and none of the matrices."""

    def backward(ctx: FunctionCtx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (matrices,) = ctx.saved_tensors
        back = matrices.transpose(-1, -2).contiguous()
        turned = [None if g is None else turn(g.contiguous(), back) for g in gradients[:inputs]]
        return *turned, None

    return backward
