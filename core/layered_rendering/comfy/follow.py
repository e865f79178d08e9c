"""Puts layered rendering around the runs of a model."""

import math

from torch import Tensor

from ...comfy.runs import Run, around_runs, check_one_gpu, check_parts, warn_of_idle, warn_of_plain_prompts
from ...comfy.types import Model
from .entry import LayerEntry
from .run import WRAPPER, LayeredRun
from .trajectories import sample_apart


def follow_layers(model: Model) -> Model:
    """Give a clone of the model that follows the layers on its prompts; doing so twice changes nothing more."""
    return around_runs(model, WRAPPER, paint_layers)


def paint_layers(run: Run) -> Tensor:
    """Fit the layers of a run to its grid and schedule, start their vision guidance, and let it run.

    Raises:
        ValueError: latents of another shape than the layout, or of a kind that has no picture plane.
    """
    if not any(LayerEntry.is_on(entry) for entry in run.entries):
        warn_of_plain_prompts(run, "Layered Rendering", "layers")
        return run.go()
    _check_latents(run)
    layered = LayeredRun(run)
    warn_of_idle(run, "Layered Rendering", "end_at", math.inf, layered.last_layered_sigma)
    layered.install()
    return run.go(sampler=run.sampler if layered.apart_until is None else sample_apart(layered, run.sampler))


def _check_latents(run: Run) -> None:
    noise = run.noise
    check_parts(
        run, "Layered rendering needs a latent of a picture or a video", "Sample this model without layered rendering"
    )
    windows = run.options.get("context_handler")
    frames, rows = (noise.shape[2], noise.shape[3]) if noise.ndim == 5 else (0, -1)
    if frames == rows and getattr(windows, "dim", None) == 2 and frames > windows.context_length:
        raise ValueError(
            f"The latent has as many frames as rows ({frames}), so ComfyUI's context windows would cut the layers' "
            "masks instead of the frames. Make the video 4 frames longer or shorter, or change the height."
        )
    check_one_gpu(run, "Layered rendering")
