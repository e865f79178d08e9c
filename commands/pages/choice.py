"""Which shipped workflow a node's help page shows, and how much of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

# Left, top, width, height on the graph, in its own units.
Area: TypeAlias = tuple[float, float, float, float]
BETWEEN, BELOW = 70.0, 24.0  # neighbours, beside and below each other, in the graph's units


@dataclass(frozen=True)
class Shown:
    """A node in a workflow.

    Attributes:
        workflow: the file.
        node: the node's id there.
    """

    workflow: Path
    node: int


# Shows something rare, and its nodes at their usual work less well than others do.
SPECIAL = ("two_looks",)


def shown_in(files: Iterable[Path]) -> dict[str, Shown]:
    """Find the workflow that shows each kind of node: of those that have it, the one with the fewest nodes.

    A special one is taken only where no other has the node.

    Args:
        files: workflows of the editor; nodes inside subgraphs are not counted.
    """
    found: dict[str, tuple[tuple[bool, int], Shown]] = {}
    for path in sorted(files):
        nodes = json.loads(path.read_text(encoding="utf-8"))["nodes"]
        rank = path.stem in SPECIAL, len(nodes)
        for node in nodes:
            before = found.get(node["type"])
            if before is None or rank < before[0]:
                found[node["type"]] = (rank, Shown(path, node["id"]))
    return {kind: shown for kind, (_, shown) in found.items()}


def arranged(
    node: int, areas: Mapping[int, Area], sources: Sequence[int], targets: Sequence[int], tallest: float
) -> dict[int, Area]:
    """Where a node and its neighbours are shown: what feeds it at its left, what it feeds at its right.

    In the workflow a neighbour may be a screen away. Here the first of each side always stands next to the node, and
    more of them below each other while they fit.

    Args:
        node: the node's id; it stays where it is.
        areas: where the nodes are, by id.
        sources: ids of the nodes that feed it, the most important first.
        targets: ids of the nodes that it feeds, the same way.
        tallest: of a column, unless one node alone is taller.
    """
    left, top, width, height = areas[node]
    placed = {node: areas[node]}
    for column, at_left in ((sources, True), (targets, False)):
        below = top
        for other in dict.fromkeys(column):
            if other in placed:
                continue
            _, _, wide, high = areas[other]
            if below > top and below + high - top > max(tallest, height):
                continue
            placed[other] = (left - BETWEEN - wide if at_left else left + width + BETWEEN, below, wide, high)
            below += high + BELOW
    return placed


def around(areas: Iterable[Area]) -> Area:
    """The smallest part of the graph that has all areas in it."""
    corners = [(left, top, left + width, top + height) for left, top, width, height in areas]
    left, top = (min(each[side] for each in corners) for side in (0, 1))
    right, bottom = (max(each[side] for each in corners) for side in (2, 3))
    return left, top, right - left, bottom - top
