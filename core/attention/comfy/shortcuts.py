"""Evaluations of our own, apart from what shortens those of a run: caches of whole steps, and compiled networks."""

import sys
from contextlib import AbstractContextManager, nullcontext

import comfy.model_patcher
import torch

from ...comfy.types import Options

# Keys of ComfyUI's wrappers. Caches would skip an evaluation that is not a step of the run, or learn from it; a network
# that is compiled as a whole cannot be left in the middle.
SHORTCUTS = ("easycache", "lazycache", "torch.compile")


def without_shortcuts(model_options: Options) -> Options:
    """Model options of a run, for evaluations of our own; those that are given stay as they are."""
    options = comfy.model_patcher.create_model_options_clone(model_options)
    for of_kind in options.get("transformer_options", {}).get("wrappers", {}).values():
        for key in SHORTCUTS:
            of_kind.pop(key, None)
    return options


def uncompiled() -> AbstractContextManager[object]:
    """Evaluate what other nodes have compiled, a block or a function, as it was written."""
    # Who compiles has imported it; it takes seconds.
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()
