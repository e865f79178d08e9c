"""A soak: a few graphs again and again with other noise; what the server holds must settle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from .graphs import RandomGraph
from .outcomes import FINISHED, Graph
from .process import growth_of_soak
from .report import Report
from .session import Session, new_seeds
from .values import VALID

_TARGETS = (
    "StageLayeredRendering StageAttentionGuidance StageSoftGuidance StageDepthCompose StageSpatialLatent "
    "StageLayerByLayer StageTCIGDraft StageSegment"
).split()
_TRIES = 20


def soak(session: Session, report: Report, count: int, bar: Callable[[Iterable[int]], Iterable[int]]) -> None:
    """Run a graph of each method in turn, so many runs altogether, and measure the server after each.

    Args:
        session: the server.
        report: takes it.
        count: of runs; the issue's measure needs 110 or more.
        bar: shows how far it is.

    Raises:
        ServerProblem: the server died.
    """
    graphs = [graph for graph in (_that_finishes(session, report.seed, target) for target in _TARGETS) if graph]
    reference = session.reference()
    for number in bar(range(count)):
        run = session.run(new_seeds(graphs[number % len(graphs)], number))
        report.soak.append(session.usage())
        if run.outcome.kind != FINISHED:
            path = report.write_graph(graphs[number % len(graphs)], f"seed_{report.seed}_soak_{number}")
            report.failures.append(f"run {number} of the soak, which had finished before: {run.outcome.line()}; {path}")
            break
    if session.reference() != reference:
        report.failures.append("the reference picture changed in the soak")
    report.soak_share, grown = growth_of_soak(report.soak)
    if grown:
        report.failures.append(grown)


def _that_finishes(session: Session, seed: int, target: str) -> Graph | None:
    for attempt in range(_TRIES):
        made = RandomGraph(session.nodes, Random(f"{seed} soak {target} {attempt}"), target, VALID)
        graph = made.build()
        if session.run(graph).outcome.kind == FINISHED:
            return graph
    return None
