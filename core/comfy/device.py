"""Networks that are no models of ComfyUI's own, such as segmenters, in the hands of its model management."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.model_patcher
import torch
from torch import nn

from .types import Model

# Of torch's modules: what a module of the same weights shares with another.
WEIGHTS_OF_A_MODULE = ("_parameters", "_buffers", "_modules")


class WholePatcher(comfy.model_patcher.ModelPatcher):
    """ComfyUI's patcher around a network of torch's own layers, which works on a device as a whole or not at all.

    Nodes run in inference mode, and weights that are moved there could not be differentiated through.
    """

    @torch.inference_mode(False)
    def load(
        self,
        device_to: torch.device | None = None,
        lowvram_model_memory: float = 0,
        force_patch_weights: bool = False,
        full_load: bool = False,
    ) -> None:
        """Bring all of it to the device, however little ComfyUI would bring there."""
        super().load(device_to, force_patch_weights=force_patch_weights, full_load=True)

    @torch.inference_mode(False)
    def unpatch_model(self, device_to: torch.device | None = None, unpatch_weights: bool = True) -> None:
        """Bring it back."""
        super().unpatch_model(device_to, unpatch_weights)

    def partially_unload(self, *_: object, **__: object) -> int:
        """Nothing goes by itself, so ComfyUI takes all of it where it needs room."""
        return 0


_patchers: WeakKeyDictionary[nn.Module, Model] = WeakKeyDictionary()


@torch.inference_mode(False)
def patcher_of(network: nn.Module) -> Model:
    """ComfyUI's patcher around a network: always the same one, which lives as long as the network does."""
    if network not in _patchers:
        management = comfy.model_management
        _patchers[network] = WholePatcher(
            _same_weights(network),
            load_device=management.get_torch_device(),
            offload_device=management.unet_offload_device(),
        )
    return _patchers[network]


def _same_weights(network: nn.Module) -> nn.Module:
    """A module with a network's weights that does not hold the network, and takes the marks that ComfyUI makes.

    Held by its own patcher a network would never go; and those of diffusers and transformers know their device
    themselves and refuse to be told.
    """
    same = type(type(network).__name__, (nn.Module,), {})()  # ComfyUI's log names it so
    for name in WEIGHTS_OF_A_MODULE:
        same.__dict__[name] = getattr(network, name)
    return same


@contextmanager
def on_device(networks: Sequence[nn.Module], working: int = 0) -> Iterator[torch.device]:
    """Let ComfyUI bring networks to its device, as its own models; they stay until it needs the room.

    Args:
        networks: any; one that is named twice is loaded once.
        working: bytes that they will need for what they compute, where that is more than ComfyUI keeps free anyway.
    """
    patchers = [patcher_of(network) for network in dict.fromkeys(networks)]
    comfy.model_management.load_models_gpu(patchers, memory_required=working)
    yield comfy.model_management.get_torch_device()
