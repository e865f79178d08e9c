"""Whether results are older than the code that they measure: a remark below their tables and plots."""

from collections.abc import Callable
from pathlib import Path

from ..records.checkout import has_changed
from ..result_rows import RESULTS, read_results

OLDER, UNKNOWN = "Older than the code that it measures.", "Of unknown age."
LAYERED, GUIDANCE = ("layered_rendering",), ("attention", "attention_guidance", "inversion")
U_NET, JOINT = (f"models/checkpoints/{name}.safetensors" for name in ("sticker_world", "sticker_world_joint"))
# What every number comes from.
EVERYWHERE = (
    "core/layout",
    "core/scores",
    *(f"evaluation/{name}" for name in ("baselines", "graphs", "judging", "sets", "painter.py")),
)
# By result file: rooms of core and nodes, and what else its numbers come from.
ROOMS: dict[str, tuple[str, ...]] = {
    "layouts": LAYERED,
    "ablation": LAYERED,
    "sweeps": LAYERED,
    "base": (),
    "sali": GUIDANCE,
    "sali_sweeps": GUIDANCE,
    "cnc": ("compose_and_conquer", "soft_guidance"),
    "text2layer": ("text2layer", "layers"),
    "tcig": ("tcig", "segmentation", "clip"),
    "tcig_sweeps": ("tcig", "segmentation", "clip"),
    "networks": (*LAYERED, *GUIDANCE, "soft_guidance"),
    "bench": (*LAYERED, *GUIDANCE, "compose_and_conquer", "soft_guidance", "tcig"),
    "growth": (*LAYERED, *GUIDANCE, "soft_guidance"),
}
ALSO: dict[str, tuple[str, ...]] = {
    "base": ("models/hf_clip", "models/segmenters/sticker_world"),
    "cnc": ("models/cnc", "evaluation/compose_and_conquer"),
    "text2layer": ("models/text2layer", "evaluation/text2layer"),
    "tcig": ("models/vqgan", "models/segmenters", "evaluation/tcig"),
    "tcig_sweeps": ("models/vqgan", "models/segmenters", "evaluation/tcig"),
    "networks": (JOINT, "evaluation/two_networks"),
    "bench": ("evaluation/bench",),
    "growth": ("evaluation/bench",),
}


def measured_paths(file: str) -> tuple[str, ...]:
    """Files and folders of the clone that the numbers of a result file come from."""
    rooms = tuple(f"{part}/{room}" for room in ROOMS[file] for part in ("core", "nodes"))
    return (*rooms, *EVERYWHERE, U_NET, *ALSO.get(file, ()))


def remark(
    file: str,
    folder: Path = RESULTS,
    has_changed: Callable[[str, tuple[str, ...]], bool | None] = has_changed,
) -> str:
    """What a reader has to know of the age of a result file's numbers; "" if they are of the code as it is.

    Args:
        file: its name without .json.
        folder: where it lies.
        has_changed: whether paths were touched since a commit; None where that is not known.
    """
    (came_from,) = read_results(folder / f"{file}.json").get("provenance", [{"commit": ""}])
    if came_from["commit"] == "":  # painted before results said where they come from
        return OLDER
    changed = None if came_from["commit"] is None else has_changed(came_from["commit"], measured_paths(file))
    return {True: OLDER, False: "", None: UNKNOWN}[changed]
