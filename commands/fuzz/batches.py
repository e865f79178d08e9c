"""Batches of random prompts, with the plain reference picture painted between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .graphs import random_graph
from .outcomes import FINISHED
from .process import growth_of_batches
from .report import Prompt, Report
from .session import Session

BATCH = 20  # prompts


def fuzz(
    session: Session, report: Report, numbers: Sequence[int], bar: Callable[[Iterable[int]], Iterable[int]]
) -> None:
    """Run the graphs of these numbers and note what became of them.

    Args:
        session: the server.
        report: takes it.
        numbers: of the graphs.
        bar: shows how far it is.

    Raises:
        ServerProblem: the server died.
    """
    reference = session.reference()
    report.usages.append(session.rest())
    for position, number in enumerate(bar(numbers)):
        made = random_graph(session.nodes, report.seed, number)
        run = session.run(made.graph)
        silent = run.outcome.kind == FINISHED and session.did_nothing(made, run)
        report.add(Prompt(number, made.target, made.mood, run.outcome, run.seconds, silent), made.graph)
        if (position + 1) % BATCH == 0 or position + 1 == len(numbers):
            # Before anything is unloaded: a patch that stays on the model must show.
            if session.reference() != reference:
                first = numbers[position - position % BATCH]
                report.failures.append(f"the reference picture changed within numbers {first} to {number}")
                reference = session.reference()
            report.usages.append(session.rest())
    grown = growth_of_batches(report.usages)
    if grown:
        report.failures.append(grown)
