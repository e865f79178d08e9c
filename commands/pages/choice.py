"""Which shipped workflow a node's help page shows, and how much of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

# Left, top, width, height on the graph, in its own units.
Area: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shown:
    """A node in a workflow.

    Attributes:
        workflow: the file.
        node: the node's id there.
    """

    workflow: Path
    node: int


def shown_in(files: Iterable[Path]) -> dict[str, Shown]:
    """Find the workflow that shows each kind of node: of those that have it, the one with the fewest nodes.

    Args:
        files: workflows of the editor; nodes inside subgraphs are not counted.
    """
    found: dict[str, tuple[int, Shown]] = {}
    for path in sorted(files):
        nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
        for node in nodes:
            before = found.get(node["type"])
            if before is None or len(nodes) < before[0]:
                found[node["type"]] = (len(nodes), Shown(path, node["id"]))
    return {kind: shown for kind, (_, shown) in found.items()}


def neighbourhood(node: int, areas: Mapping[int, Area], linked: Iterable[int], largest: tuple[float, float]) -> Area:
    """The part of the graph that shows a node and as many of those linked with it as fit, the nearest first.

    Args:
        node: the node's id.
        areas: where the nodes are, by id.
        linked: ids of the nodes that it has a link with.
        largest: width and height that the part may have at most, unless the node alone is larger.
    """
    part = areas[node]
    for other in sorted(set(linked) - {node}, key=lambda each: _size(_union(areas[node], areas[each]))):
        wider = _union(part, areas[other])
        if wider[2] <= largest[0] and wider[3] <= largest[1]:
            part = wider
    return part


def _union(first: Area, second: Area) -> Area:
    left, top = min(first[0], second[0]), min(first[1], second[1])
    right = max(first[0] + first[2], second[0] + second[2])
    bottom = max(first[1] + first[3], second[1] + second[3])
    return left, top, right - left, bottom - top


def _size(area: Area) -> float:
    return area[2] * area[3]
