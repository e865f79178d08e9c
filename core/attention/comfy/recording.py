"""Records attention in what ComfyUI runs, through the chained override and around other packs' replacements.

One way for every network: an APPLY_MODEL wrapper, which ComfyUI calls for all of them, knows what goes into an
evaluation; the override sees the attentions inside; in a U-Net a block says what its attention is, in a transformer the
class' family does.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import comfy.patcher_extension
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from ...comfy.types import Executor, Model, Options, Wrappers
from ..recorder import AttentionRecorder, LastMapRecorded
from ..sites import BLOCK, CROSS, DOWN, MIDDLE, SELF, UP, Site, SiteCounter
from ..token_order import TokenOrder, views
from .arguments import named_arguments
from .families import Family, has_context, known_family, uncompiled_network
from .orders import Call
from .shortcuts import uncompiled, without_shortcuts

OVERRIDE = "optimized_attention_override"
WRAPPER = "stagecraft_attention"
PARTS = {"input": DOWN, "middle": MIDDLE, "output": UP}
STREAMS = {"attn1": SELF, "attn2": CROSS}  # ComfyUI's names for a block's two attentions
# What gives a conditioning entry its part of the canvas and of the run.
PLACE_OPTIONS = ("mask", "mask_strength", "area", "strength", "timestep_start", "timestep_end")
# Not for evaluations that are recorded: context windows would cut the batch, whose maps belong together.
WINDOWS = "context_handler"
Attend = Callable[..., Tensor]


def has_cross_attention(model: Model) -> bool:
    """Whether a model is a U-Net that looks at its prompt through cross-attention, as SD 1.x, SD 2.x and SDXL are."""
    network = model.get_model_object("diffusion_model")
    return isinstance(network, UNetModel) and has_context(network)


def recording(
    model_options: Options,
    recorders: Mapping[Hashable, AttentionRecorder],
    *,
    leave_early: bool = False,
    backend: Attend | None = None,
) -> Options:
    """Model options of a run, for evaluations that fill recorders.

    Overrides and replacements of attention by other packs keep working: they are called as before, and what they are
    given is what is recorded. What shall see the end of an evaluation that leaves early, such as a wrapper that
    differentiates it, has to be among the options before.

    Args:
        model_options: of the run; they stay as they are.
        recorders: by the uuid of a conditioning entry, for its rows; other rows are not looked at.
        leave_early: end each forward pass behind the last map that is needed; its output is zeros then.
        backend: attention function in place of ComfyUI's choice.

    Returns:
        Options for `calc_cond_batch`.
    """
    options = without_shortcuts(model_options)
    options.pop(WINDOWS, None)
    transformer = options.setdefault("transformer_options", {})
    watcher = _Watcher(recorders, leave_early, backend, transformer.get(OVERRIDE))
    transformer[OVERRIDE] = watcher.attend
    replaced = transformer.get("patches_replace", {})
    for name, stream in STREAMS.items():
        for block, patch in replaced.get(name, {}).items():
            replaced[name][block] = watcher.around(stream, patch)
    comfy.patcher_extension.add_wrapper_with_key(
        Wrappers.APPLY_MODEL, WRAPPER, watcher.evaluate, options, is_model_options=True
    )
    return options


@dataclass
class _Evaluation:
    """One evaluation of a network that is watched.

    Attributes:
        network: that is evaluated.
        family: of its class; None where that is not known.
        shape: of the latent.
        text: tokens of the prompt's embedding.
        given: what the network is given besides.
        uuids: of the entries whose rows are in the batch, in their order.
        counter: numbers its attentions.
        block: of a U-Net, where it is.
        calls: of attention in that block.
        shapes: calls with as many queries and keys so far.
    """

    network: nn.Module
    family: Family | None
    shape: Sequence[int]
    text: int
    given: Mapping[str, object]
    uuids: Sequence[Hashable]
    counter: SiteCounter = field(default_factory=SiteCounter)
    block: tuple[object, ...] = ()
    calls: int = 0
    shapes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def order(self, queries: int, keys: int) -> TokenOrder | None:
        """Where text and picture lie in a transformer's call that comes now."""
        number = self.shapes[queries, keys]
        self.shapes[queries, keys] += 1
        return self.family.order(Call(self.network, queries, keys, self.shape, self.text, self.given, number))


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
        self.now: _Evaluation | None = None  # none: not in the network, but in a ControlNet perhaps

    def evaluate(
        self,
        executor: Executor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: object = None,
        transformer_options: Options | None = None,
        **kwargs: object,
    ) -> Tensor:
        """APPLY_MODEL wrapper: an evaluation begins, and may end early."""
        options = {} if transformer_options is None else transformer_options
        network = uncompiled_network(executor.class_obj.diffusion_model)
        text = 0 if c_crossattn is None else c_crossattn.shape[1]
        self.now = _Evaluation(network, known_family(network), x.shape, text, kwargs, options.get("uuids", ()))
        try:
            with uncompiled():
                return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        except LastMapRecorded:
            return torch.zeros_like(x)
        finally:
            self.now = None

    def attend(
        self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: object, **kwargs: object
    ) -> Tensor:
        """Attention override."""
        options, now = kwargs.get("transformer_options") or {}, self.now
        if now is not None:
            named = named_arguments(args, kwargs)
            if now.family is not None and now.family.order is not None:
                self._look_at_block(q, k, heads, named)
            elif "block" in options:
                self._enter(options)
                now.calls += 1
                # A block's first attention looks at the picture itself, and at another that a pack has put beside it;
                # in some networks at the text.
                is_text = k.shape[1] == now.text != q.shape[1]
                stream = CROSS if now.calls > 1 or is_text else SELF
                self._look(stream, q, k, heads, options, named.get("scale"), named.get("mask"))
        attend = attend if self.backend is None else self.backend
        if self.before is not None:
            return _with_gradient(self.before(attend, q, k, v, heads, *args, **kwargs), q)
        return attend(q, k, v, heads, *args, **kwargs)

    def around(self, stream: str, patch: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Look at what a replacement of attention is given; attentions inside it are its own affair."""

        def replaced(q: Tensor, k: Tensor, v: Tensor, extra_options: Options, **kwargs: object) -> Tensor:
            now = self.now
            if now is not None:
                self._enter(extra_options)
                now.calls += 1
                self._look(stream, q, k, extra_options["n_heads"], extra_options)
            self.now = None
            try:
                return _with_gradient(patch(q, k, v, extra_options, **kwargs), q)
            finally:
                self.now = now

        return replaced

    def _enter(self, options: Options) -> None:
        block = (*options["block"], options.get("block_index"))
        if block != self.now.block:
            self.now.block, self.now.calls = block, 0

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
        """An attention of a U-Net's block."""
        uuids, grid = options.get("uuids", []), tuple(options["activations_shape"][-2:])
        site = self.now.counter.next(PARTS[options["block"][0]], stream, grid)
        if q.shape[1] != grid[0] * grid[1] or (stream == SELF and k.shape[1] < q.shape[1]):
            return  # another pack has cut the picture into tiles or merged tokens
        self._record(site, q, k, heads, uuids, scale, mask)
        self._leave(uuids)

    def _look_at_block(self, q: Tensor, k: Tensor, heads: int, named: Mapping[str, object]) -> None:
        """An attention of a transformer."""
        now, axis = self.now, 2 if named.get("skip_reshape") else 1
        order = now.order(q.shape[axis], k.shape[axis])
        # Rows of another number are a text refiner's, or parts of pictures.
        if order is None or len(q) != now.shape[0]:
            return
        blocks = now.family.count(now.network)
        for stream in views(order):
            site = now.counter.next(BLOCK, stream, order.grid, order.frames, blocks)
            self._record(site, q, k, heads, now.uuids, named.get("scale"), named.get("mask"), order)
        self._leave(now.uuids)

    def _record(
        self,
        site: Site,
        q: Tensor,
        k: Tensor,
        heads: int,
        uuids: Sequence[Hashable],
        scale: float | None,
        mask: Tensor | None,
        order: TokenOrder | None = None,
    ) -> None:
        """Hand the rows of every entry that is watched to its recorder."""
        for i, uuid in enumerate(uuids):
            recorder = self.recorders.get(uuid)
            if recorder is not None and recorder.wants(site):
                rows = slice(i * len(q) // len(uuids), (i + 1) * len(q) // len(uuids))
                part = mask if mask is None or mask.ndim < 3 or len(mask) == 1 else mask[rows]
                recorder.record(site, q[rows], k[rows], heads, scale, part, order)

    def _leave(self, uuids: Sequence[Hashable]) -> None:
        """End the evaluation where nothing more is wanted."""
        watching = [self.recorders[uuid] for uuid in uuids if uuid in self.recorders]
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
