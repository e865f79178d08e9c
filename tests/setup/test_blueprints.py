"""Blueprints and workflows together show every node, and the pages name every blueprint."""

import json

import pytest
from stagecraft.commands.environment import CLONE

BLUEPRINTS = sorted((CLONE / "subgraphs").glob("*.json"))
WORKFLOWS = sorted((CLONE / "workflows").glob("*.json"))


def graphs(path):
    """The nodes of a file of the editor, inside of its subgraphs too."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    return [
        *saved["nodes"],
        *(node for inner in saved.get("definitions", {}).get("subgraphs", ()) for node in inner["nodes"]),
    ]


def test_every_node_is_in_a_workflow_or_a_blueprint():
    nodes = {path.stem for path in (CLONE / "web" / "docs").glob("Stage*.md")}
    assert nodes <= {node["type"] for path in (*WORKFLOWS, *BLUEPRINTS) for node in graphs(path)}


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_one_node_that_bears_its_file_s_name(path):
    saved = json.loads(path.read_text(encoding="utf-8"))
    (node,), (inner,) = saved["nodes"], saved["definitions"]["subgraphs"]
    assert node["type"] == inner["id"] and node["title"] == inner["name"] == path.stem
    assert [slot["name"] for slot in node["inputs"]] == [slot["name"] for slot in inner["inputs"]]
    # A front end that knows no links from outside to a widget finds the values here, in the same order.
    widgets = [slot["name"] for slot in node["inputs"] if "widget" in slot]
    assert [name for _, name in node["properties"]["proxyWidgets"]] == widgets
    assert len(node["widgets_values"]) == len(widgets)


def test_the_page_of_nodes_names_every_blueprint():
    page = (CLONE / "docs" / "nodes.md").read_text(encoding="utf-8")
    assert [path.stem for path in BLUEPRINTS if f"**{path.stem}**" not in page] == []
