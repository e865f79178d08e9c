"""What attention guidance costs on a U-Net of SD 1.5's size: `python stage.py bench guidance`.

Every measurement runs in a process of its own with two threads, or as many as OMP_NUM_THREADS says, see
`guidance_network`: the attention backend is chosen where ComfyUI starts, and peak memory is a property of a process.
"""

import json
import os
import subprocess
from collections.abc import Sequence

from ...commands.environment import CLONE, current_environment
from ...commands.messages import SetupProblem
from ..result_rows import bench_row

LAUNCHER = CLONE / "commands" / "launcher.py"
BACKENDS = ("pytorch", "sub-quadratic")  # ComfyUI's attention with and without --use-pytorch-cross-attention, on a CPU
THREADS = "2"
MEGABYTE = 1e6


def bench_guidance(small: bool = False) -> list[dict]:
    """Measure a guidance iteration, which is a forward pass to the last map and the way back.

    Args:
        small: a small network instead, to see that everything runs.

    Returns:
        For each attention backend: the iteration's time against that of an evaluation with CFG (two rows) and against
        that of an iteration of the plain loop in evaluation/baselines/slow_guidance.py (full forward pass, cloned
        weights, same backend), and the growth of the process's peak memory against that of the plain loop, clone not
        counted. And the time of a sampler step outside the guided range against a step without guidance.

    Raises:
        SetupProblem: a measurement did not come to its end.
    """
    rows = []
    for backend in BACKENDS:
        seconds = _measure(backend, "time", small)
        grown = {case: _measure(backend, f"memory-{case}", small)["bytes"] for case in ("guidance", "reference")}
        iteration, attention = seconds["iteration"], f"{backend} attention"
        rows += [
            bench_row(f"guidance iteration against an evaluation with CFG, {attention}", iteration, seconds["cfg"]),
            bench_row(
                f"guidance iteration against the full-forward loop, {attention}", iteration, seconds["reference"]
            ),
            bench_row(
                f"extra peak memory of guidance against the full-forward loop, {attention}",
                grown["guidance"] / MEGABYTE,
                grown["reference"] / MEGABYTE,
                "MB",
            ),
        ]
    seconds = _measure(BACKENDS[0], "outside", small)
    return [
        *rows,
        bench_row("step outside the guided range against a plain step", seconds["outside"], seconds["plain"]),
    ]


def _measure(backend: str, case: str, small: bool) -> dict[str, float]:
    arguments = (backend, case, *(["--small"] if small else []))
    return measure_apart("guidance_network", arguments, f'The measurement "{case}" with {backend} attention', "14 GB")


def measure_apart(module: str, arguments: Sequence[str], name: str, memory: str) -> dict[str, float]:
    """Run a measurement in a process of its own.

    Args:
        module: in this package; its last line is a JSON object.
        arguments: of its command line.
        name: how an error calls it.
        memory: what it needs at full size.

    Raises:
        SetupProblem: it did not come to its end.
    """
    environment = current_environment()
    command = [str(environment.python), str(LAUNCHER), f"{__package__.partition('.')[2]}.{module}", *arguments]
    threads = os.environ.get("OMP_NUM_THREADS", THREADS)
    variables = environment.variables() | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    # What it reports on the way goes to the terminal; its last line is the result.
    done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SetupProblem(
            f"{name} ended with status {done.returncode}; its last message is above. At full size it needs about "
            f"{memory} of free memory; --small needs little."
        )
    return json.loads(done.stdout.strip().splitlines()[-1])
