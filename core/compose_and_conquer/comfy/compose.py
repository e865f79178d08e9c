"""CnC in any ComfyUI sampler: two depth maps as a control object beside ControlNets, and looks kept to their places."""

from collections.abc import Sequence
from typing import Any

import torch
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ...soft_guidance.comfy.apply import apply_soft_guidance, check_model
from ...soft_guidance.soft_guidance import PUBLISHED
from ..depth_maps import DepthMap
from .control import DepthControl, follow_depths
from .exemplars import Exemplars
from .files import CnC

Conditioning = list[list[Any]]


def compose_depth(
    model: Any,  # noqa: ANN401 - ComfyUI's ModelPatcher
    positive: Conditioning,
    negative: Conditioning,
    cnc: CnC,
    *,
    foreground: Tensor | None = None,
    background: Tensor | None = None,
    foreground_strength: float = 1.0,
    background_strength: float = 1.0,
    exemplars: Exemplars | None = None,
    mask: Tensor | None = None,
    rule: str = PUBLISHED,
    residual_scale: float | Sequence[float] = 1.0,
    start: float = 0.0,
    end: float = 1.0,
) -> tuple[Any, Conditioning, Conditioning]:
    """Compose a foreground in front of a background, with looks of their own.

    Both prompts get the same depths, tokens and masks, as published, so that CFG amplifies the text alone.

    Args:
        model: a U-Net of the kind that the fusers were trained for.
        positive: its entries keep their options, ControlNets among them.
        negative: the same.
        cnc: of `load_cnc`.
        foreground: depth (b h w c) in 0..1 of what is in front, near is bright; None: not known.
        background: depth of all the rest, with what the foreground hides.
        foreground_strength: times the foreground's depth.
        background_strength: times the background's depth.
        exemplars: tokens of looks; None: the prompt's text alone.
        mask: (b h w), 1 where the foreground is: its look stays inside, the background's outside. None: both looks are
            seen everywhere.
        rule: how the mask becomes cells of attention's grids, one of `soft_guidance.RULES`.
        residual_scale: times what the depths add to the U-Net, in all or for each skip connection and then the middle;
            0 leaves the depths out.
        start: share of the run in 0..1 before which depths add nothing.
        end: share after which they add nothing.

    Returns:
        Model, positive and negative for a sampler.

    Raises:
        ValueError: another model, a missing fuser, or settings that cannot be meant.
    """
    _check(model, cnc, (foreground, background), exemplars, mask, start, end)
    if exemplars is not None and mask is not None:
        model, positive, negative = apply_soft_guidance(model, positive, negative, exemplars.regions(mask), rule)
    elif exemplars is not None:
        tokens = (exemplars.foreground, exemplars.background)
        positive, negative = _with_tokens(positive, tokens), _with_tokens(negative, tokens)
    scales = _scales(cnc, residual_scale)
    if not any(scales):
        return model, positive, negative
    maps = (
        DepthMap("foreground depth", foreground, foreground_strength),
        DepthMap("background depth", background, background_strength),
    )
    return follow_depths(model), *_with_control(DepthControl(cnc, maps, scales, start, end), positive, negative)


def _with_control(control: DepthControl, positive: Conditioning, negative: Conditioning) -> list[Conditioning]:
    """Put one control object on all entries, in front of each chain that is there; ComfyUI batches what shares one."""
    chains: dict[Any, DepthControl] = {}
    out = []
    for prompt in (positive, _with_shared_control(positive, negative)):
        entries = []
        for text, options in prompt:
            before = options.get("control")
            if before not in chains:
                chains[before] = control.copy().set_previous_controlnet(before)
            entries.append([text, {**options, "control": chains[before], "control_apply_to_uncond": False}])
        out.append(entries)
    return out


def _with_shared_control(positive: Conditioning, negative: Conditioning) -> Conditioning:
    """Give the negative prompt the ControlNets that Apply ControlNet (OLD) has put on the positive one alone.

    ComfyUI does so in a run, but only where the negative prompt has no control objects, and ours would be one.
    """
    shared = [
        options["control"]
        for _, options in positive
        if options.get("control_apply_to_uncond") and options.get("control") is not None and "area" not in options
    ]
    whole = [number for number, (_, options) in enumerate(negative) if "area" not in options]
    if not whole or any(negative[number][1].get("control") is not None for number in whole):
        return negative
    out = list(negative)
    for count, control in enumerate(shared):
        number = whole[count % len(whole)]
        text, options = negative[number]
        out[number] = [text, {**options, "control": control}]
    return out


def _with_tokens(prompt: Conditioning, tokens: Sequence[Tensor]) -> Conditioning:
    """Tokens behind the text, open to the whole picture."""
    added = []
    for text, options in prompt:
        if text.shape[-1] != tokens[0].shape[-1]:
            raise ValueError(
                f"The exemplars' tokens have width {tokens[0].shape[-1]}, but the prompts have {text.shape[-1]}. Make "
                "the exemplars with the CnC file that fits this checkpoint."
            )
        rows = max(len(each) for each in (text, *tokens))
        parts = [repeat_to_batch_size(each.to(text), rows) for each in (text, *tokens)]
        added.append([torch.cat(parts, dim=1), options])
    return added


def _scales(cnc: CnC, residual_scale: float | Sequence[float]) -> tuple[float, ...]:
    if cnc.local is None:
        return ()
    count = len(cnc.local.model.zero_convs) + 1
    scales = (residual_scale,) * count if isinstance(residual_scale, (int, float)) else tuple(residual_scale)
    if len(scales) != count:
        raise ValueError(f"There are {len(scales)} residual scales; expected one, or {count}: skips, then the middle.")
    return scales


def _check(
    model: Any,  # noqa: ANN401
    cnc: CnC,
    maps: tuple[Tensor | None, Tensor | None],
    exemplars: Exemplars | None,
    mask: Tensor | None,
    start: float,
    end: float,
) -> None:
    check_range(start, end)
    if cnc.local is None and any(depth is not None for depth in maps):
        raise ValueError(
            f"{cnc.name} has no local fuser, which reads depth. Choose a file that has both fusers in Load CnC, or "
            "disconnect the depths."
        )
    if cnc.local is None and exemplars is None:
        raise ValueError(
            f"{cnc.name} has no local fuser, and no exemplars are connected, so Depth Compose would do nothing. "
            "Connect Exemplars, or choose a file that has both fusers in Load CnC."
        )
    if mask is not None and exemplars is None:
        raise ValueError(
            "The mask keeps the looks of exemplars in their places, but none are connected. Connect Exemplars, or "
            "disconnect the mask; the depths need none."
        )
    if cnc.config is not None:
        if sentence := cnc.config.matches(model.model.model_config.unet_config):
            raise ValueError(sentence)
    check_model(model)


def check_range(start: float, end: float) -> None:
    """Refuse shares of a run between which no step lies.

    Raises:
        ValueError: start is not below end, or one is not in 0..1.
    """
    if not 0 <= start < end <= 1:
        raise ValueError(
            f"start is {start:g} and end {end:g}, so depth would add nothing. Set both to shares of the run in 0..1, "
            "end to more than start."
        )
