"""What attention guidance costs on a transformer of joint attention: `python stage.py bench joint`.

It is measured in a process of its own with two threads and random weights, see `joint_network`.
"""

from ..result_rows import bench_row
from .guidance import measure_apart


def bench_joint(small: bool = False) -> list[dict]:
    """Measure a guidance iteration that ends behind some block, which is a forward pass to there and the way back.

    Args:
        small: a small network instead, to see that everything runs.

    Returns:
        For each last block: the iteration's time against that of an evaluation with CFG (two rows), as most models
        paint, and against that of one row, as distilled ones do.

    Raises:
        SetupProblem: the measurement did not come to its end.
    """
    found = measure_apart("joint_network", ["--small"] if small else [], "The measurement of joint attention", "6 GB")
    rows = []
    for last, seconds in found["iterations"].items():
        name = f"guidance iteration of a joint transformer to block {last} of {found['blocks']}"
        rows += [
            bench_row(f"{name}, against an evaluation with CFG", seconds, found["cfg"]),
            bench_row(f"{name}, against an evaluation of one row", seconds, found["row"]),
        ]
    return rows
