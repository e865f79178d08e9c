"""How the cost of a step grows with regions, canvas, tokens and layers: `python stage.py bench growth`.

One axis at a time, everything else as in `Point`'s defaults; each network in a process of its own, see
`growth_network`. The results are in evaluation/results/growth.json.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..result_rows import RESULTS
from .guidance import measure_apart

RESULTS_FILE = RESULTS / "growth.json"
NETWORKS = {"sd15": "SD 1.5's size", "flux": "Flux class, 4 + 8 blocks, 1024 wide"}
METHODS = (
    "plain",
    "set_mask",
    "set_area",
    "multidiffusion",
    "layered",
    "layered_crop",
    "guidance",
    "soft_bias",
    "soft_merge",
)
AXES: dict[str, tuple[int, ...]] = {
    "regions": (1, 2, 4, 8, 16, 32),
    "canvas": (256, 512, 1024, 2048),
    "tokens": (77, 154, 308, 616),
    "layers": (1, 2, 4, 8),
}
SMALL_AXES: dict[str, tuple[int, ...]] = {"regions": (1, 4), "canvas": (128,), "tokens": (77,), "layers": (2,)}


@dataclass(frozen=True)
class Point:
    """What is painted in a step with CFG.

    Attributes:
        regions: boxes of 1/40 of the canvas each, beside each other; or, of layers, of a third, over each other.
        canvas: its sides in pixels.
        tokens: of every prompt.
        stacked: whether the regions lie over each other.
    """

    regions: int = 4
    canvas: int = 512
    tokens: int = 77
    stacked: bool = False


def points(small: bool = False) -> Iterator[tuple[str, int, Point]]:
    """Every axis with its values."""
    base = Point(canvas=128) if small else Point()
    for axis, values in (SMALL_AXES if small else AXES).items():
        for value in values:
            changed = {"regions": value, "stacked": True} if axis == "layers" else {axis: value}
            yield axis, value, replace(base, **changed)


def bench_growth(small: bool = False, timed: bool = True) -> list[dict]:
    """Count and time a sampler's step.

    Args:
        small: small networks and a few points, to see that everything runs.
        timed: measure seconds too; counts alone do not depend on what else the machine does.

    Returns:
        A row for each network, axis, value and method: evaluations of the network, their rows, floating-point
        operations, seconds, and peak memory without the weights; None for what was not counted or timed.

    Raises:
        SetupProblem: a measurement did not come to its end.
    """
    rows = []
    given = [*(["--small"] if small else []), *([] if timed else ["--counts"])]
    for network, name in NETWORKS.items():
        found = measure_apart("growth_network", [network, *given], f"The measurement of {name}", "14 GB")
        rows += found["rows"]
    return rows
