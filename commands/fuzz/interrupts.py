"""Random interrupts: a long run is stopped at a random moment, which must be heard, and the server must work on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from .graphs import RandomGraph
from .outcomes import FINISHED, Graph
from .report import Report
from .session import Session
from .values import VALID

PATIENCE = 2.0  # seconds from the interrupt to the end of the run
_SOONEST, _LATEST = 0.2, 5.0  # seconds after queueing
_TRIES = 20  # graphs for one interrupt, where they end before it
# What makes a run long, far below what would take all memory.
_LONG = {"steps": 1000, "draw_steps": 1000, "iterations": 3000}
_TARGETS = (
    "StageLayeredRendering StageAttentionGuidance StageSoftGuidance StageDepthCompose StageEditPicture "
    "StageInvert StageSpatialLatent StageLayerByLayer StageSplitLayers StageTCIGDraft StageTCIGRefine"
).split()


def interrupt(session: Session, report: Report, count: int, bar: Callable[[Iterable[int]], Iterable[int]]) -> None:
    """Interrupt so many long runs, and paint the reference after each.

    Args:
        session: the server.
        report: takes it.
        count: of interrupts.
        bar: shows how far it is.

    Raises:
        ServerProblem: the server died.
    """
    reference = session.reference()
    for number in bar(range(count)):
        for attempt in range(_TRIES):
            random = Random(f"{report.seed} interrupt {number} {attempt}")
            target = random.choice(_TARGETS)
            graph = lengthened(RandomGraph(session.nodes, random, target, VALID).build())
            seconds, outcome = session.interrupted_after(graph, random.uniform(_SOONEST, _LATEST), PATIENCE)
            if seconds is not None:
                break
        else:
            report.failures.append(f"interrupt {number}: no run was long enough to be interrupted")
            continue
        report.interrupts.append((target, seconds))
        if outcome.kind != FINISHED or seconds > PATIENCE:
            path = report.write_graph(graph, f"seed_{report.seed}_interrupt_{number}")
            heard = f"ended {seconds:.1f} s after it ({outcome.line()})"
            report.failures.append(f"interrupt {number} of {target} {heard}; {path}")
        if session.reference() != reference:
            report.failures.append(f"the reference picture changed with interrupt {number} of {target}")


def lengthened(graph: Graph) -> Graph:
    """The same graph with many steps in everything that has steps."""
    for node in graph.values():
        for name, value in node["inputs"].items():
            long = _LONG.get(name)
            # Iterations of guidance within one step are no length of a run.
            if long and isinstance(value, int) and (name != "iterations" or node["class_type"] == "StageTCIGDraft"):
                node["inputs"][name] = long
    return graph
