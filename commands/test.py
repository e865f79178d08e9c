"""`python stage.py test`: ruff, then pytest."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from .environment import CLONE

# What ruff is asked, and what mends what it finds.
RUFF = {"check .": "check --fix .", "format --check .": "format ."}


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Answer --help; everything else is for pytest."""
    parser.usage = "stage.py test [-h] [--comfyui PATH|git] [arguments for pytest]"
    parser.allow_abbrev = False
    parser.parse_known_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the tests.

    Args:
        arguments: for pytest, paths seen from the clone. Without any, ruff checks the code and its format first.

    Returns:
        0 where everything passed.
    """
    # It comes with the environment, but the parser above is also used before there is one.
    import pytest

    os.chdir(CLONE)
    checked = 0 if arguments else check_code()
    # A kill is to pytest what Ctrl-C is: it stops, and its fixtures stop their servers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # pytest runs in any case and comes last, so that its summary is the last line. It runs in this process, because
    # `python -m pytest` would put the clone onto the path, where the folder `nodes` hides ComfyUI's module.
    return int(pytest.main(list(arguments))) or checked


def check_code() -> int:
    """Let ruff look at the code and at its format; says what mends them. Returns 0 where both are as they should be."""
    found = 0
    for asked, mend in RUFF.items():
        if subprocess.call([sys.executable, "-m", "ruff", *asked.split()]):
            print(f"ruff {asked.partition(' ')[0]}: mend it with {sys.executable} -m ruff {mend}", file=sys.stderr)
            found = 1
    return found
