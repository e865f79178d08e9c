"""What is otherwise in a pass through one of ComfyUI's networks that is differentiated."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, FeedForward, attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...attention.comfy.arguments import POSITIONAL, named_arguments
from ...attention.recomputed import recomputed_attention

NOT_PLAIN = ("mask", "scale", "enable_gqa")  # what our own backward pass does not know
OVERWRITTEN = "modified by an inplace operation"  # what PyTorch says
Residuals = dict[str, list[Tensor | None]]  # of a ControlNet, by the part of the network


def differentiable_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, *args: object, **kwargs: object) -> Tensor:
    """PyTorch's attention; on CPUs, where its backward pass is slow, with our own in place of that."""
    named = named_arguments(args, kwargs)
    plain = all(named.get(key) is None or named[key] is False for key in NOT_PLAIN) and len(args) <= len(POSITIONAL)
    if q.device.type != "cpu" or not plain or q.shape[-1] != k.shape[-1]:
        return attention_pytorch(q, k, v, heads, *args, **kwargs)
    return recomputed_attention(q, k, v, heads, lambda q, k, v: attention_pytorch(q, k, v, heads, **named))


class _Residual(Tensor):
    """What a ControlNet adds. ComfyUI adds it in place, to tensors that the way back still needs; this does not."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        with torch._C.DisableTorchFunctionSubclass():
            if func in (Tensor.__iadd__, Tensor.add_):
                return torch.add(*args)
            return func(*args, **(kwargs or {}))


def residuals_out_of_place(control: Residuals | None) -> Residuals | None:
    """What a ControlNet gives, so that a network adds it without changing what it adds it to."""
    if control is None:
        return None
    return {
        place: [each if each is None else each.as_subclass(_Residual) for each in residuals]
        for place, residuals in control.items()
    }


@contextmanager
def training_paths(module: nn.Module) -> Iterator[None]:
    """Keep ComfyUI off its fused kernels, which have no gradient.

    Newer versions ask `in_training`; fp8's fast products ask their layer, and quantised layers ask it whether to keep
    their inputs as they are, where they have no derivative of their own.
    """
    management = comfy.model_management
    before = getattr(management, "in_training", None)
    changes = [(part, "training", True) for part in module.modules() if isinstance(part, comfy.ops.fp8_ops.Linear)]
    if not hasattr(comfy.ops, "QuantLinearFunc"):
        quantised = [part for part in module.modules() if getattr(part, "input_scale", None) is not None]
        changes += [(part, "_full_precision_mm", True) for part in quantised if hasattr(part, "_full_precision_mm")]
    own = [(part, name, getattr(part, name)) for part, name, _ in changes]
    try:
        if before is not None:
            management.in_training = True
        for part, name, value in changes:
            setattr(part, name, value)
        yield
    finally:
        if before is not None:
            management.in_training = before
        for part, name, value in own:
            setattr(part, name, value)


@contextmanager
def checkpointed(module: nn.Module, names: Sequence[str], keeps_self: bool) -> Iterator[None]:
    """Let the large parts of a network forget what they can evaluate again; attention that is recorded stays as it is.

    Args:
        module: ComfyUI's BaseModel.
        names: of a transformer's parts without attention. Its blocks cannot be evaluated again, because what they add
            in place is there by then.
        keeps_self: whether a U-Net's self-attention is recorded.
    """
    parts = [part for part in module.modules() if isinstance(part, (ResBlock, FeedForward))]
    if not keeps_self:
        parts += [part.attn1 for part in module.modules() if isinstance(part, BasicTransformerBlock)]
    parts += [part for name, part in module.named_modules() if name.rpartition(".")[2] in names]
    # Another pack may have given a part a forward of its own; it comes back.
    own = [(part, part.__dict__.get("forward")) for part in parts]
    try:
        for part in parts:
            part.forward = _forgetting(part.forward)
        yield
    finally:
        for part, forward in own:
            if forward is None:
                part.__dict__.pop("forward", None)
            else:
                part.forward = forward


def _forgetting(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A module's forward with checkpointing, which refuses inputs that somebody has changed in between."""

    def wrapped(*args: object, **kwargs: object) -> Tensor:
        # The U-Net goes on to write its place into the options; the second evaluation shall see what the first saw.
        args = tuple(dict(each) if isinstance(each, dict) else each for each in args)
        kwargs = {key: dict(each) if isinstance(each, dict) else each for key, each in kwargs.items()}
        given = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor) and not each.is_inference()]
        versions = [each._version for each in given]

        def again(*args: object, **kwargs: object) -> Tensor:
            if [each._version for each in given] != versions:
                raise RuntimeError(f"An input of a checkpointed module has been {OVERWRITTEN}.")
            return forward(*args, **kwargs)

        return checkpoint(again, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return wrapped
