"""ComfyUI's graph editor in a browser: opens a workflow, runs it, gives pictures of its parts."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from PIL import Image

from ..browser import PATIENCE, open_editor
from ..comfy_api import ComfyApi, PromptFailed
from ..messages import SetupProblem
from .choice import Area

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WIDTH, HEIGHT = 1900, 1500  # of the page, pixels
# Where a part of the graph is brought to: beside the editor's own bars.
LEFT, TOP = 120, 160
_RUN_SECONDS = 600.0
# With the title's bar, which lies above a node's place. The editor's own bounding boxes are as old as the last frame
# that showed the node.
_AREA = """const area = ({ pos, size }, bar = LiteGraph.NODE_TITLE_HEIGHT) =>
    [pos[0], pos[1] - bar, size[0], size[1] + bar];"""
_AREAS = f"""() => {{ {_AREA}
    return Object.fromEntries(app.graph.nodes.map((node) => [node.id, area(node)])) }}"""
# Ids of the nodes at the other ends of a node's links, slot by slot.
_LINKED = """(id) => {
    const node = app.graph.getNodeById(id);
    const link = (each) => app.graph.links.get?.(each) ?? app.graph.links[each];
    return [(node.inputs ?? []).filter((slot) => slot.link != null).map((slot) => Number(link(slot.link).origin_id)),
        (node.outputs ?? []).flatMap((slot) => slot.links ?? []).map((each) => Number(link(each).target_id))] }"""
# Nodes to places; all others go out of sight, to the side on which they are, so that links to them leave the picture.
_PLACE = f"""([id, places, far]) => {{ {_AREA}
    const middle = app.graph.getNodeById(id).pos[0];
    for (const node of app.graph.nodes) {{
        const [left, top] = area(node), place = places[node.id];
        const [right, down] = place ? [place[0] - left, place[1] - top] : [left < middle ? -far : far, 0];
        node.pos = [node.pos[0] + right, node.pos[1] + down];
    }} }}"""
_FAR = 20_000.0
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

    def linked(self, node: int) -> tuple[list[int], list[int]]:
        """Ids of the nodes that feed a node, and of those that it feeds, in the order of its slots."""
        sources, targets = self._page.evaluate(_LINKED, node)
        return sources, targets

    def place(self, node: int, places: Mapping[int, Area]) -> None:
        """Bring nodes to places around one of them, and all others out of sight."""
        self._page.evaluate(_PLACE, [node, {str(each): area for each, area in places.items()}, _FAR])

    def picture(self, part: Area) -> Image.Image:
        """Take a picture of a part of the graph, a pixel for each of its units.

        Args:
            part: left, top, width, height in the graph's units.
        """
        left, top, width, height = part
        self._page.evaluate(_BRING, [LEFT - left, TOP - top])
        clip = {"x": LEFT, "y": TOP, "width": width, "height": height}
        return Image.open(io.BytesIO(self._page.screenshot(clip=clip)), formats=["PNG"]).convert("RGB")
