"""Records attention in diffusers' U-Nets: the same maps under the same names as in ComfyUI."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from .recorder import AttentionRecorder, LastMapRecorded
from .sites import CROSS, DOWN, MIDDLE, SELF, UP, SiteCounter

Hook = Callable[[nn.Module, tuple[object, ...], dict[str, object]], None]  # module, its arguments by place and by name
PARTS = {"down_blocks": DOWN, "mid_block": MIDDLE, "up_blocks": UP}


@contextmanager
def record_attention(
    unet: UNet2DConditionModel, recorder: AttentionRecorder, *, rows: slice = slice(None), leave_early: bool = False
) -> Iterator[None]:
    """Let one forward pass of a U-Net fill a recorder.

        recorder = AttentionRecorder(MIDDLE_AND_FIRST_UP, latents.shape[-2:], [torch.tensor([2, 5])])
        with record_attention(unet, recorder, leave_early=True):
            unet(latents, timestep, prompt_embeds)

    The attention processors stay as they are, whichever they are (fused, sliced, IP-Adapter's, one's own): queries and
    keys are taken in front of them. Maps are differentiable where gradients are on. On leaving, also by an exception,
    the U-Net is as it was; several recorders may be at work at once. Gradient checkpointing is off meanwhile.

    Args:
        unet: of SD 1.x, SD 2.x, SDXL or the like.
        recorder: to be filled; a new one for every pass.
        rows: of the batch, the conditional ones; in a diffusers pipeline with classifier-free guidance the last half.
        leave_early: end the pass behind the last map that is needed, which leaves the `with` block at that point.

    Raises:
        ValueError: the U-Net has no cross-attention, or the pass came to its end without a map.
    """
    watcher = _Watcher(recorder, rows, leave_early)
    with ExitStack() as hooks:
        hooks.enter_context(_without_checkpointing(unet))
        for name, module in unet.named_modules():
            part = PARTS.get(name.partition(".")[0])
            if part is not None and isinstance(module, Transformer2DModel):
                hooks.enter_context(_before(module, watcher.enter(part)))
                for each in module.modules():
                    if isinstance(each, Attention):
                        hooks.enter_context(_before(each, watcher.look))
        if not watcher.has_places:
            raise ValueError(
                f"{type(unet).__name__} has no transformer blocks, so it has no attention to a prompt. U-Nets of "
                "SD 1.x, SD 2.x and SDXL have."
            )
        try:
            yield
        except LastMapRecorded:
            return
    if not recorder.maps:
        raise ValueError(
            f'No attention was found at the places "{recorder.which}". Was the U-Net called inside the `with` block?'
        )


@contextmanager
def _before(module: nn.Module, look: Hook) -> Iterator[None]:
    """Show a module's arguments to a function before every call."""
    handle = module.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _without_checkpointing(unet: nn.Module) -> Iterator[None]:
    """Blocks that are evaluated again on the way back would then lack what was recorded in them."""
    checkpointed = [module for module in unet.modules() if getattr(module, "gradient_checkpointing", False)]
    try:
        for module in checkpointed:
            module.gradient_checkpointing = False
        yield
    finally:
        for module in checkpointed:
            module.gradient_checkpointing = True


class _Watcher:
    """Names the attentions of a forward pass and hands their queries and keys to the recorder."""

    def __init__(self, recorder: AttentionRecorder, rows: slice, leave_early: bool) -> None:
        self.recorder, self.rows, self.leave_early = recorder, rows, leave_early
        self.counter = SiteCounter()
        self.part, self.grid = DOWN, (0, 0)
        self.has_places = False

    def enter(self, part: str) -> Hook:
        """Hook of a stack of transformer blocks, which is the last to know rows and columns."""
        self.has_places = True

        def hook(_module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            states = args[0] if args else kwargs["hidden_states"]
            self.part, self.grid = part, tuple(states.shape[-2:])

        return hook

    def look(self, attention: Attention, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Hook of an attention."""
        given = dict(zip(("hidden_states", "encoder_hidden_states", "attention_mask"), args, strict=False)) | kwargs
        states, context = given["hidden_states"], given.get("encoder_hidden_states")
        site = self.counter.next(self.part, SELF if context is None else CROSS, self.grid)
        # Token merging leaves fewer queries than positions; such a site has no map.
        if states.shape[1] == site.grid[0] * site.grid[1] and self.recorder.wants(site):
            q, k = _queries_and_keys(attention, states[self.rows], _rows_of(context, self.rows))
            mask = given.get("attention_mask")
            mask = None if mask is None else mask[self.rows]
            self.recorder.record(site, q, k, attention.heads, attention.scale, mask)
        if self.leave_early and self.recorder.is_complete:
            raise LastMapRecorded


def _rows_of(context: Tensor | tuple | None, rows: slice) -> Tensor | None:
    """The prompt's embedding; with an IP-Adapter the pictures' stands behind it."""
    context = context[0] if isinstance(context, tuple) else context
    return None if context is None else context[rows]


def _queries_and_keys(attention: Attention, states: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """As diffusers' own processors make them: (b n (heads d)) and (b t (heads d))."""
    if context is None:
        context = states
    elif attention.norm_cross:
        context = attention.norm_encoder_hidden_states(context)
    return attention.to_q(states), attention.to_k(context)
