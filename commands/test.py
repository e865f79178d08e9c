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
DEVICES = ("cuda", "mps")
DEVICE = "STAGECRAFT_TEST_DEVICE"  # the environment variable by which tests/comfy/conftest.py hears of the choice
MARKER = "device"  # of tests that touch a device
THREADS = "OMP_NUM_THREADS"
MEMORY_OF_ONE = 5e9  # bytes that a process of the whole suite needs, with its ComfyUI and its browser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Answer --help; everything else is for pytest."""
    parser.usage = "stage.py test [-h] [--comfyui PATH|git] [--device cuda|mps] [arguments for pytest]"
    parser.allow_abbrev = False
    _add_device(parser)
    parser.parse_known_args(arguments)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=DEVICES, help="run the tests that touch a device on a GPU instead of the CPU, and no others"
    )


def main(arguments: Sequence[str]) -> int:
    """Run the tests.

    Args:
        arguments: for pytest, paths seen from the clone. Without any, ruff checks the code and its format first.

    Returns:
        0 where everything passed, 1 where the device is not there.
    """
    reader = argparse.ArgumentParser(prog="stage.py test", add_help=False, allow_abbrev=False)
    _add_device(reader)
    options, arguments = reader.parse_known_args(arguments)
    if options.device is not None:
        if (lacking := why_not(options.device)) is not None:
            print(f"stage.py: {lacking}", file=sys.stderr)
            return 1
        os.environ[DEVICE] = options.device
        arguments = ["-m", MARKER, *arguments]
    # It comes with the environment, but the parser above is also used before there is one.
    import pytest

    os.chdir(CLONE)
    checked = 0
    if not arguments:
        checked = check_code()
        arguments = shared_out(os.cpu_count() or 1, available_memory())
    # A kill is to pytest what Ctrl-C is: it stops, and its fixtures stop their servers.
    signal.signal(signal.SIGTERM, stop)
    # pytest runs in any case and comes last, so that its summary is the last line. It runs in this process, because
    # `python -m pytest` would put the clone onto the path, where the folder `nodes` hides ComfyUI's module.
    return int(pytest.main(list(arguments))) or checked


def stop(*_: object) -> None:
    """Stop as by Ctrl-C, with all processes of a suite that is shared out: they hear of no Ctrl-C themselves.

    Raises:
        KeyboardInterrupt: always.
    """
    import psutil  # comes with the environment, for ComfyUI

    for child in psutil.Process().children():
        child.terminate()
    raise KeyboardInterrupt


def shared_out(cores: int, memory: float) -> list[str]:
    """Share the whole suite out among processes, file by file; each gets its part of the cores.

    One process with all cores waits most of the time for the one core that a small network keeps busy.

    Args:
        cores: of the machine.
        memory: bytes that are free.

    Returns:
        Arguments for pytest; none where there is room for one process only.
    """
    processes = min(cores, int(memory / MEMORY_OF_ONE))
    if processes < 2:
        return []
    os.environ.setdefault(THREADS, str(cores // processes))
    return ["-n", str(processes), "--dist", "loadfile"]


def available_memory() -> float:
    """Bytes that new processes can have."""
    import psutil  # comes with the environment, for ComfyUI

    return psutil.virtual_memory().available


def why_not(device: str) -> str | None:
    """What keeps tests from running on a device, in one sentence; None where it is there."""
    import torch  # as pytest

    if torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available():
        return None
    return (
        f"--device {device} needs a GPU that PyTorch can use, but PyTorch {torch.__version__} finds none of that kind "
        "here; leave --device out to test on the CPU, or let --comfyui name a ComfyUI that runs on such a GPU."
    )


def check_code() -> int:
    """Let ruff look at the code and at its format; says what mends them. Returns 0 where both are as they should be."""
    found = 0
    for asked, mend in RUFF.items():
        if subprocess.call([sys.executable, "-m", "ruff", *asked.split()]):
            print(f"ruff {asked.partition(' ')[0]}: mend it with {sys.executable} -m ruff {mend}", file=sys.stderr)
            found = 1
    return found
