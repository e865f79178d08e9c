"""What layered rendering does around one run of a ComfyUI sampler: masks, the switch at t0, and vision guidance."""

import logging
from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
import torch
from einops import rearrange
from torch import Tensor

from ..masks import is_same_aspect, resample_by_area
from ..vision_guidance import state_scale, vision_guidance

WRAPPER = "stagecraft_layers"
# Options on conditioning entries: tensors and numbers only, so that ComfyUI can save them.
VISIBLE = "stagecraft_visible_mask"  # (1 h w) at the canvas' resolution
OWN = "stagecraft_own_mask"  # (1 h w) at the canvas' resolution, hidden parts included
DELTA = "stagecraft_delta"  # (c) in the model's latent space
LAYERS_UNTIL = "stagecraft_layers_until"  # on global entries: share of the run at which the layers hand over


def follow_layers(model: Any) -> Any:  # noqa: ANN401 - ComfyUI's ModelPatcher
    """Give a clone of the model that follows the layers on its prompts; doing so twice changes nothing more."""
    model = model.clone()
    kind = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    if not model.get_wrappers(kind, WRAPPER):
        model.add_wrapper_with_key(kind, WRAPPER, prepare_run)
    return model


def prepare_run(executor: Any, noise: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - ComfyUI's wrapper
    """OUTER_SAMPLE wrapper: fits the layers of this run to its grid and schedule, and starts their vision guidance.

    The conditioning and the model options that it changes are ComfyUI's copies for this one run.

    Raises:
        ValueError: latents of another shape than the layout, or of a kind that has no picture plane.
    """
    guider = executor.class_obj
    entries = [entry for conditioning in guider.conds.values() for entry in conditioning]
    layers = [entry for entry in entries if VISIBLE in entry]
    if not layers:
        logging.warning(
            "Stagecraft: the model comes from Layered Rendering, but the prompts do not; sampling without layers. "
            "Connect its positive and negative outputs to the sampler too."
        )
        return executor(noise, *args, **kwargs)
    _check_latents(guider, noise, kwargs.get("latent_shapes"))
    guidance = {}
    for entry in layers:
        visible, own, delta = entry.pop(VISIBLE), entry.pop(OWN, None), entry.pop(DELTA, None)
        height, width = noise.shape[-2:]
        if not is_same_aspect(height, width, *visible.shape[-2:]):
            raise ValueError(
                f"The latent is {width} x {height} cells, which is not the shape of the layout's canvas "
                f"({visible.shape[-1]} x {visible.shape[-2]} pixels). Give both the same width and height."
            )
        entry["mask"] = resample_by_area(visible, height, width).expand(1, *noise.shape[2:])
        if delta is not None:
            if len(delta) != noise.shape[1]:
                raise ValueError(
                    f"The colours were encoded with {len(delta)} latent channels, but the latent has {noise.shape[1]}. "
                    "Sample with the model that the layered rendering was made with."
                )
            xi = vision_guidance(delta, resample_by_area(own[0], height, width))
            guidance[entry["uuid"]] = xi.to(guider.model_patcher.load_device)
    sampling = guider.model_patcher.get_model_object("model_sampling")
    for entry in entries:
        if LAYERS_UNTIL in entry:
            _hand_over(entry, sampling.percent_to_sigma)
    if guidance:
        comfy.patcher_extension.add_wrapper_with_key(
            comfy.patcher_extension.WrappersMP.APPLY_MODEL,
            WRAPPER,
            _guide_rows(guidance),
            guider.model_options,
            is_model_options=True,
        )
    return executor(noise, *args, **kwargs)


def _check_latents(guider: Any, noise: Tensor, latent_shapes: Any) -> None:  # noqa: ANN401
    if noise.ndim not in (4, 5) or len(latent_shapes or [0]) > 1:
        raise ValueError(
            f"Layered rendering needs a latent of a picture or a video; found one of shape {tuple(noise.shape)} in "
            f"{len(latent_shapes or [0])} parts. Sample this model without layered rendering."
        )
    if guider.model_options.get("multigpu_clones"):
        raise ValueError("Layered rendering does not run on several GPUs at once. Remove the multi-GPU node.")


def _hand_over(entry: dict[str, Any], percent_to_sigma: Callable[[float], float]) -> None:
    """Start a global entry at the first noise level below the layers' last, so that no step counts twice or not at all.

    ComfyUI keeps both ends of an entry's share of the run, so two entries that meet at t0 would both be active there.
    """
    last = torch.tensor(float(percent_to_sigma(entry.pop(LAYERS_UNTIL))), dtype=torch.float32)
    below = torch.nextafter(last, torch.tensor(-torch.inf)).item()
    entry["timestep_start"] = min(below, float(percent_to_sigma(entry.pop("start_percent"))))


def _guide_rows(guidance: dict[Any, Tensor]) -> Callable[..., Tensor]:
    """APPLY_MODEL wrapper that adds xi (c h w) to the rows of the entries with these uuids.

    A ControlNet has already been evaluated by then: it sees the unperturbed state, of which its hint speaks.
    """

    def guide(  # ComfyUI's own signature
        executor: Any,  # noqa: ANN401
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: dict[str, Any] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Tensor:
        rest = (t, c_concat, c_crossattn, control, transformer_options or {})
        uuids = rest[-1].get("uuids", [])
        if not any(uuid in guidance for uuid in uuids):
            return executor(x, *rest, **kwargs)
        offset = torch.zeros_like(x)
        scale = _scale_of_state(executor.class_obj.model_sampling, x, t)
        for uuid, rows, factor in zip(uuids, offset.chunk(len(uuids)), scale.chunk(len(uuids)), strict=True):
            if uuid in guidance:
                xi = guidance[uuid].to(x)
                rows += factor * (xi if x.ndim == 4 else rearrange(xi, "c h w -> c 1 h w"))
        return executor(x + offset, *rest, **kwargs)

    return guide


def _scale_of_state(sampling: Any, x: Tensor, sigma: Tensor) -> Tensor:  # noqa: ANN401
    """`state_scale` of every row (b 1 1 ...), from how this model's own sampling mixes data and noise."""
    one = x.new_ones((len(x),) + (1,) * (x.ndim - 1))
    zero = torch.zeros_like(one)
    signal, noise = sampling.noise_scaling(sigma, zero, one), sampling.noise_scaling(sigma, one, zero)
    return state_scale(signal, noise, float(getattr(sampling, "sigma_data", 1.0)))
