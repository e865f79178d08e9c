"""A pack of one node for the fuzzed server: it says of any value whether it is finite, how large, and which one it is.

ComfyUI's own previews clip a picture to bytes, so that NaN turns black and two pictures that differ look the same. The
harness copies this folder into the `custom_nodes` of its server; nobody else loads it.
"""

import hashlib
import json

import torch


class AnyType(str):
    """A type that every link fits into; ComfyUI compares types with `!=`."""

    def __ne__(self, other: object) -> bool:
        return False


class Probe:
    """Shows {"finite", "tensors", "shapes", "digest"} of whatever is connected, as JSON."""

    RETURN_TYPES = ()
    FUNCTION = "look"
    OUTPUT_NODE = True
    CATEGORY = "fuzz"

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        """One value of any type."""
        return {"required": {"value": (AnyType("*"), {})}}

    def look(self, value: object) -> dict:
        """Describe a value; tensors are found in lists, dictionaries and attributes of plain objects."""
        tensors: list[torch.Tensor] = []
        _collect(value, tensors, 0)
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        if not tensors and isinstance(value, str | int | float | bool):
            digest.update(repr(value).encode())
        seen = {
            "finite": all(bool(torch.isfinite(tensor.float()).all()) for tensor in tensors),
            "tensors": len(tensors),
            "shapes": [list(tensor.shape) for tensor in tensors[:4]],
            "digest": digest.hexdigest()[:24],
        }
        return {"ui": {"text": [json.dumps(seen)]}}


def _collect(value: object, tensors: list[torch.Tensor], depth: int) -> None:
    if isinstance(value, torch.Tensor):
        tensors.append(value)
    elif depth < 4 and isinstance(value, dict):
        for each in value.values():
            _collect(each, tensors, depth + 1)
    elif depth < 4 and isinstance(value, list | tuple):
        for each in value:
            _collect(each, tensors, depth + 1)


NODE_CLASS_MAPPINGS = {"FuzzProbe": Probe}
