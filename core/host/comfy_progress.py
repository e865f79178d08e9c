"""Progress of nodes that run a sampler several times."""

from typing import Any

import latent_preview


def progress(model: Any, run: int, runs: int) -> Any:  # noqa: ANN401 - ComfyUI's ModelPatcher and callback
    """ComfyUI's progress bar and preview for one of several runs of a node, counted from 0, as one bar."""
    show = latent_preview.prepare_callback(model, 1)
    return lambda step, clean, state, steps: show(run * steps + step, clean, state, runs * steps)
