"""Whether results are older than the code that they measure: a remark below their tables and plots."""

from collections.abc import Callable
from pathlib import Path

from ..records.checkout import has_changed
from ..result_rows import RESULTS, read_results
from ..sets.edits import EDITS
from ..sets.sets import LAYOUT_SETS, PRESENCE, TUNING_SET

OLDER, UNKNOWN = "Older than the code that it measures.", "Of unknown age."
LAYERED, GUIDANCE = ("layered_rendering",), ("attention", "attention_guidance", "inversion")
U_NET, JOINT = (f"models/checkpoints/{name}.safetensors" for name in ("sticker_world", "sticker_world_joint"))
# What every number comes from.
EVERYWHERE = (
    "core/layout",
    "core/scores",
    "evaluation/painter.py",
    *(f"evaluation/graphs/{name}.py" for name in ("builder", "colours", "counted", "plain")),
    *(f"evaluation/judging/{name}" for name in ("scoring.py", "yardsticks.py", "weights")),
    *(f"evaluation/sets/{name}" for name in ("sets.py", "balanced.py", "visible_areas.json")),
)
PLACING = ("evaluation/baselines", *(f"evaluation/graphs/{name}.py" for name in ("methods", "lrdiff")))
OBJECTS = tuple(f"evaluation/sets/layouts/{name}.json" for name in LAYOUT_SETS)
TUNING = (f"evaluation/sets/layouts/{TUNING_SET}.json", "evaluation/sweeps.py")
PLACED_BY_ATTENTION = tuple(f"evaluation/graphs/{name}.py" for name in ("sali", "soft"))
# By result file: rooms of core and nodes, and what else its numbers come from.
ROOMS: dict[str, tuple[str, ...]] = {
    "layouts": LAYERED,
    "ablation": LAYERED,
    "sweeps": LAYERED,
    "base": (),
    "judges": (),
    "sali": GUIDANCE,
    "sali_sweeps": GUIDANCE,
    "cnc": ("compose_and_conquer", "soft_guidance"),
    "text2layer": ("text2layer", "layers"),
    "tcig": ("tcig", "segmentation", "clip"),
    "tcig_sweeps": ("tcig", "segmentation", "clip"),
    "networks": (*LAYERED, *GUIDANCE, "soft_guidance"),
    "which_method": (*LAYERED, *GUIDANCE, "compose_and_conquer", "editing", "soft_guidance", "tcig", "text2layer"),
    "editing": (*LAYERED, "editing", "inversion"),
    "split": ("text2layer", "segmentation"),
    "two_looks": LAYERED,
    "bench": (*LAYERED, *GUIDANCE, "compose_and_conquer", "soft_guidance", "tcig"),
    "growth": (*LAYERED, *GUIDANCE, "soft_guidance"),
}
SHIPPED_READERS = ("models/hf_clip", "models/segmenters/sticker_world")
TCIG = ("models/vqgan", "models/segmenters", "evaluation/tcig", *PLACING, *OBJECTS)
TRUTH = "evaluation/text2layer/scores.py"  # decibels
EDITED = (TRUTH, *(f"evaluation/sets/{name}" for name in ("edits.py", "make_layouts.py", f"layouts/{EDITS}.json")))
ALSO: dict[str, tuple[str, ...]] = {
    "layouts": (*PLACING, *OBJECTS),
    "ablation": (*PLACING, *OBJECTS),
    "sweeps": (*PLACING, *TUNING),
    "base": (*SHIPPED_READERS, f"evaluation/sets/layouts/{PRESENCE}.json"),
    "judges": (*SHIPPED_READERS, "evaluation/judging/calibration.py", "evaluation/judging/distractors"),
    "sali": (*PLACING, *PLACED_BY_ATTENTION, *OBJECTS),
    "sali_sweeps": (*PLACED_BY_ATTENTION, *TUNING),
    "cnc": ("models/cnc", "evaluation/compose_and_conquer", "evaluation/sets"),
    "text2layer": ("models/text2layer", "evaluation/text2layer"),
    "tcig": TCIG,
    "tcig_sweeps": TCIG,
    "networks": (JOINT, "evaluation/two_networks", *PLACING, *PLACED_BY_ATTENTION, *OBJECTS),
    "which_method": (JOINT, "models/cnc", "models/text2layer", "models/vqgan", "evaluation/which_method"),
    "editing": ("evaluation/editing", *EDITED),
    "split": (SHIPPED_READERS[1], "evaluation/splitting", "evaluation/editing/graphs.py", TRUTH),
    "two_looks": ("models/loras", "evaluation/two_looks", "evaluation/graphs/lrdiff.py"),
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
    if not (folder / f"{file}.json").is_file():
        return ""  # nothing is measured yet
    (came_from,) = read_results(folder / f"{file}.json").get("provenance", [{"commit": ""}])
    if came_from["commit"] == "":  # painted before results said where they come from
        return OLDER
    changed = None if came_from["commit"] is None else has_changed(came_from["commit"], measured_paths(file))
    return {True: OLDER, False: "", None: UNKNOWN}[changed]
