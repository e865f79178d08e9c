"""What editing does around one run of a ComfyUI sampler: inversion, the start, and holding on to the picture."""

from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ...comfy.runs import check_parts, warn_of_plain_prompts
from ...comfy.wrapping import wrap_runs
from ...inversion.comfy.invert import invert_latent, require_deterministic
from ...inversion.inversion import blend_noise, rising_sigmas, state_at
from ...layout.masks import is_same_aspect, resample_by_area
from ..edits import EditError

WRAPPER = "stagecraft_edit"
Wrappers = comfy.patcher_extension.WrappersMP
# Options on the source prompt's entries, which themselves never rule a step: tensors and numbers only.
SOURCE = "stagecraft_source"  # on all of them
FREE = "stagecraft_free_mask"  # (h w) at the picture's resolution, on the first
KEEP = "stagecraft_keep_mask"  # (h w), share of the inverted noise
KEEPS_NOISE = "stagecraft_keeps_noise"  # whether an edit keeps some where it paints
REFINEMENTS = "stagecraft_refinements"

# A schedule may begin a little below the model's highest noise level (ddim_uniform with 10 steps: 0.1 of the run).
LATEST_START = 0.11


def follow_edits(model: Any) -> Any:  # noqa: ANN401 - ComfyUI's ModelPatcher
    """Give a clone of the model that follows the edits on its prompts; doing so twice changes nothing more."""
    return wrap_runs(model, WRAPPER, run_edits)


def run_edits(
    executor: Any,  # noqa: ANN401 - ComfyUI's wrapper
    noise: Tensor,
    latent_image: Tensor,
    sampler: Any,  # noqa: ANN401
    sigmas: Tensor,
    denoise_mask: Tensor | None = None,
    callback: Any = None,  # noqa: ANN401
    disable_pbar: bool = False,
    *args: Any,  # noqa: ANN401
    **kwargs: Any,  # noqa: ANN401
) -> Tensor:
    """OUTER_SAMPLE wrapper: inverts the picture, starts the run, and holds on to what shall stay.

    The conditioning and the model options that it changes are ComfyUI's copies for this one run.

    Raises:
        EditError: a latent, a schedule or a sampler that does not go together with the edits.
    """
    guider = executor.class_obj
    source = _take_source(guider)
    if not source:
        warn_of_plain_prompts("Edit Picture", "edits")
        return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, *args, **kwargs)
    free, keep, keeps_noise, refinements = _take_edits(source)
    patcher = guider.model_patcher
    sampling = patcher.get_model_object("model_sampling")
    _check_run(noise, latent_image, sigmas, free, sampling, kwargs.get("latent_shapes"))
    if keeps_noise:
        require_deterministic(sampler, "an edit that keeps some of the inverted noise")

    levels = rising_sigmas(sigmas)
    steps = len(levels) - 1
    trajectory = invert_latent(
        patcher, [[entry.pop("cross_attn", None), entry] for entry in source], latent_image, levels,
        refinements=refinements, callback=_share_of(callback, 0, 2 * steps), disable_pbar=disable_pbar,
    )  # fmt: skip
    cells = (1,) * (noise.ndim - 2) + tuple(noise.shape[-2:])
    free, keep = (resample_by_area(mask, *cells[-2:]).reshape(cells).to(trajectory) for mask in (free, keep))
    clean = patcher.model.process_latent_in(latent_image.to(trajectory))
    noise = _start_noise(trajectory[-1], clean, noise.to(trajectory), keep, sigmas[0].to(trajectory), sampling)
    hold = _holding(trajectory, levels.to(trajectory), clean, free)
    comfy.patcher_extension.add_wrapper_with_key(
        Wrappers.PREDICT_NOISE, WRAPPER, hold, guider.model_options, is_model_options=True
    )
    callback = _share_of(callback, steps, 2 * steps)
    result = executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, *args, **kwargs)
    # Samplers end on the prediction, but not all of them to the last bit.
    return torch.where(free.to(result) > 0, result, latent_image.to(result))


