"""What nodes share of their schemas: the menu's folder, drop-downs of files, links that need each other.

ComfyUI asks `validate_inputs` before the run, but hears its answer only through inputs that it names and that the graph
has: where it names optional links alone and none of them is connected, the answer is lost. And a link that is there may
bring nothing. So a node whose links need each other says what is wrong in one function of the links that are there;
`validate_inputs` calls it with `linked`, naming a required input besides, and `execute` calls `refuse` with `brought`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar

from ..core.comfy.model_folders import Fingerprint
from ..core.comfy.named_files import NamedFiles
from ..core.comfy.sampling import SAMPLERS, SCHEDULERS, SEEDS
from .api import io

# The default of a link in `validate_inputs`, where a connected one is None, whatever it will bring.
NOT_CONNECTED = "not connected"
ACRONYMS = ("clip", "tcig")  # folders that the menu writes in capitals


def linked(**links: object) -> set[str]:
    """Names of those links that are connected, as `validate_inputs` gets them."""
    return {name for name, value in links.items() if value is not NOT_CONNECTED}


def brought(**links: object) -> set[str]:
    """Names of those links that bring something, as `execute` gets them."""
    return {name for name, value in links.items() if value is not None}


def refusal(check: Callable[[], object], expected: type[ValueError] = ValueError) -> str | None:
    """Why a check refuses, for `validate_inputs`; None where it does not.

    Args:
        check: raises where something is wrong.
        expected: the error that says so to a person; any other is a fault of ours and goes on.
    """
    try:
        check()
    except expected as error:
        return str(error)
    return None


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
    return f"Stagecraft/{folder.upper() if folder in ACRONYMS else folder.replace('_', ' ')}"


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


def advanced(widget: io.Input) -> io.Input:
    """The same input, which an editor that can do so folds away until somebody asks for it.

    ComfyUI 0.3.75's classes have no word for that, so it is said in their extra options, which reach every editor; that
    version's own shows the input all the same in its classical rendering (front end 1.32.9, seen).
    """
    widget.extra_dict["advanced"] = True
    return widget


def sampling_inputs(tooltips: Mapping[str, str], **defaults: float | str) -> list[io.Input]:
    """A sampler's settings, as KSampler has them.

    Args:
        tooltips: of each that the node has, in its order: seed, steps, cfg, sampler_name, scheduler.
        defaults: of those that do not begin with the usual value.
    """
    kinds = {
        "seed": partial(io.Int.Input, min=0, max=SEEDS - 1, control_after_generate=True),
        "steps": partial(io.Int.Input, min=1, max=1000),
        "cfg": partial(io.Float.Input, min=0.0, max=100.0, step=0.1),
        "sampler_name": partial(io.Combo.Input, options=list(SAMPLERS)),
        "scheduler": partial(io.Combo.Input, options=list(SCHEDULERS)),
    }
    usual = {"seed": 0, "steps": 20, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal"}
    values = usual | defaults
    return [kinds[name](name, default=values[name], tooltip=tooltip) for name, tooltip in tooltips.items()]


class FileLoader:
    """What nodes have in common that read a file or folder of a drop-down; stands before `io.ComfyNode`.

    ComfyUI calls both methods with all inputs by their names. It marks every input that `validate_inputs` takes where
    that refuses, so a node with more inputs than this one gives it a signature of its own.

    Attributes:
        FILES: what the drop-down offers.
        FILE_INPUT: name of the input.
    """

    FILES: ClassVar[NamedFiles]
    FILE_INPUT: ClassVar[str]

    @classmethod
    def file_input(cls, tooltip: str) -> io.Combo.Input:
        """The drop-down."""
        return file_choice(cls.FILE_INPUT, cls.FILES.names(), cls.FILES.place, tooltip, cls.FILES.embedded)

    @classmethod
    def validate_inputs(cls, name: str | None = None, **inputs: str | None) -> bool | str:
        """Refuse what is gone before anything runs; a connected name is checked when it runs."""
        return cls.FILES.refusal(inputs.get(cls.FILE_INPUT, name)) or True

    @classmethod
    def fingerprint_inputs(cls, name: str | None = None, **inputs: object) -> Fingerprint:
        """Load it again when it was replaced."""
        return cls.FILES.version(inputs.get(cls.FILE_INPUT, name))
