"""Gradients of an energy of attention through ComfyUI's U-Nets, in every way that ComfyUI keeps weights.

Weights that lie on the CPU (low VRAM, `--novram`) or are stored in another precision (fp8) are cast by ComfyUI's own
layers while they are used; a cast is differentiable like any other step, so only the weights as they are stored have
to be exchanged, see `GradientSession`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, FeedForward, attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from einops import reduce
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...attention.comfy.recording import recording
from ...attention.recomputed import recomputed_attention
from ...attention.recorder import AttentionRecorder
from ...attention.sites import Site
from ...comfy.types import BaseModel, Entry, Executor, Options, Wrappers
from ...weights.differentiable import GradientSession, NotDifferentiableError, normal_copy
from ..energies import Maps

WRAPPER = "stagecraft_gradients"
# fp16 has no numbers below 6e-8, so its energies are enlarged on their way back; less where that overflows.
FIRST_ENLARGEMENT, LESS = 2.0**12, 2.0**4
LOADER_HELP = (
    'Load the model without quantisation: weight_dtype "default" or "fp8_e4m3fn" (not "fast") in Load Diffusion Model, '
    "or a checkpoint file that is not int8, GGUF or nvfp4."
)
# What PyTorch says where a step has no derivative, or where a patch multiplies with tensors of inference mode.
OVERWRITTEN = "modified by an inplace operation"
SIGNS = ("derivative", "Inference tensors", "does not require grad", "not have been used in the graph", OVERWRITTEN)
NOT_PLAIN = ("mask", "scale", "enable_gqa", "skip_output_reshape")  # what our own backward pass does not know
MakeRecorder = Callable[[frozenset[Site]], AttentionRecorder]
Measure = Callable[[Maps], Tensor]
Residuals = dict[str, list[Tensor | None]]  # of a ControlNet, by the part of the U-Net


class AttentionGradient:
    """Evaluates an energy of prompts' attention maps and its gradient with respect to a sampler's state.

    One for each run: it remembers which maps were needed, and where a half-precision gradient overflowed. The gradient
    goes through the network alone: what a ControlNet adds is taken as given.

    Args:
        inner_model: ComfyUI's BaseModel, loaded.
        entries: processed conditioning entries for the whole canvas; those that are not due at a noise level are left
            out there. Their energies are added up.
        recorder: makes a recorder, given the sites that earlier passes have used.
        measure: maps -> (b).
        checkpointing: evaluate the inside of blocks again on the way back instead of keeping it: less memory, about a
            third more time.
    """

    def __init__(
        self,
        inner_model: BaseModel,
        entries: Sequence[Entry],
        recorder: MakeRecorder,
        measure: Measure,
        checkpointing: bool = False,
    ) -> None:
        self.inner_model, self.entries, self.checkpointing = inner_model, list(entries), checkpointing
        self.recorder, self.measure = recorder, measure
        self.session = GradientSession(inner_model)
        self.known: frozenset[Site] = frozenset()
        self.overwrites = False
        dtype = inner_model.manual_cast_dtype or inner_model.get_dtype()
        self.enlargement = FIRST_ENLARGEMENT if dtype == torch.float16 else 1.0

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Options) -> tuple[Tensor, Tensor]:
        """Evaluate the prompts at a state, and differentiate, until nothing overflows and nothing needed is lost.

        Args:
            x: (b c h w), the sampler's state.
            sigma: (b).
            model_options: of the run.

        Returns:
            Energy (b) and its gradient (b c h w), both float32 and as a node may keep them.

        Raises:
            ValueError: a network without such attention, or one that has no gradient.
        """
        with _explained():
            while True:
                try:
                    energy, gradient = self._evaluate(x, sigma, model_options)
                except RuntimeError as error:
                    # Another pack's patch has changed a tensor in place that the way back needs, as FreeU does.
                    if OVERWRITTEN not in str(error) or self.overwrites or self.checkpointing:
                        raise
                    self.overwrites = True
                    continue
                is_whole = self.enlargement <= 1 or bool(torch.isfinite(gradient).all())
                if is_whole or not bool(torch.isfinite(energy).all()):
                    return energy, gradient
                self.enlargement /= LESS

    def _evaluate(self, x: Tensor, sigma: Tensor, model_options: Options) -> tuple[Tensor, Tensor]:
        recorders = {entry["uuid"]: self.recorder(self.known) for entry in self.entries}
        energy, gradient = x.new_zeros(len(x), dtype=torch.float32), torch.zeros_like(x, dtype=torch.float32)

        def differentiate(
            executor: Executor,
            x: Tensor,
            t: Tensor,
            c_concat: Tensor | None = None,
            c_crossattn: Tensor | None = None,
            control: Residuals | None = None,
            transformer_options: Options | None = None,
            **kwargs: object,
        ) -> Tensor:
            """APPLY_MODEL wrapper: by now ComfyUI has made the batch, applied hooks and evaluated ControlNets."""
            nonlocal energy, gradient
            options = transformer_options or {}
            with self._differentiable(any(each.regions is not None for each in recorders.values())):
                leaf = x.clone().requires_grad_()
                options = {k: normal_copy(v) if isinstance(v, Tensor) else v for k, v in options.items()}
                rest = [*normal_copy([t, c_concat, c_crossattn]), _residuals(normal_copy(control))]
                executor(leaf, *rest, options, **normal_copy(kwargs))
                here = [recorders[uuid] for uuid in options["uuids"]]
                if not all(each.maps for each in here):
                    raise ValueError(
                        "No cross-attention could be read in this model. Another node has replaced its attention, or "
                        "it has none; remove that node, or use Layered Rendering, which works with every model."
                    )
                found = sum(self.measure(each.maps) for each in here)
                (slope,) = torch.autograd.grad(found.sum() * self.enlargement, leaf)
            energy = energy + found.detach()
            gradient = gradient + reduce(slope.float(), "(e b) c h w -> b c h w", "sum", e=len(here)) / self.enlargement
            self.known = frozenset(here[0].maps)
            return torch.zeros_like(x)

        options = comfy.model_patcher.create_model_options_clone(model_options)
        comfy.patcher_extension.add_wrapper_with_key(
            Wrappers.APPLY_MODEL, WRAPPER, differentiate, options, is_model_options=True
        )
        options = recording(options, recorders, leave_early=True, backend=_differentiable_attention)
        with torch.no_grad():
            comfy.samplers.calc_cond_batch(self.inner_model, [self.entries], x, sigma, options)
        return energy, gradient

    @contextmanager
    def _differentiable(self, keeps_self: bool) -> Iterator[None]:
        """All that has to be otherwise in a pass that is differentiated."""
        with ExitStack() as stack:
            stack.enter_context(_training_paths(self.inner_model))
            if self.checkpointing:
                stack.enter_context(_checkpointed(self.inner_model, keeps_self))
            stack.enter_context(self.session)
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            if self.overwrites:
                stack.enter_context(torch.autograd.graph.allow_mutation_on_saved_tensors())
            yield


def _differentiable_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, *args: object, **kwargs: object) -> Tensor:
    """PyTorch's attention; on CPUs, where its backward pass is slow, with our own in place of that."""
    plain = not args and not any(kwargs.get(key) is not None for key in NOT_PLAIN) and q.ndim == 3
    if q.device.type != "cpu" or not plain or q.shape[-1] != k.shape[-1]:
        return attention_pytorch(q, k, v, heads, *args, **kwargs)
    return recomputed_attention(q, k, v, heads, lambda q, k, v: attention_pytorch(q, k, v, heads, **kwargs))


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


