"""ComfyUI's guider for runs of our own with the model alone: nobody's guidance, nothing of Stagecraft's."""

from dataclasses import dataclass

import comfy.samplers

from .types import Conditioning, Guider, Model

OURS = "stagecraft"  # what the keys of our wrappers, and of our options on prompts, begin with
# Guidance is the sampler's, not the model's: an inversion follows the model alone.
GUIDANCE_OPTIONS = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "disable_cfg1_optimization",
)


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
    negative = {} if prompts.negative is None else {"negative": prompts.negative}
    guider.inner_set_conds({"positive": prompts.positive} | negative)
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
