"""Drop-downs of files and folders that a graph opens by name."""

from collections.abc import Sequence

from .api import io


def file_choice(
    id: str, names: Sequence[str], place: str, tooltip: str, preferred: str | None = None
) -> io.Combo.Input:  # noqa: A002
    """A drop-down that is never empty: without a choice the editor sends nothing, and ComfyUI says only that.

    Args:
        id: of the input.
        names: what there is; where there is nothing, the only choice says so, and the node refuses it.
        place: where such files lie, for that choice.
        tooltip: of the input.
        preferred: the first choice, if it is among the names.
    """
    return io.Combo.Input(
        id, options=list(names) or [f"none in {place}"], default=preferred if preferred in names else None,
        tooltip=tooltip,
    )  # fmt: skip
