"""What ComfyUI's attention functions are given behind queries, keys, values and the number of heads."""

from collections.abc import Sequence

from ...comfy.types import Options

POSITIONAL = ("mask", "attn_precision", "skip_reshape", "skip_output_reshape")


def named_arguments(args: Sequence[object], kwargs: Options) -> Options:
    """All of it by name; some callers give the first few in order."""
    return kwargs | dict(zip(POSITIONAL, args, strict=False))
