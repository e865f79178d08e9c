"""What newer versions of ComfyUI ask for besides, by the names that their functions and dataclasses have."""

import inspect
from collections.abc import Callable


def accepted(function: Callable[..., object], **new: object) -> dict[str, object]:
    """Those of the keyword arguments that a function takes, or that a dataclass has as fields."""
    return {name: value for name, value in new.items() if name in inspect.signature(function).parameters}
