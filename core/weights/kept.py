"""Published checkpoints, which are pickled, as the safetensors that are kept beside them from their first reading on.

The kept file has the weights that are used alone, in half precision, and says of which state of the checkpoint it was
made. What is read is rounded as what is kept, so that the first reading gives the same network as all later ones.
"""

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .pickled import PICKLED
from .whole_files import UnwritableError, whole_files

SOURCE = "converted_from"  # metadata: name, size and time of the checkpoint that the weights were taken out of
SAFE = ".safetensors"

Thing = TypeVar("Thing")
Weights = dict[str, Tensor]


def is_pickled(path: Path) -> bool:
    """Whether a file's name says that it is a pickled checkpoint."""
    return path.suffix.lower() in PICKLED


def kept_file(checkpoint: Path) -> Path:
    """The file beside a checkpoint that its weights are kept in: of last.ckpt last, of last.pt last_pt."""
    suffix = checkpoint.suffix.lower()
    return checkpoint.with_name(f"{checkpoint.stem}{'' if suffix == PICKLED[0] else f'_{suffix[1:]}'}{SAFE}")


def open_checkpoint(
    checkpoint: Path, take: Callable[[Path], Mapping[str, Tensor]], build: Callable[[Weights], Thing]
) -> Thing:
    """Build a network of what is kept of a checkpoint; of the checkpoint itself the first time, which is kept then.

    A folder that nobody may write, a full disk or another file of that name keep nothing; the log says so once.

    Args:
        checkpoint: the pickled file.
        take: reads the weights that are used out of it.
        build: makes a network of such weights, in half precision; raises where they are none.

    Returns:
        What `build` gives. Raises like `take` and `build`, and keeps nothing then.
    """
    weights = _read(checkpoint)
    if weights is not None:
        return build(weights)
    weights = {name: each.to(torch.float16).contiguous() for name, each in take(checkpoint).items()}
    built = build(weights)  # every name and shape has to fit before anything is written
    _keep(checkpoint, weights)
    return built


def _state(checkpoint: Path) -> str:
    status = checkpoint.stat()
    return f"{checkpoint.name}, {status.st_size} bytes, {status.st_mtime_ns} ns"


def _source(checkpoint: Path) -> str:
    """Of which state of which checkpoint the kept file was made, as it says; "" where it says none or is not there."""
    try:
        with safe_open(kept_file(checkpoint), framework="pt") as file:
            return (file.metadata() or {}).get(SOURCE, "")
    except Exception:  # over damaged bytes the reader stumbles anywhere
        return ""


def _read(checkpoint: Path) -> Weights | None:
    """What is kept of the checkpoint as it is now; None where it is of an older one, damaged, or not there."""
    try:
        return load_file(kept_file(checkpoint)) if _source(checkpoint) == _state(checkpoint) else None
    except Exception:  # the checkpoint is gone, or what is kept has a whole head and damaged weights
        return None


def _keep(checkpoint: Path, weights: Weights) -> None:
    path = kept_file(checkpoint)
    if path.exists() and not _source(checkpoint).startswith(f"{checkpoint.name}, "):
        _say_once(checkpoint, f"a file {path.name} that was not made of it is there already. Rename or remove that one")
        return
    try:
        with whole_files() as beside:
            save_file(weights, beside(path), metadata={"format": "pt", SOURCE: _state(checkpoint)})
    except UnwritableError as error:
        _say_once(checkpoint, str(error).removesuffix("."))


@lru_cache
def _say_once(checkpoint: Path, reason: str) -> None:
    logging.warning(
        "Stagecraft: %s was read, but is not kept as safetensors, so every start reads the whole of it: %s.",
        checkpoint.name,
        reason,
    )
