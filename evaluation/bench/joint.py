"""What guiding and watching a transformer of joint attention costs: `python stage.py bench joint`.

It is measured in processes of their own with random weights, see `joint_network`. Times are what the process has
computed, summed over its threads, for another program on the machine changes that little; the rows that say so are by
the wall.
"""

from ..result_rows import bench_row
from .guidance import MEGABYTE, measure_apart

KILOBYTE = 1e3
MODULE, NEEDS = "joint_network", "6 GB"
# Rows and columns of latents of 1024, 4096 and 16384 picture tokens, and what is measured there; a mask of the largest
# alone would take 2 GB, and making it several times that.
SIDES = {64: ("maps", "bias", "merge"), 128: ("maps", "bias", "merge"), 256: ("maps", "merge")}
SMALL_SIDES = {16: ("maps", "bias", "merge")}
STEPS = {
    "watched chosen": "step of a joint transformer with two blocks watched",
    "watched all": "step of a joint transformer with all blocks watched",
    "soft bias": "step of a joint transformer with soft guidance of 4 regions by a mask",
    "soft merge": "step of a joint transformer with soft guidance of 4 regions by merging",
}


def bench_joint(small: bool = False) -> list[dict]:
    """Measure guidance iterations, watched steps, soft guidance, and memory.

    Args:
        small: a small network instead, to see that everything runs.

    Returns:
        For each last block of a guidance iteration, which is a forward pass to there and the way back: its operations
        and its time against those of the same share of an evaluation with CFG (two rows), as most models paint, and its
        time against that of all of it and of one row, as distilled ones do. For a step that is watched or under soft
        guidance its time against a plain one. And by how much it raises the process's peak memory.

    Raises:
        SetupProblem: a measurement did not come to its end.
    """
    given = ["--small"] if small else []
    found = measure_apart(MODULE, given, "The measurement of joint attention", NEEDS)
    return [*_speed(found), *_memory(SMALL_SIDES if small else SIDES)]


def _speed(found: dict) -> list[dict]:
    cpu, wall, operations, blocks = (found[key] for key in ("cpu", "wall", "operations", "blocks"))
    rows = []
    for last in found["last"]:
        name, key, share = (
            f"guidance iteration of a joint transformer to block {last} of {blocks}",
            str(last),
            last / blocks,
        )
        part = f"against {last}/{blocks} of an evaluation with CFG"
        rows += [
            bench_row(
                f"operations of a {name}, {part}", operations[key] / 1e12, share * operations["cfg"] / 1e12, "TFLOP"
            ),
            bench_row(f"{name}, {part}", cpu[key], share * cpu["cfg"], "CPU s"),
            bench_row(f"{name}, {part}, by the wall", wall[key], share * wall["cfg"]),
            bench_row(f"{name}, against an evaluation with CFG", cpu[key], cpu["cfg"], "CPU s"),
            bench_row(f"{name}, against an evaluation of one row", cpu[key], cpu["row"], "CPU s"),
        ]
    for key, name in STEPS.items():
        rows += [
            bench_row(f"{name}, against a plain step", cpu[key], cpu["cfg"], "CPU s"),
            bench_row(f"{name}, against a plain step, by the wall", wall[key], wall["cfg"]),
        ]
    return rows


def _memory(sides: dict[int, tuple[str, ...]]) -> list[dict]:
    measured = {}
    for side, cases in sides.items():
        for what in cases:
            arguments = ["--memory", what, "--cells", str(side)]
            found = measure_apart(MODULE, arguments, f"The measurement of memory with {what}", NEEDS)
            measured[what, found["tokens"]] = found
    rows = []
    for (what, tokens), found in measured.items():
        at = f"{tokens} picture tokens"
        if what == "maps":
            rows.append(bench_row(f"maps of three tokens in two blocks, {at}", found["kept"] / KILOBYTE, unit="kB"))
        name = "watching" if what == "maps" else f"soft guidance by {'a mask' if what == 'bias' else 'merging'}"
        rows.append(bench_row(f"extra peak memory of {name}, {at}", found["peak"] / MEGABYTE, unit="MB"))
    return rows
