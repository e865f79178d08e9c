"""How long TCIG's first stage takes: `python stage.py bench tcig`.

It is measured in a process of its own with two threads and the embedded models, see `draft_speed`.
"""

from ...commands.messages import SetupProblem
from ...core.tcig.draft import FEW_ITERATIONS
from ...sticker_world.shipped import VQGAN_FOLDER
from ..result_rows import bench_row
from .guidance import measure_apart

LONGEST = 60.0  # seconds that a draft may take on two cores


def bench_tcig(small: bool = False) -> list[dict]:
    """Measure the draft of a layout of two things at 256 pixels, and its iterations against a plain loop's.

    Args:
        small: a small VQGAN with random weights and few repeats, to see that everything runs.

    Returns:
        The whole draft against the time that it may take, and iterations per second against a loop with 32 separate
        passes through CLIP.

    Raises:
        SetupProblem: the embedded VQGAN is missing, or the measurement did not come to its end.
    """
    if not small and not VQGAN_FOLDER.is_dir():
        raise SetupProblem(
            f"{VQGAN_FOLDER} is missing. Make it with: python stage.py train vqgan tcig_export; or use --small."
        )
    found = measure_apart("draft_speed", ["--small"] if small else [], "The measurement of drafts", "2 GB")
    whole = f"TCIG draft, 256 pixels, {FEW_ITERATIONS} iterations, against {LONGEST:g} s"
    return [
        bench_row(whole, found["seconds"], LONGEST, "s"),
        bench_row(
            "TCIG iterations per second against a plain loop with 32 CLIP passes",
            found["ours"],
            found["plain"],
            "per s",
        ),
    ]
