"""Chromium without a window, for commands and tests that need ComfyUI's graph editor."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .messages import SetupProblem

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


# What the editor shows to a newcomer would lie over the graph.
_CALM = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.WarnBlueprintOverwrite": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Minimap.Visible": False,
}
# An editor that is ready has loaded a workflow of its own, which would otherwise come after the one that is opened.
_READY = """(known) => window.app && window.LiteGraph && !!LiteGraph.registered_node_types[known]
    && !!app.extensionManager?.workflow?.activeWorkflow"""
PATIENCE = 90_000  # milliseconds for a page to be there on a busy machine


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the system's Chromium, or Playwright's own.

    Raises:
        SetupProblem: Playwright is not installed, or there is no Chromium; the text says how to get it.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SetupProblem("playwright is not installed in this environment, so nothing can drive a browser.") from None
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        program = next(filter(None, map(shutil.which, _NAMES)), own if os.path.exists(own) else None)
        if program is None:
            raise SetupProblem(
                f"There is no Chromium ({', '.join(_NAMES)}); on Debian and Ubuntu: apt install chromium."
            )
        running = playwright.chromium.launch(executable_path=program, args=list(_QUIET))
        yield running
        running.close()


def open_editor(page: Page, address: str, known: str, *, vue: bool = False) -> None:
    """Load ComfyUI's graph editor, again where it is loaded already, and wait until it is ready.

    Args:
        page: to load it in.
        address: of the server.
        known: the id of a node that the editor has to know.
        vue: whether nodes are drawn by Vue and not on the canvas; kept by the server for all of its pages.

    Raises:
        SetupProblem: the server refuses the settings.
    """
    if not page.request.post(f"{address}/settings", data=_CALM | {"Comfy.VueNodes.Enabled": vue}).ok:
        raise SetupProblem("ComfyUI does not take the editor's settings.")
    page.goto(address)
    page.wait_for_function(_READY, arg=known)
