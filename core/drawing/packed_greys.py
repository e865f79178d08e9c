"""Soft masks and maps as a short text: grey values, packed by zlib, in base64.

256 levels where that is exactly what there is, as the layout canvas paints and pictures bring; else floats, so that
nothing is lost on the way through JSON.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

LEVELS, FLOATS = "uint8_zlib_base64", "float32_zlib_base64"  # names of the text, by what one value is
WHITE = 255  # the level of 1
_BYTES = {LEVELS: 1, FLOATS: 4}  # of a value


def is_packed(data: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether JSON is a packed mask, whatever its values are."""
    return isinstance(data, Mapping) and any(set(data) == {"height", "width", text} for text in _BYTES)


def to_levels(values: Tensor) -> Tensor:
    """Round values in 0..1 to the 256 levels that a picture has: float32 of the same shape."""
    return (values.float() * WHITE).round() / WHITE


def pack_greys(values: Tensor) -> dict[str, Any]:
    """Pack a mask.

    Args:
        values: float32 (h w) in 0..1, on the CPU.

    Returns:
        {"height", "width", text}; `unpack_greys` gives back the same values, bit for bit.
    """
    is_levels = torch.equal(values, to_levels(values))
    packed = (values * WHITE).round().byte().numpy() if is_levels else values.numpy().astype("<f4")
    text = base64.b64encode(zlib.compress(packed.tobytes())).decode()
    return {"height": values.shape[0], "width": values.shape[1], LEVELS if is_levels else FLOATS: text}


def unpack_greys(data: Mapping[str, Any], largest: int, most: int) -> Tensor:
    """Unpack a mask.

    Args:
        data: one that `is_packed`.
        largest: pixels that a side may have.
        most: pixels that there may be; nothing larger is ever built.

    Returns:
        float32 (h w); floats are whatever the text holds.

    Raises:
        ValueError: sides that no picture has, a damaged text, or another number of values than the sides say.
    """
    name = next(key for key in _BYTES if key in data)
    height, width, text = data["height"], data["width"], data[name]
    if not all(type(side) is int and 0 < side <= largest for side in (height, width)):
        raise ValueError(f"of {height!r} x {width!r}; expected sides of 1 to {largest} pixels")
    if height * width > most:
        raise ValueError(f"of {width} x {height} pixels; expected at most {most}")
    wanted = _BYTES[name] * height * width
    try:
        # At most one byte more than wanted is unpacked, so a small text cannot fill the memory.
        values = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), wanted + 1)
    except (TypeError, ValueError, binascii.Error, zlib.error) as error:
        raise ValueError(f"that cannot be unpacked: {error}") from None
    if len(values) != wanted:
        raise ValueError(f"with too few or too many values for {height} x {width} pixels")
    if name == LEVELS:
        return torch.from_numpy(np.frombuffer(values, np.uint8).reshape(height, width).astype(np.float32) / WHITE)
    return torch.from_numpy(np.frombuffer(values, "<f4").astype(np.float32).reshape(height, width))
