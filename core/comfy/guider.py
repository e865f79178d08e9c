"""ComfyUI's guider for runs of our own with the model alone: nobody's guidance, nothing of Stagecraft's."""

from typing import Any

import comfy.samplers

OURS = "stagecraft"  # what the keys of our wrappers, and of our options on prompts, begin with
# Guidance is the sampler's, not the model's: an inversion follows the model alone.
GUIDANCE_OPTIONS = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "disable_cfg1_optimization",
)


def plain_guider(
    model: Any,  # noqa: ANN401 - ComfyUI's ModelPatcher
    positive: list[list[Any]],
    negative: list[list[Any]] | None = None,
    cfg: float = 1.0,
) -> Any:  # noqa: ANN401 - ComfyUI's CFGGuider
    """ComfyUI's guider for a run with the model alone: no other guidance than cfg, nothing of Stagecraft's own."""
    guider = comfy.samplers.CFGGuider(_unguided(model))
    guider.inner_set_conds({"positive": positive} | ({} if negative is None else {"negative": negative}))
    guider.set_cfg(cfg)
    return guider


def _unguided(model: Any) -> Any:  # noqa: ANN401
    model = model.clone()
    for option in GUIDANCE_OPTIONS:
        model.model_options.pop(option, None)
    for of_kind in model.wrappers.values():
        for key in [key for key in of_kind if str(key).startswith(OURS)]:
            del of_kind[key]
    return model
