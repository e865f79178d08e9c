"""Renews the pictures of the help pages."""

from __future__ import annotations

import argparse
import json
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from ..browser import chromium
from ..comfy_server import ComfyServer
from ..demo import WORKFLOWS
from ..environment import CLONE, current_environment
from ..messages import SetupProblem, say
from .choice import Shown, around, arranged, shown_in

if TYPE_CHECKING:
    from .graph_page import GraphPage

PAGES = CLONE / "web" / "docs"
PICTURES = PAGES / "pictures"
_TALLEST = 640.0  # of the neighbours at one side, in the graph's units


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Add the options to a parser and read them."""
    parser.add_argument("--only", metavar="NODE", action="append", help="this node's page only; may be repeated")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run every workflow that a page shows in the editor, and keep a picture for each node.

    Args:
        arguments: the command's options.

    Returns:
        0.

    Raises:
        SetupProblem: no Chromium, an unknown node, a workflow that fails.
    """
    options = parse(argparse.ArgumentParser(prog="stage.py pages"), arguments)
    shown = chosen(options.only)
    PICTURES.mkdir(exist_ok=True)
    with ComfyServer(current_environment(), CLONE) as server, chromium() as browser:
        from .graph_page import GraphPage

        page = GraphPage(browser, server, known=next(iter(shown)))
        for workflow in sorted({each.workflow for each in shown.values()}):
            opened = json.loads(workflow.read_text(encoding="utf-8"))
            page.open(opened)
            page.run()
            own = {node["id"] for node in opened["nodes"] if node["type"].startswith("Stage")}
            nodes = {kind: each for kind, each in shown.items() if each.workflow == workflow}
            for kind, each in nodes.items():
                (PICTURES / f"{kind}.webp").write_bytes(_picture(page, each, own))
            say(f"{workflow.stem}: {', '.join(nodes)}")
    return 0


def chosen(names: Sequence[str] | None) -> dict[str, Shown]:
    """Nodes with a help page that a workflow shows, or those of them that are named.

    Raises:
        SetupProblem: a name without a page or workflow.
    """
    pages = {path.stem for path in PAGES.glob("Stage*.md")}
    shown = {kind: each for kind, each in shown_in(WORKFLOWS.glob("*.json")).items() if kind in pages}
    unknown = [name for name in names or () if name not in shown]
    if unknown:
        raise SetupProblem(f"No workflow shows {unknown[0]!r}, or it has no help page; there are {', '.join(shown)}.")
    return {kind: shown[kind] for kind in names or sorted(shown)}


def _picture(page: GraphPage, shown: Shown, own: Container[int]) -> bytes:
    """A node and its neighbours, those of this pack first, whose ids are `own`, beside the workflow's result."""
    from PIL import Image

    from .picture import encoded, joined

    areas = page.areas()
    sources, targets = (sorted(side, key=lambda node: node not in own) for side in page.linked(shown.node))
    places = arranged(shown.node, areas, sources, targets, _TALLEST)
    page.place(shown.node, places)
    left, top, *_ = part = around(places.values())
    graph = page.picture(part)
    framed = areas[shown.node]
    page.place(shown.node, areas)
    with Image.open(shown.workflow.with_suffix(".jpg"), formats=["JPEG"]) as result:
        return encoded(joined(graph, (framed[0] - left, framed[1] - top, framed[2], framed[3]), result))
