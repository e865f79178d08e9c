"""Gradients of an energy of attention through ComfyUI's networks, in every way that ComfyUI keeps weights.

Weights that lie on the CPU (low VRAM, `--novram`) or are stored in another precision (fp8) are cast by ComfyUI's own
layers while they are used; a cast is differentiable like any other step, so only the weights as they are stored have
to be exchanged, see `GradientSession`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch
from einops import reduce
from torch import Tensor

from ...attention.comfy.families import UNET, known_family
from ...attention.comfy.recording import recording
from ...attention.recorder import AttentionRecorder
from ...attention.sites import Site
from ...comfy.types import BaseModel, Entry, Executor, Options, Wrappers
from ...weights.differentiable import GradientSession, NotDifferentiableError, normal_copy
from ..energies import Maps
from ..overwritten import overwriting_allowed
from .differentiable_pass import (
    OVERWRITTEN,
    Residuals,
    checkpointed,
    differentiable_attention,
    residuals_out_of_place,
    training_paths,
)
from .kitchen_gradients import differentiate_rope

WRAPPER = "stagecraft_gradients"
# fp16 has no numbers below 6e-8, so its energies are enlarged on their way back; less where that overflows.
FIRST_ENLARGEMENT, LESS = 2.0**12, 2.0**4
LOADER_HELP = (
    'Load the model with weight_dtype "default" or "fp8_e4m3fn" (not "fast") in Load Diffusion Model, or from a file '
    "in bf16, fp16 or fp8 instead of one in int8, GGUF, nf4 or SVDQuant."
)
# What PyTorch says where a step has no derivative, or where a patch multiplies with tensors of inference mode.
SIGNS = (
    "derivative",
    "autograd formula",
    "automatic differentiation",
    "Inference tensors",
    "does not require grad",
    "not have been used in the graph",
    OVERWRITTEN,
)
MakeRecorder = Callable[[Entry, frozenset[Site]], AttentionRecorder]
Measure = Callable[[Entry, Maps], Tensor]


class AttentionGradient:
    """Evaluates an energy of prompts' attention maps and its gradient with respect to a sampler's state.

    One for each run: it remembers which maps were needed, and where a half-precision gradient overflowed. The gradient
    goes through the network alone: what a ControlNet adds is taken as given.

    Args:
        inner_model: ComfyUI's BaseModel, loaded.
        entries: processed conditioning entries for the whole canvas; those that are not due at a noise level are left
            out there. Their energies are added up.
        recorder: makes an entry's recorder, given the sites that earlier passes have used.
        measure: an entry's maps -> (b).
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
        differentiate_rope()
        self.known: frozenset[Site] = frozenset()
        self.family = known_family(inner_model.diffusion_model) or UNET
        # Whether the network, or another pack's patch of it, changes what the way back needs.
        self.overwrites = self.family.in_place
        dtype = inner_model.manual_cast_dtype or inner_model.get_dtype()
        self.enlargement = FIRST_ENLARGEMENT if dtype == torch.float16 else 1.0

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Options) -> tuple[Tensor, Tensor]:
        """Evaluate the prompts at a state, and differentiate, until nothing overflows and nothing needed is lost.

        Args:
            x: (b c h w) or (b c f h w), the sampler's state.
            sigma: (b).
            model_options: of the run.

        Returns:
            Energy (b) and its gradient, as x; both float32 and as a node may keep them.

        Raises:
            ValueError: a network without such attention, or one that has no gradient.
        """
        with _explained():
            while True:
                try:
                    energy, gradient = self._evaluate(x, sigma, model_options)
                except RuntimeError as error:
                    # Another pack's patch has changed a tensor in place that the way back needs, as FreeU does.
                    if OVERWRITTEN not in str(error) or self.overwrites or (self.checkpointing and self.is_unet):
                        raise
                    self.overwrites = True
                    continue
                is_whole = self.enlargement <= 1 or bool(torch.isfinite(gradient).all())
                if is_whole or not bool(torch.isfinite(energy).all()):
                    return energy, gradient
                self.enlargement /= LESS

    def _evaluate(self, x: Tensor, sigma: Tensor, model_options: Options) -> tuple[Tensor, Tensor]:
        entries = {entry["uuid"]: entry for entry in self.entries}
        recorders = {uuid: self.recorder(entry, self.known) for uuid, entry in entries.items()}
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
            # A transformer adds what a ControlNet gives to a part of its tokens, in place.
            self.overwrites |= control is not None and not self.is_unet
            with self._differentiable(any(each.regions is not None for each in recorders.values())):
                leaf = x.clone().requires_grad_()
                options = {k: normal_copy(v) if isinstance(v, Tensor) else v for k, v in options.items()}
                rest = [*normal_copy([t, c_concat, c_crossattn]), residuals_out_of_place(normal_copy(control))]
                executor(leaf, *rest, options, **normal_copy(kwargs))
                here = {uuid: recorders[uuid].maps for uuid in options["uuids"]}
                if not all(here.values()):
                    raise ValueError(
                        "No attention to the prompt could be read in this model. Another node has replaced its "
                        "attention, or there is none to read; remove that node, or use Layered Rendering, which works "
                        "with every model."
                    )
                found = sum(self.measure(entries[uuid], maps) for uuid, maps in here.items())
                (slope,) = torch.autograd.grad(found.sum() * self.enlargement, leaf)
            energy = energy + found.detach()
            gradient = gradient + reduce(slope.float(), "(e b) ... -> b ...", "sum", e=len(here)) / self.enlargement
            self.known = frozenset(next(iter(here.values())))
            return torch.zeros_like(x)

        options = comfy.model_patcher.create_model_options_clone(model_options)
        comfy.patcher_extension.add_wrapper_with_key(
            Wrappers.APPLY_MODEL, WRAPPER, differentiate, options, is_model_options=True
        )
        options = recording(options, recorders, leave_early=True, backend=differentiable_attention)
        with torch.no_grad():
            comfy.samplers.calc_cond_batch(self.inner_model, [self.entries], x, sigma, options)
        return energy, gradient

    @property
    def is_unet(self) -> bool:
        """Whether what is known of U-Nets is true of it."""
        return self.family is UNET

    @contextmanager
    def _differentiable(self, keeps_self: bool) -> Iterator[None]:
        """All that has to be otherwise in a pass that is differentiated."""
        with ExitStack() as stack:
            stack.enter_context(training_paths(self.inner_model))
            if self.checkpointing:
                stack.enter_context(checkpointed(self.inner_model, self.family.checkpointed, keeps_self))
            stack.enter_context(self.session)
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            if self.overwrites:
                stack.enter_context(overwriting_allowed())
            yield


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
