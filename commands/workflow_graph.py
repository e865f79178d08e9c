"""Follows the links of an editor workflow: through reroutes, bypassed nodes, primitives and subgraphs.

The editor's file is a drawing. It has nodes that exist for the eye only, nodes that are switched off, and subgraphs
that are nodes from outside and graphs from inside. This module answers one question about it: where does the value of
an input really come from?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MUTED, BYPASSED = 2, 4
REROUTE, PRIMITIVE = "Reroute", "PrimitiveNode"
# Nodes of the editor that ComfyUI does not know.
DRAWING_ONLY = (REROUTE, PRIMITIVE, "Note", "MarkdownNote")
# Inside a subgraph, links that begin or end at its border use these numbers unless the file says otherwise.
_SUBGRAPH_INPUT, _SUBGRAPH_OUTPUT = -10, -20


class WorkflowError(ValueError):
    """A workflow file that cannot be run; the text names the node and the input."""


@dataclass(frozen=True)
class Output:
    """An output of a node that will run: its id in the API's prompt and the index of the output."""

    node_id: str
    slot: int


@dataclass(frozen=True)
class Constant:
    """A value that stands in the workflow itself, in a primitive or at the border of a subgraph."""

    value: Any


Source = Output | Constant | None


@dataclass(frozen=True)
class Link:
    """A line of the drawing."""

    origin: str
    origin_slot: int
    target: str
    target_slot: int
    type: str


