"""What nodes show while they work: progress over several runs or many pictures, and text on the node itself."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import comfy.model_management
import comfy.utils
import latent_preview
from server import PromptServer

from .types import Callback, Model

Thing = TypeVar("Thing")


def progress(model: Model, run: int, runs: int) -> Callback:
    """ComfyUI's progress bar and preview for one of several runs of a node, counted from 0, as one bar."""
    show = latent_preview.prepare_callback(model, 1)
    return lambda step, clean, state, steps: show(run * steps + step, clean, state, runs * steps)


def one_by_one(things: Sequence[Thing]) -> Iterator[Thing]:
    """Give things one after the other, show how far it is, and stop between two of them where the run is cancelled."""
    bar = comfy.utils.ProgressBar(len(things))
    for thing in things:
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield thing
        bar.update(1)


def show_text(node_id: str | None, text: str) -> None:
    """Write text on a node in the browser, as ComfyUI's own Get Image Size does; without a server nothing happens."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)