def _take_source(guider: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """Take the source prompt's entries off this run's conds."""
    found = []
    for name, entries in guider.conds.items():
        found += [entry for entry in entries if SOURCE in entry]
        guider.conds[name] = [entry for entry in entries if SOURCE not in entry]
    return found


def _take_edits(source: list[dict[str, Any]]) -> tuple[Tensor, Tensor, int, int]:
    for entry in source:
        # Without it they rule the whole run, or the share that their text encoder gave them.
        del entry[SOURCE], entry["start_percent"]
    carriers = [entry for entry in source if FREE in entry]
    if len(carriers) != 1:
        raise EditError(
            f"{len(carriers)} Edit Pictures meet in the prompts of one run; expected one. Chain the edits (before) "
            "instead of combining prompts."
        )
    return tuple(carriers[0].pop(key) for key in (FREE, KEEP, KEEPS_NOISE, REFINEMENTS))


def _check_run(
    noise: Tensor,
    latent: Tensor,
    sigmas: Tensor,
    free: Tensor,
    sampling: Any,  # noqa: ANN401
    latent_shapes: Any,  # noqa: ANN401
) -> None:
    needs = "Editing needs a latent of a picture or a video"
    check_parts(noise, latent_shapes, needs, "Sample this model without edits", error=EditError)
    height, width = latent.shape[-2:]
    if not is_same_aspect(height, width, *free.shape):
        raise EditError(
            f"The latent is {width} x {height} cells, which is not the shape of the edited picture ({free.shape[1]} x "
            f"{free.shape[0]} pixels). Connect the latent output of Edit Picture to the sampler."
        )
    if not latent.any():
        raise EditError("The latent is empty. Connect the latent output of Edit Picture to the sampler.")
    if sigmas[0] < 0.999 * float(sampling.percent_to_sigma(LATEST_START)):
        raise EditError(
            f"The run starts at noise level {float(sigmas[0]):.3g}, in mid-way; an edit starts from noise. Set denoise "
            "to 1 and start_at_step to 0."
        )
    if sigmas[-1] > 0:
        raise EditError(
            f"The run stops at noise level {float(sigmas[-1]):.3g}; expected 0. Let end_at_step be the number of "
            "steps, or do not split the schedule."
        )
    if not noise.any():
        raise EditError("The run adds no noise, but an edit needs it. Switch add_noise on, or connect Random Noise.")


def _share_of(callback: Any, done: int, total: int) -> Any:  # noqa: ANN401
    """Progress of one of the two halves, inversion and sampling, as progress of the whole."""
    if callback is None:
        return None
    return lambda step, clean, state, _: callback(done + step, clean, state, total)


def _start_noise(
    inverted: Tensor,
    clean: Tensor,
    noise: Tensor,
    keep: Tensor,
    sigma: Tensor,
    sampling: Any,  # noqa: ANN401
) -> Tensor:
    """What to give ComfyUI as noise so that the run starts from inverted and fresh noise, without the picture itself.

    ComfyUI scales the noise and adds the latent to it, in a way of its own for each kind of model.
    """
    highest = bool(sigma >= (1 - 1e-5) * sampling.sigma_max)
    scale = sampling.noise_scaling(sigma, torch.ones_like(noise), torch.zeros_like(noise), highest)
    start = blend_noise(inverted, scale * noise, keep)
    return (start - sampling.noise_scaling(sigma, torch.zeros_like(noise), clean, highest)) / scale


def _holding(trajectory: Tensor, sigmas: Tensor, clean: Tensor, free: Tensor) -> Callable[..., Tensor]:
    """PREDICT_NOISE wrapper: the network sees the inversion outside, and the sampler is led back to the picture.

    Edges are soft in the prediction only: a state that mixes two noises would have less of it than the network expects.
    """
    changing = free > 0

    def hold(executor: Any, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        seen = torch.where(changing, x, state_at(trajectory, sigmas, sigma.to(sigmas)).to(x))
        return torch.lerp(clean.to(x), executor(seen, sigma, *args, **kwargs), free.to(x))

    return hold
