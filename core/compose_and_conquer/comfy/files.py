"""CnC's files in ComfyUI: where they lie, and a loaded one as the graph hands it on."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import folder_paths
import torch
from comfy.ldm.modules import attention as backends
from torch import Tensor

from ...comfy.model_folders import newest_change
from ...comfy.named_files import NamedFiles
from ...comfy.types import Model
from ...weights.pickled import PICKLED, flat_name, written_from
from ..config import FuserConfig
from ..files import SAFE, CnCFileError, Weights, convert, read_fusers
from ..global_fuser import GlobalFuser
from ..local_fuser import LocalFuser

CNC = "cnc"  # the kind of model folder; the front door adds the embedded one to it
EMBEDDED = "sticker_world_cnc.safetensors"
LAYERS = ("Linear", "Conv2d", "GroupNorm", "LayerNorm")

CNC_FILES = NamedFiles(
    CNC,
    CnCFileError,
    'there is no CnC file "{name}"; found: {found}. Put it into models/{kind} and choose it again.',
    suffixes=SAFE,
    also=PICKLED,
    embedded=EMBEDDED,
)
CHECKPOINTS = replace(CNC_FILES, suffixes=PICKLED, also=SAFE)  # that Convert CnC Checkpoint may read


@dataclass(frozen=True, eq=False)
class CnC:
    """The fusers of a file.

    Attributes:
        name: of the file.
        local: ComfyUI's ModelPatcher around a `LocalFuser`, which may lie on any device, or None.
        dtype: in which the local fuser computes.
        config: its shapes, or None.
        global_fuser: float32 on the CPU, or None.
    """

    name: str
    local: Model | None
    dtype: torch.dtype
    config: FuserConfig | None
    global_fuser: GlobalFuser | None


def load_cnc(name: str) -> CnC:
    """Open a file of the drop-down.

    Raises:
        CnCFileError: it is gone, damaged, pickled, or holds something else.
    """
    fusers = read_fusers(CNC_FILES.require(name))
    local, dtype, global_fuser = None, torch.float32, None
    if fusers.local is not None:
        local, dtype = _local_patcher(fusers.local, fusers.config)
    if fusers.global_ is not None:
        global_fuser = GlobalFuser(fusers.tokens).eval().requires_grad_(False)
        global_fuser.load_state_dict(fusers.global_)
    return CnC(name, local, dtype, fusers.config, global_fuser)


def converted_file(name: str) -> Path:
    """Where the conversion of a pickled file of the drop-down goes."""
    return Path(folder_paths.models_dir) / CNC / f"{flat_name(name)}.safetensors"


def convert_checkpoint(name: str) -> tuple[Path, str]:
    """Write the fusers of a pickled file of the drop-down beside ComfyUI's other CnC files.

    Returns:
        The new file, and a sentence about what is in it. Its own conversion that is newer than it stays as it is.

    Raises:
        CnCFileError: the file is gone, damaged, wants to run something, or holds something else; or another file has
            the name of the new one.
    """
    source = CHECKPOINTS.require(name)
    target = converted_file(name)
    if target.exists():
        if written_from(target) == name and newest_change(target) >= source.stat().st_mtime_ns:
            return target, f"{target.name} in models/{CNC} is newer than {name}, so nothing was written."
        raise CnCFileError(
            f"There is a file {target.name} in models/{CNC} already, which is not the conversion of this {name}. "
            "Rename or remove it, then convert again."
        )
    fusers = convert(source, target, name)
    parts = {"local fuser (depth)": fusers.local, "global fuser (looks)": fusers.global_}
    millions = sum(weight.numel() for part in parts.values() for weight in (part or {}).values()) / 1e6
    found = " and ".join(what for what, part in parts.items() if part is not None)
    return target, f"Wrote {target.name} into models/{CNC}: {found}, {millions:.1f} M weights in half precision."


def _local_patcher(weights: Weights, config: FuserConfig) -> tuple[Model, torch.dtype]:
    """As ComfyUI loads a ControlNet: in the precision that the device likes, and loaded and offloaded with others."""
    management = comfy.model_management
    device = management.get_torch_device()
    count = sum(weight.numel() for weight in weights.values())
    dtype = management.unet_dtype(device, count, weight_dtype=comfy.utils.weight_dtype(weights))
    cast = management.unet_manual_cast(dtype, device)
    operations = comfy.ops.pick_operations(dtype, cast, disable_fast_fp8=True)
    typed = SimpleNamespace(**{name: partial(getattr(operations, name), dtype=dtype) for name in LAYERS})
    fuser = LocalFuser(config, typed, _attention).eval().requires_grad_(False)
    fuser.load_state_dict(weights)
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    return patcher(fuser, load_device=device, offload_device=management.unet_offload_device()), cast or dtype


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int, *, grid: tuple[int, int]) -> Tensor:
    """Whichever attention ComfyUI was started with."""
    return backends.optimized_attention(q, k, v, heads)
