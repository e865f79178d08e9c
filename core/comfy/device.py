"""Networks that are no models of ComfyUI's own, such as segmenters, brought to its device while they work."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import comfy.model_management
import torch
from torch import nn


@contextmanager
def on_device(networks: Sequence[nn.Module], working: int = 0) -> Iterator[torch.device]:
    """Bring networks to ComfyUI's device for a while, making room there first; afterwards they go back.

    Args:
        networks: any; one that is named twice is moved once.
        working: bytes that they will need for what they compute, where that is more than ComfyUI keeps free anyway.
    """
    management = comfy.model_management
    device = management.get_torch_device()
    unique = list(dict.fromkeys(networks))
    before = [next(network.parameters()).device for network in unique]
    needed = sum(weight.numel() * weight.element_size() for network in unique for weight in network.parameters())
    if not management.is_device_cpu(device):
        management.free_memory(needed + max(working, management.minimum_inference_memory()), device)
    try:
        _move(unique, [device] * len(unique))
        yield device
    finally:
        _move(unique, before)


@torch.inference_mode(False)  # nodes run in it, and weights that are moved there could not be differentiated through
def _move(networks: Sequence[nn.Module], places: Sequence[torch.device]) -> None:
    for network, place in zip(networks, places, strict=True):
        network.to(place)