@dataclass
class Graph:
    """One level of a workflow: the whole, or one use of a subgraph.

    Attributes:
        nodes: {id in this level: node}.
        links: {id in this level: Link}.
        subgraphs: {type: definition} of the whole file.
        prefix: what goes before the ids of this level in the API's prompt, "12:" inside node 12.
        definition: the subgraph's definition, empty for the whole.
        outside: the graph that uses this subgraph, None for the whole.
        instance: the node that uses this subgraph.
    """

    nodes: dict[str, dict[str, Any]]
    links: dict[str, Link]
    subgraphs: dict[str, dict[str, Any]]
    prefix: str = ""
    definition: dict[str, Any] = field(default_factory=dict)
    outside: Graph | None = None
    instance: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of_workflow(workflow: dict[str, Any]) -> Graph:
        """Read an editor workflow, schema 0.4 or 1.

        Raises:
            WorkflowError: it is not an editor workflow.
        """
        if not isinstance(workflow, dict) or not isinstance(workflow.get("nodes"), list):
            raise WorkflowError(
                "This is not a workflow of the editor: it has no list of nodes. A file in API format needs no "
                "conversion; save the editor's form with Workflow > Save."
            )
        definitions = (workflow.get("definitions") or {}).get("subgraphs") or []
        return Graph(_nodes(workflow), _links(workflow), {str(each["id"]): each for each in definitions})

    def running_nodes(self) -> Iterator[tuple[Graph, dict[str, Any]]]:
        """Go through all nodes that ComfyUI shall run, those inside subgraphs included, each with its own level."""
        for node in self.nodes.values():
            if node.get("mode") in (MUTED, BYPASSED) or node["type"] in DRAWING_ONLY:
                continue
            inside = self.inside(node)
            if inside is None:
                yield self, node
            else:
                yield from inside.running_nodes()

    def inside(self, node: dict[str, Any]) -> Graph | None:
        """Open a node that is a subgraph; None for an ordinary node."""
        definition = self.subgraphs.get(node["type"])
        if definition is None:
            return None
        prefix = f"{self.prefix}{node['id']}:"
        if prefix.count(":") > len(self.subgraphs):
            raise WorkflowError(f"{describe(node)} is a subgraph that contains itself.")
        return Graph(_nodes(definition), _links(definition), self.subgraphs, prefix, definition, self, node)

    def source_of_input(self, node: dict[str, Any], index: int, seen: frozenset[str] = frozenset()) -> Source:
        """Find where the value of a node's input comes from.

        Args:
            node: a node of this level.
            index: the position in the node's list of inputs.
            seen: the links that have been followed so far.

        Returns:
            An output of a node that runs, a constant, or None where nothing is connected.

        Raises:
            WorkflowError: the line leads nowhere or in a circle.
        """
        entry = node["inputs"][index]
        if entry.get("link") is None:
            return None
        key = f"{self.prefix}link {entry['link']}"
        link = self.links.get(str(entry["link"]))
        if link is None or key in seen:
            fault = "names a link that the file does not have" if link is None else "is connected in a circle"
            raise WorkflowError(f"{describe(node)}: input {entry.get('name')!r} {fault} (link {entry['link']}).")
        return self._source_of_output(link.origin, link.origin_slot, link.type, seen | {key})

    def _source_of_output(self, node_id: str, slot: int, wanted: str, seen: frozenset[str]) -> Source:
        if self.outside is not None and node_id == _border(self.definition, "inputNode", _SUBGRAPH_INPUT):
            return self._source_outside(slot, seen)
        node = self.nodes.get(node_id)
        if node is None:
            raise WorkflowError(f"A link begins at node {node_id}, which the file does not have.")
        if node.get("mode") == MUTED:
            return None
        if node.get("mode") == BYPASSED:
            return self._source_through_bypass(node, slot, wanted, seen)
        if node["type"] == REROUTE:
            return self.source_of_input(node, 0, seen)
        if node["type"] == PRIMITIVE:
            values = node.get("widgets_values")
            if not values:
                raise WorkflowError(f"{describe(node)} has no value.")
            return Constant(values[0])
        inside = self.inside(node)
        if inside is not None:
            return inside._source_at_end(slot, seen)
        return Output(f"{self.prefix}{node_id}", slot)

    def _source_outside(self, slot: int, seen: frozenset[str]) -> Source:
        """Leave a subgraph through its input border."""
        name = self.definition["inputs"][slot]["name"]
        for index, entry in enumerate(self.instance.get("inputs") or []):
            if entry["name"] == name and entry.get("link") is not None:
                return self.outside.source_of_input(self.instance, index, seen)
        return self._promoted_value(name)

    def _promoted_value(self, name: str) -> Constant | None:
        """Read the value of a widget that the subgraph shows on its outside.

        The values stand in the order of `proxyWidgets` where the file has it (an own widget has the node "-1"),
        otherwise in the order of the subgraph's inputs that lead to widgets. Where the instance has no values at all,
        those of the nodes inside count.
        """
        values = self.instance.get("widgets_values") or []
        if isinstance(values, dict):
            return Constant(values[name]) if name in values else None
        proxies = (self.instance.get("properties") or {}).get("proxyWidgets")
        if proxies:
            names = [widget if str(node_id) == "-1" else None for node_id, widget in proxies]
        else:
            inputs = enumerate(self.definition["inputs"])
            names = [entry["name"] for slot, entry in inputs if self._leads_to_a_widget(slot)]
        if values and len(values) != len(names):
            raise WorkflowError(
                f"{describe(self.instance)}: the subgraph has {len(values)} values for {len(names)} widgets; open the "
                "file in the editor, check the subgraph and save it again."
            )
        return Constant(values[names.index(name)]) if values and name in names else None

    def _leads_to_a_widget(self, slot: int) -> bool:
        border = _border(self.definition, "inputNode", _SUBGRAPH_INPUT)
        for link in self.links.values():
            if link.origin == border and link.origin_slot == slot and link.target in self.nodes:
                entries = self.nodes[link.target].get("inputs") or []
                if link.target_slot < len(entries) and entries[link.target_slot].get("widget"):
                    return True
        return False

    def _source_at_end(self, slot: int, seen: frozenset[str]) -> Source:
        """Enter a subgraph through its output border."""
        border = _border(self.definition, "outputNode", _SUBGRAPH_OUTPUT)
        for link_id, link in self.links.items():
            if link.target == border and link.target_slot == slot:
                key = f"{self.prefix}link {link_id}"
                return self._source_of_output(link.origin, link.origin_slot, link.type, seen | {key})
        return None

    def _source_through_bypass(self, node: dict[str, Any], slot: int, wanted: str, seen: frozenset[str]) -> Source:
        """A bypassed node passes on its first connected input of the output's type, the same position first."""
        entries = node.get("inputs") or []
        outputs = node.get("outputs") or []
        kind = outputs[slot].get("type", wanted) if slot < len(outputs) else wanted
        order = sorted(range(len(entries)), key=lambda index: index != slot)
        for index in order:
            if entries[index].get("type") == kind:
                return self.source_of_input(node, index, seen)
        return None


def describe(node: dict[str, Any]) -> str:
    """Name a node the way a person finds it: title or type, and number."""
    return f"{node.get('title') or node['type']} (node {node['id']})"


def _nodes(level: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {str(node["id"]): node for node in level["nodes"]}


def _links(level: dict[str, Any]) -> dict[str, Link]:
    links = {}
    for link in level.get("links") or []:
        if isinstance(link, dict):
            number = link["id"]
            ends = (link["origin_id"], link["origin_slot"], link["target_id"], link["target_slot"])
            kind = link.get("type")
        else:
            number, *ends, kind = link[:6]
        origin, origin_slot, target, target_slot = ends
        links[str(number)] = Link(str(origin), int(origin_slot), str(target), int(target_slot), str(kind))
    return links


def _border(definition: dict[str, Any], name: str, usual: int) -> str:
    return str((definition.get(name) or {}).get("id", usual))
