"""Records attention in ComfyUI's U-Nets, through the chained override and around other packs' replacements."""

from collections.abc import Callable, Hashable, Mapping

import comfy.model_patcher
import comfy.patcher_extension
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from ...comfy.types import Executor, Model, Options, Wrappers
from ..recorder import AttentionRecorder, LastMapRecorded
from ..sites import CROSS, DOWN, MIDDLE, SELF, UP, SiteCounter

OVERRIDE = "optimized_attention_override"
WRAPPER = "stagecraft_attention"
PARTS = {"input": DOWN, "middle": MIDDLE, "output": UP}
STREAMS = {"attn1": SELF, "attn2": CROSS}  # ComfyUI's names for a block's two attentions
# What gives a conditioning entry its part of the canvas and of the run.
PLACE_OPTIONS = ("mask", "mask_strength", "area", "strength", "timestep_start", "timestep_end")
# What of a run is not for evaluations that are recorded: context windows would cut the batch, whose maps belong
# together, and EasyCache would answer without the network, or compare the sampler's evaluations with these.
WINDOWS, CACHE = "context_handler", "easycache"
Attend = Callable[..., Tensor]


def has_cross_attention(model: Model) -> bool:
    """Whether a model is a U-Net that looks at its prompt through cross-attention, as SD 1.x, SD 2.x and SDXL are."""
    network = model.get_model_object("diffusion_model")
    if not isinstance(network, UNetModel):
        return False
    return any(getattr(part, "attn2", None) is not None for part in network.modules())


def recording(
    model_options: Options,
    recorders: Mapping[Hashable, AttentionRecorder],
    *,
    leave_early: bool = False,
    backend: Attend | None = None,
) -> Options:
    """Model options of a run, for evaluations that fill recorders.

    Overrides and replacements of attention by other packs keep working: they are called as before, and what they are
    given is what is recorded.

    Args:
        model_options: of the run; they stay as they are.
        recorders: by the uuid of a conditioning entry, for its rows; other rows are not looked at.
        leave_early: end each forward pass behind the last map that is needed; its output is zeros then.
        backend: attention function in place of ComfyUI's choice.

    Returns:
        Options for `calc_cond_batch`.
    """
    options = comfy.model_patcher.create_model_options_clone(model_options)
    options.pop(WINDOWS, None)
    transformer = options.setdefault("transformer_options", {})
    for wrappers in transformer.get("wrappers", {}).values():
        wrappers.pop(CACHE, None)
    watcher = _Watcher(recorders, leave_early, backend, transformer.get(OVERRIDE))
    transformer[OVERRIDE] = watcher.attend
    replaced = transformer.get("patches_replace", {})
    for name, stream in STREAMS.items():
        for block, patch in replaced.get(name, {}).items():
            replaced[name][block] = watcher.around(stream, patch)
    comfy.patcher_extension.add_wrapper_with_key(
        Wrappers.DIFFUSION_MODEL, WRAPPER, watcher.forward, options, is_model_options=True
    )
    return options


class _Watcher:
    """Names the attentions of a forward pass and hands their queries and keys to the recorders."""

    def __init__(
        self,
        recorders: Mapping[Hashable, AttentionRecorder],
        leave_early: bool,
        backend: Attend | None,
        before: Attend | None,
    ) -> None:
        self.recorders, self.leave_early, self.backend, self.before = recorders, leave_early, backend, before
        self.counter: SiteCounter | None = None  # none: not in the U-Net, but in a ControlNet perhaps
        self.block: tuple[object, ...] = ()
        self.calls = 0
        self.text_length = 0

    def forward(
        self,
        executor: Executor,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        *args: object,
        **kwargs: object,
    ) -> Tensor:
        """DIFFUSION_MODEL wrapper: a forward pass begins, and may end early."""
        self.counter, self.block = SiteCounter(), ()
        self.text_length = 0 if context is None else context.shape[1]
        try:
            return executor(x, timesteps, context, *args, **kwargs)
        except LastMapRecorded:
            return x.new_zeros(len(x), executor.class_obj.out_channels, *x.shape[2:])
        finally:
            self.counter = None

    def attend(
        self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: object, **kwargs: object
    ) -> Tensor:
        """Attention override."""
        options = kwargs.get("transformer_options") or {}
        if self.counter is not None and "block" in options:
            self._enter(options)
            self.calls += 1
            # A block's first attention looks at the picture itself, and at another that a pack has put beside it;
            # in some networks at the text.
            is_text = k.shape[1] == self.text_length != q.shape[1]
            stream = CROSS if self.calls > 1 or is_text else SELF
            mask = kwargs.get("mask", args[0] if args else None)
            self._look(stream, q, k, heads, options, kwargs.get("scale"), mask)
        attend = attend if self.backend is None else self.backend
        if self.before is not None:
            return _with_gradient(self.before(attend, q, k, v, heads, *args, **kwargs), q)
        return attend(q, k, v, heads, *args, **kwargs)

    def around(self, stream: str, patch: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Look at what a replacement of attention is given; attentions inside it are its own affair."""

        def replaced(q: Tensor, k: Tensor, v: Tensor, extra_options: Options, **kwargs: object) -> Tensor:
            counter = self.counter
            if counter is not None:
                self._enter(extra_options)
                self.calls += 1
                self._look(stream, q, k, extra_options["n_heads"], extra_options)
            self.counter = None
            try:
                return _with_gradient(patch(q, k, v, extra_options, **kwargs), q)
            finally:
                self.counter = counter

        return replaced

    def _enter(self, options: Options) -> None:
        block = (*options["block"], options.get("block_index"))
        if block != self.block:
            self.block, self.calls = block, 0

    def _look(
        self,
        stream: str,
        q: Tensor,
        k: Tensor,
        heads: int,
        options: Options,
        scale: float | None = None,
        mask: Tensor | None = None,
    ) -> None:
        uuids, grid = options.get("uuids", []), tuple(options["activations_shape"][-2:])
        site = self.counter.next(PARTS[options["block"][0]], stream, grid)
        if q.shape[1] != grid[0] * grid[1] or (stream == SELF and k.shape[1] < q.shape[1]):
            return  # another pack has cut the picture into tiles or merged tokens
        watching = [self.recorders[uuid] for uuid in uuids if uuid in self.recorders]
        for i, uuid in enumerate(uuids):
            recorder = self.recorders.get(uuid)
            if recorder is not None and recorder.wants(site):
                rows = slice(i * len(q) // len(uuids), (i + 1) * len(q) // len(uuids))
                part = mask if mask is None or mask.ndim < 3 or len(mask) == 1 else mask[rows]
                recorder.record(site, q[rows], k[rows], heads, scale, part)
        if self.leave_early and watching and all(recorder.is_complete for recorder in watching):
            raise LastMapRecorded


def _with_gradient(out: Tensor, q: Tensor) -> Tensor:
    """What another pack's attention returns.

    Raises:
        RuntimeError: it has no derivative, as fused kernels for inference have none, while one is wanted; the rest of
            the network would still give a gradient, a wrong one.
    """
    if torch.is_grad_enabled() and q.requires_grad and not out.requires_grad:
        raise RuntimeError("what another node's attention returns does not require grad")
    return out
