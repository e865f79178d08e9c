"""Tensors out of a pickled checkpoint, without running anything that is in it."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

PICKLED = (".ckpt", ".pt", ".pth", ".bin")
WRAPPER = "state_dict"
LONGEST_PICKLE = 2**26  # bytes of an archive's pickle, which holds names and shapes; published ones have under 1 MiB
# The one class, besides tensors, that training checkpoints of that time hold by reference; nothing of it is needed.
LIGHTNING_CLASS = ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
NO_PICKLE = "Unsupported operand"  # of PyTorch's reader: instructions that torch.save does not write
ASKED_FOR = re.compile(r"GLOBAL (\S+)")  # the class or function in its refusal


class PickledTensorsError(ValueError):
    """A file that cannot be read, or wants to run something."""


def read_pickled_tensors(path: Path, original: str) -> dict[str, Tensor]:
    """Read the named tensors of a checkpoint, with or without `state_dict` around them.

    Args:
        path: of a file that `torch.save` wrote.
        original: what to get where the file holds more than tensors, such as "the original cnc_v1.ckpt".

    Raises:
        PickledTensorsError: damaged, no checkpoint, or it holds more than tensors.
    """
    is_zip = _is_zip(path)
    if is_zip:
        _require_stored(path)
    stand_in = type(LIGHTNING_CLASS[1], (), {"__module__": LIGHTNING_CLASS[0]})
    try:
        with torch.serialization.safe_globals([stand_in]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # over damaged bytes the reader stumbles anywhere
        if not isinstance(error, pickle.UnpicklingError):
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise PickledTensorsError(f"{path.name} cannot be read ({reason}). Download the file again.") from error
        if NO_PICKLE in str(error):
            raise PickledTensorsError(
                f"{path.name} is no checkpoint that PyTorch has saved; it may be the download's web page. Download the "
                "file again."
            ) from error
        asked = ASKED_FOR.search(str(error))
        raise PickledTensorsError(
            f"{path.name} holds more than tensors{f' ({asked[1]})' if asked else ''}, and opening it could run code "
            f"that is in it; it was not opened. Get {original}."
        ) from error
    content = content.get(WRAPPER, content) if isinstance(content, Mapping) else {}
    named = content.items() if isinstance(content, Mapping) else ()
    return {key: value for key, value in named if isinstance(key, str) and isinstance(value, Tensor)}


def _is_zip(path: Path) -> bool:
    """PyTorch's file format since 1.6, of which parts can be read without reading the whole."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"PK"
    except OSError as error:
        raise PickledTensorsError(f"{path.name} cannot be read ({error}). Download the file again.") from error


def _require_stored(path: Path) -> None:
    """Refuse an archive that says it holds more than its file does: PyTorch never compresses what it saves."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise PickledTensorsError(f"{path.name} cannot be read ({error}). Download the file again.") from error
    problem = ""
    if any(each.compress_type != zipfile.ZIP_STORED for each in entries):
        problem = "is compressed"
    elif sum(each.file_size for each in entries) > path.stat().st_size:
        problem = "says that it holds more than it does"
    elif any(each.file_size > LONGEST_PICKLE for each in entries if each.filename.endswith(".pkl")):
        problem = f"has a table of contents of more than {LONGEST_PICKLE // 2**20} MiB"
    if problem:
        raise PickledTensorsError(
            f"{path.name} {problem}, which no checkpoint is that PyTorch has saved; it was not opened. Download the "
            "file again."
        )
