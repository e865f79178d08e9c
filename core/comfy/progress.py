"""What nodes show while they work: progress over several runs or many pictures, and text on the node itself."""

import logging
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

import comfy.model_management
import comfy.utils
import latent_preview
from comfy_execution.utils import get_executing_context
from server import PromptServer

from .types import Callback, Model

Thing = TypeVar("Thing")
# An invisible letter (WORD JOINER) at which no line breaks.
JOINER = "\N{WORD JOINER}"
# What begins a tag, an entity, or a link of the front end's own ([[label|address]], or the mark that it puts in its
# place, into which a label goes with its quotes, even inside an attribute).
BEGINS_MARKUP = re.compile(r"[<&\[\]_]")


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
    """Write text on a node in the browser, as ComfyUI's own Get Image Size does; without a server nothing happens.

    Args:
        node_id: of the node.
        text: whatever it holds of phrases and names of files is shown and never run.
    """
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(without_markup(text), node_id)


def executing_node() -> str | None:
    """Id of the node that is executed now, or None outside a graph."""
    context = get_executing_context()
    return None if context is None else context.node_id


def warn_on_node(node_id: str | None, sentence: str) -> None:
    """Say something in the log and on a node."""
    logging.warning("Stagecraft: %s", sentence)
    show_text(node_id, sentence)


def without_markup(text: str) -> str:
    """The same to a reader, but nothing in it is a tag, an entity or a link to a browser.

    One front end takes the text for HTML, another for Markdown, a third for plain text, where an entity such as `&lt;`
    would be read by people. What begins markup is therefore parted from what follows by an invisible letter: HTML takes
    `<` and `&` for themselves unless a letter, `/`, `!`, `?` or `#` comes next, Markdown makes a link or a picture of
    `](` alone, and ComfyUI's page one of `[[label|address]]`, in whose place it puts `__LNK0__`.
    """
    return BEGINS_MARKUP.sub(lambda found: found[0] + JOINER, text)
