"""ComfyUI's guider for runs of our own with the model alone: nobody's guidance, nothing of Stagecraft's."""

from dataclasses import dataclass

import comfy.samplers
from comfy.controlnet import ControlBase

from .types import Conditioning, Guider, Model

OURS = "stagecraft"  # what the keys of our wrappers, and of our options on prompts, begin with
# Guidance is the sampler's, not the model's: an inversion follows the model alone.
GUIDANCE_OPTIONS = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "disable_cfg1_optimization",
)


class OurControl(ControlBase):
    """Base of control objects of Stagecraft's: they need our wrappers in a run."""


@dataclass(frozen=True, eq=False)
class Prompts:
    """What a run with the model alone is told.

    Attributes:
        positive: prompt.
        negative: only used where cfg is not 1; None: there is none.
        cfg: classifier-free guidance.
    """

    positive: Conditioning
    negative: Conditioning | None = None
    cfg: float = 1.0


def plain_guider(model: Model, prompts: Prompts) -> Guider:
    """ComfyUI's guider for a run with the model alone: no other guidance than cfg, nothing of Stagecraft's own."""
    guider = comfy.samplers.CFGGuider(_unguided(model))
    given = {"positive": prompts.positive} | ({} if prompts.negative is None else {"negative": prompts.negative})
    guider.inner_set_conds({name: _uncontrolled(prompt) for name, prompt in given.items()})
    guider.set_cfg(prompts.cfg)
    return guider


def _unguided(model: Model) -> Model:
    model = model.clone()
    for option in GUIDANCE_OPTIONS:
        model.model_options.pop(option, None)
    for of_kind in model.wrappers.values():
        for key in [key for key in of_kind if str(key).startswith(OURS)]:
            del of_kind[key]
    return model


def _uncontrolled(prompt: Conditioning) -> Conditioning:
    """Without control objects of ours; those of others stay."""
    out = []
    for text, options in prompt:
        control = _without_ours(options.get("control"))
        kept = {key: value for key, value in options.items() if key != "control"}
        out.append([text, kept if control is None else kept | {"control": control}])
    return out


def _without_ours(control: ControlBase | None) -> ControlBase | None:
    if control is None:
        return None
    before = _without_ours(control.previous_controlnet)
    if isinstance(control, OurControl):
        return before
    return control if before is control.previous_controlnet else control.copy().set_previous_controlnet(before)