def _residuals(control: Residuals | None) -> Residuals | None:
    if control is None:
        return None
    return {
        place: [each if each is None else each.as_subclass(_Residual) for each in residuals]
        for place, residuals in control.items()
    }


@contextmanager
def _training_paths(module: nn.Module) -> Iterator[None]:
    """Keep ComfyUI off its fused kernels, which have no gradient.

    Newer versions ask `in_training`; fp8's fast products ask their layer.
    """
    management = comfy.model_management
    before = getattr(management, "in_training", None)
    layers = [part for part in module.modules() if isinstance(part, comfy.ops.fp8_ops.Linear) and not part.training]
    try:
        if before is not None:
            management.in_training = True
        for layer in layers:
            layer.training = True
        yield
    finally:
        if before is not None:
            management.in_training = before
        for layer in layers:
            layer.training = False


@contextmanager
def _checkpointed(module: nn.Module, keeps_self: bool) -> Iterator[None]:
    """Let the large parts of a U-Net forget what they can evaluate again; attention that is recorded stays as it is."""
    parts = [part for part in module.modules() if isinstance(part, (ResBlock, FeedForward))]
    if not keeps_self:
        parts += [part.attn1 for part in module.modules() if isinstance(part, BasicTransformerBlock)]
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


@contextmanager
def _explained() -> Iterator[None]:
    """Say what a person can do where PyTorch only says what it cannot."""
    try:
        yield
    except NotDifferentiableError as error:
        raise ValueError(f"Attention guidance needs the model's gradient. {error} {LOADER_HELP}") from error
    except torch.cuda.OutOfMemoryError as error:
        raise torch.cuda.OutOfMemoryError(
            "There is not enough memory for attention guidance. Switch on checkpointing in Attention Guidance, or "
            f"paint fewer or smaller pictures at once. ({error})"
        ) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in SIGNS):
            raise
        raise ValueError(
            "Attention guidance needs the model's gradient, which something in it does not have: a weight format, or "
            f"another node's patch of the model. {LOADER_HELP} Or remove the other node. (PyTorch says: {error})"
        ) from error
