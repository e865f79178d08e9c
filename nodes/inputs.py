"""What nodes share of their schemas: the menu's folder, drop-downs of files, links that need each other.

ComfyUI asks `validate_inputs` before the run, but hears its answer only through inputs that it names and that the graph
has: where it names optional links alone and none of them is connected, the answer is lost. And a link that is there may
bring nothing. So a node whose links need each other says what is wrong in one function of the links that are there;
`validate_inputs` calls it with `linked`, naming a required input besides, and `execute` calls `refuse` with `brought`.
"""

from collections.abc import Sequence

from .api import io

# The default of a link in `validate_inputs`, where a connected one is None, whatever it will bring.
NOT_CONNECTED = "not connected"


def linked(**links: object) -> set[str]:
    """Names of those links that are connected, as `validate_inputs` gets them."""
    return {name for name, value in links.items() if value is not NOT_CONNECTED}


def brought(**links: object) -> set[str]:
    """Names of those links that bring something, as `execute` gets them."""
    return {name for name, value in links.items() if value is not None}


def refuse(reason: str | None) -> None:
    """Stop a run for a reason, if there is one.

    Raises:
        ValueError: it says the reason.
    """
    if reason:
        raise ValueError(reason)


def category_of(module: str) -> str:
    """The menu's folder of a node: that of its file, so that `nodes.soft_guidance.exemplars` is in "soft guidance".

    Args:
        module: `__name__` of the node's file.
    """
    folder = module.split(".")[-2]
    return f"Stagecraft/{'TCIG' if folder == 'tcig' else folder.replace('_', ' ')}"


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
