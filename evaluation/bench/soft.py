"""What soft guidance and the local fuser of Compose and Conquer cost: `python stage.py bench soft`.

Both sizes run in processes of their own with two threads and random weights, see `soft_network`.
"""

from ..result_rows import bench_row
from .guidance import measure_apart

SIZES = {"embedded": "at the embedded size", "sd15": "at SD 1.5's size"}
MILLISECONDS = 1000.0


def bench_soft(small: bool = False) -> list[dict]:
    """Measure a sampler step with soft guidance, and one with the local fuser, against a plain step.

    Args:
        small: the embedded size alone and few repeats, to see that everything runs.

    Returns:
        For each size: the time of a step with eight tokens behind the text and a mask, and of one with the local
        fuser, against a plain step; and what the local fuser adds to a plain step, as a share of it, against its
        floating-point operations as a share of the plain step's.

    Raises:
        SetupProblem: a measurement did not come to its end.
    """
    rows = []
    for size, where in SIZES.items():
        if small and size != "embedded":
            continue
        found = measure_apart(
            "soft_network", (size, *(["--small"] if small else [])), f"The measurement {where}", "9 GB"
        )
        plain, added = found["plain"], found["fuser"] / found["plain"] - 1
        rows += [
            bench_row(
                f"step with soft guidance against a plain step, {where}",
                MILLISECONDS * found["soft"],
                MILLISECONDS * plain,
                "ms",
            ),
            bench_row(
                f"step with the local fuser against a plain step, {where}",
                MILLISECONDS * found["fuser"],
                MILLISECONDS * plain,
                "ms",
            ),
            bench_row(
                f"what the local fuser adds against its share of the operations, {where}",
                added,
                found["share"],
                "of a step",
            ),
        ]
    return rows
