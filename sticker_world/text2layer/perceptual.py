"""LPIPS out of a file that the user has, because its weights are no part of any package."""

from pathlib import Path

import torch
from torch import Tensor

from ...core.text2layer.losses import Perceptual

SAVE = "torch.save(lpips.LPIPS(net='vgg').state_dict(), FILE)"


def load_lpips(path: Path, device: torch.device) -> Perceptual:
    """LPIPS with VGG (Zhang et al. 2018, arXiv 1801.03924).

    Args:
        path: the whole state of `lpips.LPIPS(net="vgg")`, which downloads it where it is made, saved by torch.save.
        device: where it computes.

    Raises:
        ValueError: the package lpips is not installed, or the file holds something else.
    """
    try:
        from lpips import LPIPS
    except ImportError as error:
        raise ValueError("--lpips needs the package lpips. Install it with: pip install lpips") from error
    network = LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # over damaged bytes the reader stumbles anywhere
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} does not hold the weights of LPIPS ({reason}). Make it with: {SAVE}") from error
    network = network.to(device).eval().requires_grad_(False)

    def distance(predicted: Tensor, true: Tensor) -> Tensor:
        return network(predicted * 2 - 1, true * 2 - 1).mean()

    return distance
