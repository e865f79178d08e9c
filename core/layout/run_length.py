"""Hard masks as a short text: COCO's run-length encoding, the form that annotation tools and the layout canvas write.

A mask is {"size": [height, width], "counts": runs}. The pixels are counted column by column from the top left; the runs
alternate, outside first. As a list the runs are plain numbers. As text each run from the third on is first reduced by
the run two before it, which for neighbouring columns of a shape leaves almost nothing, and then written five bits at a
time, least significant first, as characters from "0" on; 32 says that more follow, and the last one's 16 is the sign.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

FIRST = 48  # "0"
DATA, SIGN, MORE = 31, 16, 32  # bits of a character
LONGEST = 7  # characters of a run: 35 bits, more than any picture has pixels


def is_run_length(data: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a mask in JSON is written in runs."""
    return isinstance(data, Mapping) and set(data) == {"size", "counts"}


def encode_runs(mask: Tensor) -> dict[str, Any]:
    """Write a hard mask.

    Args:
        mask: (h w), inside where it is not 0.

    Returns:
        {"size": [h, w], "counts": text}.
    """
    flat = (mask != 0).T.reshape(-1).numpy()
    borders = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], borders, [len(flat)])))
    runs = np.concatenate(([0], runs)) if flat[0] else runs
    rest = runs.astype(np.int64)
    rest[3:] -= runs[1:-2]
    digits, written = np.zeros((len(rest), LONGEST), np.uint8), np.zeros((len(rest), LONGEST), bool)
    more = np.ones(len(rest), bool)
    for place in range(LONGEST):
        written[:, place] = more
        bits, rest = rest & DATA, rest >> 5
        still = more & (rest != np.where(bits & SIGN, -1, 0))
        digits[:, place] = bits + np.where(still, MORE, 0) + FIRST
        more = still
    return {"size": list(mask.shape), "counts": digits[written].tobytes().decode("ascii")}


def decode_runs(data: Mapping[str, Any], most: int) -> Tensor:
    """Read a mask that is written in runs.

    Args:
        data: {"size": [h, w], "counts": text or list}.
        most: pixels that it may have; nothing larger is ever built.

    Returns:
        float32 (h w), 0 or 1.

    Raises:
        ValueError: other sides, or runs that do not fill them; the message says which.
    """
    runs, height, width = _checked_runs(data, most)
    flat = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(flat.reshape(width, height).T))


def has_inside(data: Mapping[str, Any], most: int) -> bool:
    """Whether a mask that is written in runs covers anything; arguments and errors are those of `decode_runs`."""
    return bool(_checked_runs(data, most)[0][1::2].any())


def _checked_runs(data: Mapping[str, Any], most: int) -> tuple[np.ndarray, int, int]:
    """The runs, which fill all pixels, height and width."""
    size = data["size"]
    is_pair = isinstance(size, list | tuple) and len(size) == 2
    if not is_pair or not all(type(side) is int and 0 < side <= most for side in size):
        raise ValueError("its size is not [height, width] in pixels")
    height, width = size
    if height * width > most:
        raise ValueError(f"it has {width} x {height} pixels, more than {most}")
    counts = data["counts"]
    runs = _read_text(counts) if isinstance(counts, str) else _read_list(counts, height * width)
    # As floats first: wrong runs may be too long to be added as whole numbers.
    if runs.min(initial=0) < 0 or runs.sum(dtype=np.float64) != height * width:
        raise ValueError(f"its runs do not fill {width} x {height} pixels")
    return runs, height, width


def _read_list(counts: object, pixels: int) -> np.ndarray:
    if not isinstance(counts, list | tuple) or not all(type(run) is int and 0 <= run <= pixels for run in counts):
        raise ValueError("its runs are not whole numbers")
    return np.array(counts, np.int64)


def _read_text(counts: str) -> np.ndarray:
    try:
        digits = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - FIRST
    except UnicodeEncodeError:
        digits = np.array([-1])
    ends = np.flatnonzero((digits & MORE) == 0)
    lengths = np.diff(ends, prepend=-1)
    is_whole = len(ends) and ends[-1] == len(digits) - 1 and lengths.max() <= LONGEST
    if not is_whole or digits.min() < 0 or digits.max() > DATA + MORE:
        raise ValueError("its runs are cut off or hold foreign characters")
    starts = ends - lengths + 1
    places = np.fromiter(chain.from_iterable(map(range, lengths.tolist())), np.int64, len(digits))
    runs = np.add.reduceat((digits & DATA) << (5 * places), starts)
    runs -= np.where(digits[ends] & SIGN, np.int64(1) << (5 * lengths), 0)
    # Undo the reduction: from the second run on, every second one is a running sum.
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs
