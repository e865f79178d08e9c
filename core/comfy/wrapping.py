"""Puts one of our functions around every run of a model."""

from collections.abc import Callable
from typing import Any

import comfy.patcher_extension


def wrap_runs(model: Any, key: str, wrapper: Callable[..., Any]) -> Any:  # noqa: ANN401 - ComfyUI's ModelPatcher
    """Give a clone of the model with an OUTER_SAMPLE wrapper; a key that the model already has is not added again."""
    model = model.clone()
    kind = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    if not model.get_wrappers(kind, key):
        model.add_wrapper_with_key(kind, key, wrapper)
    return model
