"""Files with CnC's fusers, the published checkpoint among them: reading, recognising and writing them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..weights.kept import is_pickled, open_checkpoint
from ..weights.packed import pack_weights, unpack_weights
from ..weights.pickled import PickledTensorsError, read_pickled_tensors
from ..weights.whole_files import whole_files
from .config import FuserConfig
from .global_fuser import GlobalFuser, TokenConfig
from .local_fuser import LocalFuser

LOCAL, GLOBAL = "local_adapter.", "global_adapter."
HEAD_WIDTH = "num_head_channels"  # metadata: shapes do not tell how widths are split into heads
SAFE = (".safetensors", ".sft")
CNC_MARK, UNI_MARK = (f"{LOCAL}feature_extractor.{name}_extractor.0.weight" for name in ("fg", "pre"))
UNI_GLOBAL_MARK = f"{GLOBAL}ff1.net.0.proj.weight"

Weights = dict[str, Tensor]


class CnCFileError(ValueError):
    """A file that does not hold CnC's fusers, or must not be opened."""


@dataclass(frozen=True)
class Fusers:
    """What a file holds; each part's weights have their published names without the prefix.

    Attributes:
        local: weights of the local fuser, or None.
        config: its shapes, or None.
        global_: weights of the global fuser, or None.
        tokens: its shapes, or None.
    """

    local: Weights | None
    config: FuserConfig | None
    global_: Weights | None
    tokens: TokenConfig | None


def read_fusers(path: str | Path) -> Fusers:
    """Open a file with one or both fusers.

    Args:
        path: safetensors, or a published checkpoint, with or without `state_dict` around the weights: only the fusers'
            tensors are read from it, nothing in it is run, and they are kept beside it (`open_checkpoint`).

    Raises:
        CnCFileError: neither of them, damaged, another method's file, wants to run something, or weights are missing,
            unknown or misshapen.
    """
    path = Path(path)
    if is_pickled(path):
        return open_checkpoint(path, _take, lambda weights: recognise(weights, path.name))
    if path.suffix.lower() not in SAFE:
        raise CnCFileError(
            f"{path.name} is neither safetensors nor a checkpoint (.ckpt, .pt, .pth, .bin). Choose a file of CnC's "
            "fusers."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys() if name.startswith((LOCAL, GLOBAL))}
    except Exception as error:  # over damaged bytes the reader stumbles anywhere
        raise CnCFileError(f"{path.name} cannot be read as safetensors ({error}). Copy the file again.") from error
    try:
        weights = unpack_weights(weights, metadata)
    except ValueError as error:
        raise CnCFileError(f"{path.name} is damaged: {error} Copy the file again.") from error
    head_width = metadata.get(HEAD_WIDTH, "")
    return recognise(weights, path.name, int(head_width) if head_width.isdecimal() else 0)


def _take(checkpoint: Path) -> Weights:
    """The fusers' tensors; the frozen U-Net, autoencoder and text encoder stay behind."""
    try:
        found = read_pickled_tensors(checkpoint, "the original cnc_v1.ckpt")
    except PickledTensorsError as error:
        raise CnCFileError(str(error)) from error
    return {name: weight for name, weight in found.items() if name.startswith((LOCAL, GLOBAL))}


def recognise(weights: Mapping[str, Tensor], name: str, num_head_channels: int = 0) -> Fusers:
    """Check weights under their published names, with prefixes, and split them into the two fusers.

    Args:
        weights: other weights than the fusers' are left out.
        name: the file's, for errors.
        num_head_channels: width of a head of the local fuser; 0 for the published 8 heads.

    Raises:
        CnCFileError: these are not CnC's fusers, or weights are missing, unknown or misshapen.
    """
    if UNI_MARK in weights or UNI_GLOBAL_MARK in weights:
        raise CnCFileError(
            f"{name} is a Uni-ControlNet checkpoint, the ancestor of CnC: it takes seven stacked condition maps and "
            "one picture, not two depth maps and two pictures. Choose cnc_v1.ckpt, or what is kept of it."
        )
    local, global_ = (
        {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)} or None
        for prefix in (LOCAL, GLOBAL)
    )
    if local is None and global_ is None:
        raise CnCFileError(
            f"{name} holds no CnC fuser: no weight begins with {LOCAL} or {GLOBAL}. Choose cnc_v1.ckpt of Compose and "
            "Conquer, or what is kept of it."
        )
    config = tokens = None
    try:
        with torch.device("meta"):
            if local is not None:
                config = FuserConfig.from_state_dict(local, num_head_channels)
                _require_same(local, LocalFuser(config).state_dict())
            if global_ is not None:
                tokens = TokenConfig.from_state_dict(global_)
                _require_same(global_, GlobalFuser(tokens).state_dict())
    except ValueError as error:
        raise CnCFileError(f"{name}: {error}") from error
    return Fusers(local, config, global_, tokens)


def _require_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    misshapen = [key for key in expected.keys() & found.keys() if expected[key].shape != found[key].shape]
    for names, what in ((missing, "are missing"), (unknown, "are unknown"), (sorted(misshapen), "have a wrong shape")):
        if names:
            raise ValueError(f"{len(names)} weights {what}, {names[0]} first. The file is damaged, or no CnC fuser.")


def write_fusers(
    path: str | Path,
    local: Mapping[str, Tensor] | None,
    global_: Mapping[str, Tensor] | None,
    num_head_channels: int = 0,
    bits: int | None = None,
) -> None:
    """Write fusers as safetensors, by the published names.

    Args:
        path: the file; it appears when it is complete.
        local: weights of a `LocalFuser`, or None.
        global_: weights of a `GlobalFuser`, or None.
        num_head_channels: the local fuser's `FuserConfig.num_head_channels`.
        bits: of every weight, see `pack_weights`; None for half precision.

    Raises:
        UnwritableError: the disk is full, or lets nobody write there.
    """
    path = Path(path)
    parts = ((LOCAL, local), (GLOBAL, global_))
    named = {prefix + key: value.detach() for prefix, part in parts for key, value in (part or {}).items()}
    metadata = {"format": "pt", HEAD_WIDTH: str(num_head_channels)}
    if bits is None:
        tensors = {name: value.to(torch.float16).contiguous() for name, value in named.items()}
    else:
        tensors, packed = pack_weights(named, bits)
        metadata |= packed
    with whole_files() as beside:
        save_file(tensors, beside(path), metadata=metadata)
