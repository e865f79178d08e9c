"""Weights in few bits: whole numbers with a scale for each output channel, packed without gaps.

For files that have to be small. A network's weights are about normally distributed, which whole numbers with a scale of
their own for every channel hold better than as many bits of floating point: 8 bits with a quarter of float8's error.
"""

import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

PACKED = "packed"  # metadata: bits and shape of every packed weight
SCALE = ".scale"  # behind a weight's name: what its whole numbers are multiplied with
FEWEST, MOST = 2, 8  # bits
SMALLEST = 1024  # values; smaller weights, and those with one dimension, stay in half precision
# Values of a weight that gets all 8 bits whatever is asked: these are few in all, and much passes through each of them.
SMALL = 50_000
CLIPPING = torch.linspace(0.4, 1.0, 25)  # of a channel's largest value: what is tried as the largest whole number


def pack_weights(
    weights: Mapping[str, Tensor], bits: int, exact: tuple[str, ...] = ()
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Round weights to so many bits each.

    Args:
        weights: by name, of any shapes; the first dimension of a weight counts output channels.
        bits: 2 to 8, of a large weight.
        exact: what the names of weights begin with that get all 8 bits whatever is asked.

    Returns:
        Tensors and metadata for a safetensors file: of each packed weight uint8 (channels bytes) under its name, and
        float32 (channels) under its name with `.scale`; the others in half precision.

    Raises:
        ValueError: bits that are not 2 to 8.
    """
    if not FEWEST <= bits <= MOST:
        raise ValueError(f"Weights cannot be packed in {bits} bits; expected {FEWEST} to {MOST}.")
    tensors: dict[str, Tensor] = {}
    forms: dict[str, list[int]] = {}
    for name, weight in weights.items():
        weight = weight.detach().cpu().float()
        if weight.ndim < 2 or weight.numel() < SMALLEST:
            tensors[name] = weight.to(torch.float16).contiguous()
            continue
        own = MOST if weight.numel() < SMALL or name.startswith(exact) else bits
        numbers, scale = _round(weight.flatten(1), _largest(own))
        tensors[name] = _pack((numbers + _largest(own)).to(torch.uint8), own)
        tensors[name + SCALE] = scale
        forms[name] = [own, *weight.shape]
    return tensors, {PACKED: json.dumps(forms, separators=(",", ":"))}


def unpack_weights(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """Give the weights that `pack_weights` was given, but for the rounding, in half precision.

    Args:
        tensors: of a file, or some of them; those that are not packed stay as they are.
        metadata: of the file.

    Raises:
        ValueError: what the metadata says does not fit the tensors.
    """
    if PACKED not in metadata:
        return dict(tensors)
    try:
        forms = json.loads(metadata[PACKED])
        weights = {name: tensor for name, tensor in tensors.items() if name.removesuffix(SCALE) not in forms}
        for name, (bits, *shape) in forms.items():
            if name in tensors:
                numbers = _unpack(tensors[name], bits)[:, : int(np.prod(shape[1:]))].to(torch.float32)
                values = (numbers - _largest(bits)) * tensors[name + SCALE].float()[:, None]
                weights[name] = values.to(torch.float16).reshape(shape)
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise ValueError(f"The packed weights and the file's metadata do not fit each other ({error}).") from error
    return weights


def _largest(bits: int) -> int:
    """The largest whole number; its negative is the smallest."""
    return 2 ** (bits - 1) - 1


def _round(rows: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """(o n) -> whole numbers up to `largest` (o n), and for each row the scale with the smallest squared error (o)."""
    highest = rows.abs().amax(1)
    best = torch.full_like(highest, torch.inf)
    numbers, scale = torch.zeros_like(rows), torch.zeros_like(highest)
    for share in CLIPPING.tolist():
        tried = share * highest / largest
        rounded = (rows / tried.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round().clamp(-largest, largest)
        error = (rounded * tried[:, None] - rows).square().sum(1)
        better = error < best
        best, scale = torch.where(better, error, best), torch.where(better, tried, scale)
        numbers = torch.where(better[:, None], rounded, numbers)
    return numbers, scale


def _pack(numbers: Tensor, bits: int) -> Tensor:
    """uint8 (o n), each below 2^bits -> uint8 (o bytes), every row without gaps, its last byte filled up with 0."""
    spread = np.unpackbits(numbers.numpy()[..., None], axis=-1)[..., 8 - bits :]
    return torch.from_numpy(np.packbits(spread.reshape(len(spread), -1), axis=-1))


def _unpack(packed: Tensor, bits: int) -> Tensor:
    """The way back; (o n) with some 0 behind every row where bits were left."""
    spread = np.unpackbits(packed.numpy(), axis=-1)
    spread = spread[:, : spread.shape[1] // bits * bits].reshape(len(spread), -1, bits)
    return torch.from_numpy(np.packbits(np.pad(spread, ((0, 0), (0, 0), (8 - bits, 0))), axis=-1)[..., 0])
