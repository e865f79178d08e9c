"""CnC's files in ComfyUI: where they lie, and a loaded one as the graph hands it on."""

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy.ldm.modules import attention as backends
from torch import Tensor

from ...comfy.named_files import NamedFiles
from ...comfy.types import Model
from ...weights.pickled import PICKLED
from ..config import FuserConfig
from ..files import SAFE, CnCFileError, Weights, read_fusers
from ..global_fuser import GlobalFuser
from ..local_fuser import LocalFuser

CNC = "cnc"  # the kind of model folder; the front door adds the embedded one to it
EMBEDDED = "sticker_world_cnc.safetensors"
LAYERS = ("Linear", "Conv2d", "GroupNorm", "LayerNorm")

CNC_FILES = NamedFiles(
    CNC,
    CnCFileError,
    'there is no CnC file "{name}"; found: {found}. Put it into models/{kind} and choose it again.',
    suffixes=(*SAFE, *PICKLED),
    embedded=EMBEDDED,
)


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
        CnCFileError: it is gone, damaged, wants to run something, or holds something else.
    """
    fusers = read_fusers(CNC_FILES.require(name))
    local, dtype, global_fuser = None, torch.float32, None
    if fusers.local is not None:
        local, dtype = _local_patcher(fusers.local, fusers.config)
    if fusers.global_ is not None:
        global_fuser = GlobalFuser(fusers.tokens).eval().requires_grad_(False)
        global_fuser.load_state_dict(fusers.global_)
    return CnC(name, local, dtype, fusers.config, global_fuser)


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
