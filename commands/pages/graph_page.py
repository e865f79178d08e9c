"""ComfyUI's graph editor in a browser: opens a workflow, runs it, gives pictures of its parts."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from PIL import Image

from ..browser import PATIENCE, open_editor
from ..comfy_api import ComfyApi, PromptFailed
from ..messages import SetupProblem
from .choice import Area

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDTH, HEIGHT = 1600, 1100  # of the page, pixels
# Where a part of the graph is brought to: beside the editor's own bars.
LEFT, TOP = 120, 160
_RUN_SECONDS = 600.0
# With the title's bar, which lies above a node's place.
_AREAS = """() => Object.fromEntries(app.graph.nodes.map((node) => {
    const [left, top, width, height] = node.getBounding();
    return [node.id, [left, top, width, height]] }))"""
_LINKED = """(id) => {
    const node = app.graph.getNodeById(id), ends = [];
    for (const link of (app.graph.links.values?.() ?? Object.values(app.graph.links)))
        if (link.origin_id === node.id || link.target_id === node.id) ends.push(link.origin_id, link.target_id);
    return ends.map(Number) }"""
_BRING = """(offset) => {
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = offset;
    app.canvas.setDirty(true, true);
    return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))) }"""


class GraphPage:
    """One page with the graph editor.

    Args:
        browser: to open it in.
        server: a running ComfyUI.
        known: a node's id that the editor knows as soon as the pack is loaded.
    """

    def __init__(self, browser: Browser, server: ComfyApi, known: str) -> None:
        self._server = server
        self._page = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}).new_page()
        self._page.set_default_timeout(PATIENCE)
        open_editor(self._page, server.url, known)

    def open(self, workflow: dict[str, object]) -> None:
        """Open a workflow."""
        self._page.evaluate("(workflow) => app.loadGraphData(workflow)", workflow)
        self._page.wait_for_timeout(500)

    def run(self) -> None:
        """Queue what is open, as a person does, and wait until its results are in the nodes.

        Raises:
            SetupProblem: it failed or did not end.
        """
        before = set(self._server.get_json("/history"))
        self._page.evaluate("app.queuePrompt(0)")
        try:
            status = self._server.wait_for_new(before, _RUN_SECONDS)["status"]
        except PromptFailed as error:
            raise SetupProblem(f"The workflow did not end: {error}.") from None
        if status["status_str"] != "success":
            raise SetupProblem(f"The workflow failed: {status}")
        self._page.wait_for_timeout(1500)  # the editor fetches the pictures after the last message

    def areas(self) -> dict[int, Area]:
        """Where the nodes lie, with their titles, by id."""
        return {int(node): tuple(area) for node, area in self._page.evaluate(_AREAS).items()}

    def linked(self, node: int) -> list[int]:
        """Ids of the nodes that a node has a link with, and its own."""
        return self._page.evaluate(_LINKED, node)

    def picture(self, part: Area) -> Image.Image:
        """Take a picture of a part of the graph, a pixel for each of its units.

        Args:
            part: left, top, width, height in the graph's units.
        """
        left, top, width, height = part
        self._page.evaluate(_BRING, [LEFT - left, TOP - top])
        clip = {"x": LEFT, "y": TOP, "width": width, "height": height}
        return Image.open(io.BytesIO(self._page.screenshot(clip=clip)), formats=["PNG"]).convert("RGB")
