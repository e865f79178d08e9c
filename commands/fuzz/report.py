"""What a session of fuzzing found: printed as a table, written as JSON, and whether anything of it is a failure."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .outcomes import CLEAR, FINISHED, FOREIGN, RAW, REFUSED, Graph, Outcome
from .process import Usage


@dataclass(frozen=True)
class Prompt:
    """One prompt and what became of it.

    Attributes:
        number: `--seed` and this number make it again.
        target: class of the node that it was made for.
        mood: what the target's values were.
        outcome: what became of it.
        seconds: how long it took.
        silent: whether the target was of no effect and nothing said so.
    """

    number: int
    target: str
    mood: str
    outcome: Outcome
    seconds: float
    silent: bool = False


@dataclass
class Report:
    """Everything that was found.

    Attributes:
        seed: of the session.
        folder: takes the graphs of raw errors and the report.
        prompts: in their order.
        usages: of the server, at the start and after each batch, all models unloaded.
        interrupts: seconds from an interrupt to its end, each with what was running.
        soak: what the server held after each repeated run.
        soak_share: by which memory of the last of them grew.
        failures: sentences; each one makes the command fail.
    """

    seed: int
    folder: Path
    prompts: list[Prompt] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)
    interrupts: list[tuple[str, float]] = field(default_factory=list)
    soak: list[Usage] = field(default_factory=list)
    soak_share: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, prompt: Prompt, graph: Graph) -> None:
        """Note a prompt; a raw error fails, and its graph is written to a file."""
        self.prompts.append(prompt)
        if prompt.outcome.kind in (RAW, FOREIGN):
            path = self.write_graph(graph, f"seed_{self.seed}_number_{prompt.number}")
            if prompt.outcome.kind == RAW:
                self.failures.append(f"number {prompt.number} ({prompt.target}): {prompt.outcome.line()}; {path}")

    def write_graph(self, graph: Graph, name: str) -> Path:
        """Write a graph so that `--replay FILE` runs it again; NaN and infinity stand in it as Python writes them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(graph, indent=1), encoding="utf-8")
        return path

    def count(self, kind: str) -> int:
        """How many prompts ended so."""
        return sum(prompt.outcome.kind == kind for prompt in self.prompts)

    def lines(self) -> list[str]:
        """The whole report for a terminal."""
        rows = [("prompts", str(len(self.prompts)))]
        rows += [(kind + "s", str(self.count(kind))) for kind in (CLEAR, RAW, FOREIGN)]
        rows[1:1] = [(kind, str(self.count(kind))) for kind in (FINISHED, REFUSED)]
        silent = [prompt for prompt in self.prompts if prompt.silent]
        rows.append(("silent no-ops", f"{len(silent)} {_numbers(silent)}".strip()))
        for name, usages in (("prompts", self.usages), ("soak", self.soak)):
            if usages:
                ends = " -> ".join(f"{usage.megabytes:.0f} MB, {usage.handles}" for usage in (usages[0], usages[-1]))
                rows.append((f"memory and handles, {name}", ends))
        if len(self.soak) > 1:
            rows.append(("soak", f"{len(self.soak)} runs, {self.soak_share:+.1%} in the last 30 against runs 50 to 80"))
        if self.interrupts:
            slowest = max(seconds for _, seconds in self.interrupts)
            rows.append(("interrupts", f"{len(self.interrupts)} heard, the slowest after {slowest:.2f} s"))
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:{width}}  {value}" for name, value in rows]
        refused = Counter(prompt.target for prompt in self.prompts if prompt.outcome.kind != FINISHED)
        never = sorted(
            {prompt.target for prompt in self.prompts if refused[prompt.target] == self._made(prompt.target)}
        )
        if never:
            lines.append(f"nodes that never reached their end: {', '.join(never)}")
        return lines + [f"FAILED: {failure}" for failure in self.failures]

    def _made(self, target: str) -> int:
        return sum(prompt.target == target for prompt in self.prompts)

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        about = {
            "seed": self.seed,
            "counts": {kind: self.count(kind) for kind in (FINISHED, REFUSED, CLEAR, RAW, FOREIGN)},
            "silent": [prompt.number for prompt in self.prompts if prompt.silent],
            "prompts": [asdict(prompt) for prompt in self.prompts],
            "usages": [usage.to_dict() for usage in self.usages],
            "soak": [usage.to_dict() for usage in self.soak],
            "soak_share": self.soak_share,
            "interrupts": self.interrupts,
            "failures": self.failures,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(about, indent=1), encoding="utf-8")


def _numbers(prompts: list[Prompt]) -> str:
    return f"({', '.join(f'{prompt.number} {prompt.target}' for prompt in prompts)})" if prompts else ""
