"""CnC in any ComfyUI sampler: two depth maps as a control object beside ControlNets, and looks kept to their places."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from comfy.controlnet import ControlBase
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ...comfy.types import Conditioning, Model
from ...soft_guidance.comfy.apply import apply_soft_guidance, check_model
from ...soft_guidance.soft_guidance import PUBLISHED
from ..depth_maps import Depths
from .control import DepthControl, follow_depths
from .exemplars import Exemplars
from .files import CnC


@dataclass(frozen=True, eq=False)
class Looks:
    """Looks of a foreground and a background, and where each is seen.

    Attributes:
        exemplars: tokens of looks; None: the prompt's text alone.
        mask: (b h w), 1 where the foreground is: its look stays inside, the background's outside. None: both looks are
            seen everywhere.
        rule: how the mask becomes cells of attention's grids, one of `soft_guidance.RULES`.
    """

    exemplars: Exemplars | None = None
    mask: Tensor | None = None
    rule: str = PUBLISHED


NO_LOOKS = Looks()


def compose_depth(
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    cnc: CnC,
    depths: Depths,
    looks: Looks = NO_LOOKS,
) -> tuple[Model, Conditioning, Conditioning]:
    """Compose a foreground in front of a background, with looks of their own.

    Both prompts get the same depths, tokens and masks, as published, so that CFG amplifies the text alone.

    Args:
        model: a U-Net of the kind that the fusers were trained for.
        positive: its entries keep their options, ControlNets among them.
        negative: the same.
        cnc: of `load_cnc`.
        depths: of foreground and background.
        looks: of foreground and background.

    Returns:
        Model, positive and negative for a sampler.

    Raises:
        ValueError: another model, a missing fuser, or settings that cannot be meant.
    """
    _check(model, cnc, depths, looks)
    exemplars = looks.exemplars
    if exemplars is not None and looks.mask is not None:
        regions = exemplars.regions(looks.mask)
        model, positive, negative = apply_soft_guidance(model, positive, negative, regions, looks.rule)
    elif exemplars is not None:
        tokens = (exemplars.foreground, exemplars.background)
        positive, negative = _with_tokens(positive, tokens), _with_tokens(negative, tokens)
    scales = () if cnc.local is None else depths.scales(len(cnc.local.model.zero_convs) + 1)
    if not any(scales):
        return model, positive, negative
    control = DepthControl(cnc, depths.maps(), scales, depths.start_at, depths.end_at)
    return follow_depths(model), *_with_control(control, positive, negative)


def _with_control(control: DepthControl, positive: Conditioning, negative: Conditioning) -> list[Conditioning]:
    """Put one control object on all entries, in front of each chain that is there; ComfyUI batches what shares one."""
    chains: dict[ControlBase | None, DepthControl] = {}
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


def _check(model: Model, cnc: CnC, depths: Depths, looks: Looks) -> None:
    depths.check_range()
    if cnc.local is None and any(depth is not None for depth in (depths.foreground, depths.background)):
        raise ValueError(
            f"{cnc.name} has no local fuser, which reads depth. Choose a file that has both fusers in Load CnC, or "
            "disconnect the depths."
        )
    if cnc.local is None and looks.exemplars is None:
        raise ValueError(
            f"{cnc.name} has no local fuser, and no exemplars are connected, so Depth Compose would do nothing. "
            "Connect Exemplars, or choose a file that has both fusers in Load CnC."
        )
    if looks.mask is not None and looks.exemplars is None:
        raise ValueError(
            "The mask keeps the looks of exemplars in their places, but none are connected. Connect Exemplars, or "
            "disconnect the mask; the depths need none."
        )
    if cnc.config is not None:
        if sentence := cnc.config.matches(model.model.model_config.unet_config):
            raise ValueError(sentence)
    check_model(model)
