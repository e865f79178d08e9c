"""What editing does around one run of a ComfyUI sampler: inversion, the start, and holding on to the picture."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...comfy.guider import Prompts
from ...comfy.runs import LATEST_START, Run, around_runs, check_parts, warn_of_plain_prompts
from ...comfy.types import Callback, Entry, Executor, Guider, Model, ModelSampling, Wrappers
from ...inversion.comfy.invert import invert_latent
from ...inversion.comfy.samplers import require_deterministic
from ...inversion.inversion import blend_noise, rising_sigmas, state_at
from ...layout.masks import is_same_aspect, resample_by_area
from ..edits import EditError
from .entry import EditEntry, SourceEntry

WRAPPER = "stagecraft_edit"
# What nodes behind Edit Picture in Layers put on all entries that they are given. The source prompt says what the
# picture shows, on the whole canvas and at every level of its inversion, so the order of the nodes is of no matter.
NOT_ITS_OWN = (
    "start_percent",  # ours among them: without it a source prompt would rule steps of the run
    "end_percent",
    "mask",
    "mask_strength",
    "set_area_to_bounds",
    "area",
    "strength",
    "default",
    "control",
    "control_apply_to_uncond",
    "gligen",
)


def follow_edits(model: Model) -> Model:
    """Give a clone of the model that follows the edits on its prompts; doing so twice changes nothing more."""
    return around_runs(model, WRAPPER, run_edits)


def run_edits(run: Run) -> Tensor:
    """Invert the picture, start the run from there, and hold on to what shall stay.

    Raises:
        EditError: a latent, a schedule or a sampler that does not go together with the edits.
    """
    source = _take_source(run.guider)
    if not source:
        warn_of_plain_prompts(run, "Edit Picture in Layers", "edits")
        return run.go()
    edits = _take_edits(source)
    _check_run(run, edits.free_mask)
    if edits.keeps_noise:
        require_deterministic(run.sampler, "an edit that keeps some of the inverted noise")

    levels = rising_sigmas(run.sigmas)
    steps = len(levels) - 1
    trajectory = invert_latent(
        run.model,
        Prompts([[entry.pop("cross_attn", None), entry] for entry in source]),
        run.latent,
        levels,
        refinements=edits.refinements,
        callback=_share_of(run.callback, 0, 2 * steps),
        disable_pbar=run.disable_pbar,
    )
    cells = (1,) * (run.noise.ndim - 2) + tuple(run.noise.shape[-2:])
    free, keep = (
        resample_by_area(mask, *cells[-2:]).reshape(cells).to(trajectory) for mask in (edits.free_mask, edits.keep_mask)
    )
    clean = run.model.model.process_latent_in(run.latent.to(trajectory))
    highest = run.sigmas[0].to(trajectory)
    noise = _start_noise(trajectory[-1], clean, run.noise.to(trajectory), keep, highest, run.model_sampling)
    run.wrap(Wrappers.PREDICT_NOISE, WRAPPER, _holding(trajectory, levels.to(trajectory), clean, free))
    result = run.go(noise=noise, callback=_share_of(run.callback, steps, 2 * steps))
    # Samplers end on the prediction, but not all of them to the last bit.
    return torch.where(free.to(result) > 0, result, run.latent.to(result))


def _take_source(guider: Guider) -> list[Entry]:
    """Take the source prompt's entries off this run's conds."""
    found = []
    for name, entries in guider.conds.items():
        found += [entry for entry in entries if SourceEntry.is_on(entry)]
        guider.conds[name] = [entry for entry in entries if not SourceEntry.is_on(entry)]
    return found


def _take_edits(source: list[Entry]) -> EditEntry:
    for entry in source:
        for key in NOT_ITS_OWN:
            entry.pop(key, None)
        SourceEntry.from_options(entry)
    found = [edits for entry in source if (edits := EditEntry.from_options(entry)) is not None]
    if len(found) != 1:
        raise EditError(
            f"{len(found)} nodes Edit Picture in Layers meet in the prompts of one run; expected one. Chain the "
            "edits (before) instead of combining prompts."
        )
    return found[0]


def _check_run(run: Run, free: Tensor) -> None:
    latent, sigmas = run.latent, run.sigmas
    needs = "Editing needs a latent of a picture or a video"
    check_parts(run, needs, "Sample this model without edits", error=EditError)
    height, width = latent.shape[-2:]
    if not is_same_aspect(height, width, *free.shape):
        raise EditError(
            f"The latent is {width} x {height} cells, which is not the shape of the edited picture ({free.shape[1]} x "
            f"{free.shape[0]} pixels). Connect the latent output of Edit Picture in Layers to the sampler."
        )
    if not latent.any():
        raise EditError("The latent is empty. Connect the latent output of Edit Picture in Layers to the sampler.")
    if sigmas[0] < 0.999 * float(run.model_sampling.percent_to_sigma(LATEST_START)):
        raise EditError(
            f"The run starts at noise level {float(sigmas[0]):.3g}, in mid-way; an edit starts from noise. Set denoise "
            "to 1 and start_at_step to 0."
        )
    if sigmas[-1] > 0:
        raise EditError(
            f"The run stops at noise level {float(sigmas[-1]):.3g}; expected 0. Let end_at_step be the number of "
            "steps, or do not split the schedule."
        )
    if not run.noise.any():
        raise EditError("The run adds no noise, but an edit needs it. Switch add_noise on, or connect Random Noise.")


def _share_of(callback: Callback | None, done: int, total: int) -> Callback | None:
    """Progress of one of the two halves, inversion and sampling, as progress of the whole."""
    if callback is None:
        return None
    return lambda step, clean, state, _: callback(done + step, clean, state, total)


def _start_noise(
    inverted: Tensor, clean: Tensor, noise: Tensor, keep: Tensor, sigma: Tensor, sampling: ModelSampling
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

    def hold(executor: Executor, x: Tensor, sigma: Tensor, *args: object, **kwargs: object) -> Tensor:
        seen = torch.where(changing, x, state_at(trajectory, sigmas, sigma.to(sigmas)).to(x))
        return torch.lerp(clean.to(x), executor(seen, sigma, *args, **kwargs), free.to(x))

    return hold
