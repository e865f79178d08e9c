"""ComfyUI's graph editor in a browser: opens a workflow, runs it, gives pictures of its parts."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

from PIL import Image

from ..comfy_api import ComfyApi
from ..messages import SetupProblem
from .choice import Area

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDTH, HEIGHT = 1600, 1100  # of the page, pixels
# Where a part of the graph is brought to: beside the editor's own bars.
LEFT, TOP = 120, 160
_PATIENCE = 90_000  # milliseconds
_RUN_SECONDS = 600.0
# What the editor shows to a newcomer would lie over the graph.
_CALM = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.WarnBlueprintOverwrite": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.VueNodes.Enabled": False,
    "Comfy.Minimap.Visible": False,
}
_READY = "window.app && !!app.extensionManager?.workflow?.activeWorkflow && !!LiteGraph.registered_node_types[{!r}]"
# With the title's bar, which lies above a node's place.
_AREAS = """() => Object.fromEntries(app.graph.nodes.map((node) => {
    const [left, top, width, height] = node.getBounding();
    return [node.id, [left, top, width, height]] }))"""
_LINKED = """(id) => {
    const node = app.graph.getNodeById(id), ends = [];
    for (const link of (app.graph.links.values?.() ?? Object.values(app.graph.links)))
        if (link.origin_id === node.id || link.target_id === node.id) ends.push(link.origin_id, link.target_id);
    return ends.map(Number) }"""
_BRING = """([x, y, scale, left, top]) => {
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = [left / scale - x, top / scale - y];
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
        self._page.set_default_timeout(_PATIENCE)
        if not self._page.request.post(f"{server.url}/settings", data=_CALM).ok:
            raise SetupProblem("ComfyUI does not take the editor's settings.")
        self._page.goto(server.url)
        self._page.wait_for_function(_READY.format(known))

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
        deadline = time.monotonic() + _RUN_SECONDS
        while not (ended := set(self._server.get_json("/history")) - before):
            if time.monotonic() > deadline:
                raise SetupProblem("The workflow did not end; it may have been refused.")
            self._page.wait_for_timeout(250)
        status = self._server.get_json(f"/history/{ended.pop()}").popitem()[1]["status"]
        if status["status_str"] != "success":
            raise SetupProblem(f"The workflow failed: {status}")
        self._page.wait_for_timeout(1500)  # the editor fetches the pictures after the last message

    def areas(self) -> dict[int, Area]:
        """Where the nodes lie, with their titles, by id."""
        return {int(node): tuple(area) for node, area in self._page.evaluate(_AREAS).items()}

    def linked(self, node: int) -> list[int]:
        """Ids of the nodes that a node has a link with, and its own."""
        return self._page.evaluate(_LINKED, node)

    def picture(self, part: Area, scale: float) -> Image.Image:
        """Take a picture of a part of the graph.

        Args:
            part: left, top, width, height in the graph's units.
            scale: pixels for one of them.
        """
        self._page.evaluate(_BRING, [part[0], part[1], scale, LEFT, TOP])
        clip = {"x": LEFT, "y": TOP, "width": part[2] * scale, "height": part[3] * scale}
        return Image.open(io.BytesIO(self._page.screenshot(clip=clip)), formats=["PNG"]).convert("RGB")
