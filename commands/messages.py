"""What the set-up says: one sentence for a problem, one line per step with an estimate."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

Report = Callable[[str], None]


class SetupProblem(Exception):
    """Something that the user can put right; its text is one sentence that says what was found and what to do."""


def say(line: str) -> None:
    """Print one line at once, also where the output is a pipe."""
    print(line, flush=True)


def duration(seconds: float) -> str:
    """Write a time in seconds the way a person says it.

    Args:
        seconds: a time in seconds, 0 or more.

    Returns:
        For example "20 seconds" or "2 minutes".
    """
    if seconds < 90:
        count, unit = max(1, round(seconds)), "second"
    else:
        count, unit = round(seconds / 60), "minute"
    return f"{count} {unit}" + ("" if count == 1 else "s")


@contextlib.contextmanager
def step(title: str, estimate: float, report: Report = say) -> Iterator[None]:
    """Announce a step with its estimate and, on a terminal, show a bar while it runs.

    Args:
        title: what is being done, "installing PyTorch".
        estimate: how long it usually takes, in seconds.
        report: takes the line.
    """
    report(f"{title}, about {duration(estimate)}")
    if report is not say or not sys.stdout.isatty():
        yield
        return
    finished = threading.Event()
    bar = threading.Thread(target=_draw_bar, args=(estimate, finished), daemon=True)
    bar.start()
    try:
        yield
    finally:
        finished.set()
        bar.join()


def _draw_bar(estimate: float, finished: threading.Event) -> None:
    started = time.monotonic()
    width = 30
    while not finished.wait(0.5):
        elapsed = time.monotonic() - started
        # The bar stops short of full until the step really ends, because the estimate is only an estimate.
        filled = min(width - 1, int(width * elapsed / estimate))
        print(f"\r  [{'#' * filled}{'.' * (width - filled)}] {duration(elapsed)}   ", end="", flush=True)
    print("\r" + " " * (width + 24) + "\r", end="", flush=True)
