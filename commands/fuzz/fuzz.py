"""`python stage.py fuzz`: random graphs, interrupts and repeated runs, all from one seed."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..comfy_server import ServerProblem
from ..environment import current_environment
from ..messages import SetupProblem, say
from .batches import fuzz
from .graphs import random_graph
from .interrupts import interrupt
from .outcomes import RAW
from .report import Report
from .session import Session
from .soak import soak

OUTPUT = "stage_output/fuzz"
PROMPTS, SEED = 200, 18


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Add the options to a parser and read them."""
    parser.add_argument("--seed", type=int, default=SEED, help="what all graphs follow from (%(default)s)")
    parser.add_argument("--prompts", metavar="N", type=int, default=PROMPTS, help="random graphs (%(default)s)")
    parser.add_argument("--number", metavar="N", type=int, action="append", help="run this graph of the seed only")
    parser.add_argument("--interrupts", metavar="N", type=int, default=0, help="interrupted long runs (%(default)s)")
    parser.add_argument(
        "--soak", metavar="N", type=int, default=0, help="repeated runs of a few graphs, 110 or more (%(default)s)"
    )
    parser.add_argument("--replay", metavar="FILE", action="append", help="run the graph of this file only")
    parser.add_argument("--output", metavar="FOLDER", default=OUTPUT, help="takes graphs of raw errors (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write everything that was found here")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Fuzz a server of its own.

    Args:
        arguments: the command's options.

    Returns:
        0 where there was no raw error, no dead server, no changed reference picture, no growth, and every interrupt
        was heard; otherwise 1.

    Raises:
        SetupProblem: a file to replay cannot be read, or ComfyUI does not start.
    """
    from tqdm import tqdm

    def bar(what: str, numbers: Iterable[int]) -> Iterable[int]:
        return tqdm(numbers, desc=what, dynamic_ncols=True, disable=None)

    options = parse(argparse.ArgumentParser(prog="stage.py fuzz"), arguments)
    report = Report(options.seed, Path(options.output).expanduser().absolute())
    replayed = {path: _read(Path(path)) for path in options.replay or ()}
    say("starting ComfyUI, about 10 seconds")
    with (
        tempfile.TemporaryDirectory(prefix="stagecraft-fuzz-", ignore_cleanup_errors=True) as base,
        Session(current_environment(), Path(base).resolve()) as session,
    ):
        try:
            if replayed or options.number:
                graphs = replayed | {
                    f"number {number}": random_graph(session.nodes, options.seed, number).graph
                    for number in options.number or ()
                }
                return max(_replay(session, name, graph) for name, graph in graphs.items())
            fuzz(session, report, range(options.prompts), lambda numbers: bar("prompts", numbers))
            interrupt(session, report, options.interrupts, lambda numbers: bar("interrupts", numbers))
            if options.soak:
                soak(session, report, options.soak, lambda numbers: bar("soak", numbers))
        except ServerProblem as dead:
            last = report.prompts[-1].number + 1 if report.prompts else 0
            report.failures.append(f"the server died, in the prompts at number {last}: {dead}")
    if options.json:
        report.write(Path(options.json).expanduser().absolute())
    say("\n".join(report.lines()))
    if report.failures:
        say(f"\npython stage.py fuzz --seed {options.seed} --number N runs one prompt again.")
    return int(bool(report.failures))


def _replay(session: Session, name: str, graph: dict) -> int:
    run = session.run(graph)
    say(f"{name}: {run.outcome.line()} ({run.seconds:.1f} s)\n{json.dumps(graph, indent=1)}\n{run.log}")
    return int(run.outcome.kind == RAW)


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SetupProblem(f"--replay names {path}, which cannot be read as a graph: {error}") from error
