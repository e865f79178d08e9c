"""Drop-downs of files and folders that a graph opens by name."""

from collections.abc import Sequence

from .api import io


def file_choice(
    name: str, found: Sequence[str], place: str, tooltip: str, preferred: str | None = None
) -> io.Combo.Input:
    """A drop-down that is never empty: without a choice the editor sends nothing, and ComfyUI says only that.

    Args:
        name: of the input.
        found: what there is; where there is nothing, the only choice says so, and the node refuses it.
        place: where such files lie, for that choice.
        tooltip: of the input.
        preferred: the first choice, if it was found.
    """
    default = preferred if preferred in found else None
    return io.Combo.Input(name, options=list(found) or [f"none in {place}"], default=default, tooltip=tooltip)
