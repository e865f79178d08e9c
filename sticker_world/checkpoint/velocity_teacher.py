"""The U-Net's prediction in flow matching's terms: what it takes the picture to be at x = (1 - t) picture + t noise."""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..training.fast_norm import use_fast_norms
from .diffusion import StickerDiffusion, scaled_linear_alphas

# Times at which its answer is used: below, an error of the picture is an error of the velocity many times as large;
# above 0.936 is more noise than the U-Net was ever shown.
FIRST, LAST = 0.15, 0.93


class VelocityTeacher:
    """A trained U-Net with its own text encoder, frozen."""

    def __init__(self, weights: dict[str, Tensor], device: torch.device) -> None:
        self.model = StickerDiffusion()
        self.model.load_state_dict(weights)
        self.model.eval().requires_grad_(False).to(device)
        self.model.unet.to(memory_format=torch.channels_last)
        if device.type == "cpu":
            use_fast_norms(self.model.unet)
        alphas = scaled_linear_alphas().double()
        self._levels = torch.log(alphas / (1 - alphas)).flip(0).numpy()  # rising, of timesteps 999 to 0

    @torch.no_grad()
    def velocity(self, x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """Noise minus picture, as the U-Net sees it.

        Args:
            x: (b 4 h w).
            t: (b) from `FIRST` to `LAST`.
            rows: of the compact vocabulary (b 77).
        """
        level = 2 * torch.log((1 - t) / t)
        steps = np.interp(level.double().cpu().numpy(), self._levels, np.arange(len(self._levels))[::-1])
        t = rearrange(t, "b -> b 1 1 1")
        size = ((1 - t).square() + t.square()).sqrt()  # of x; the U-Net was shown inputs of unit size
        scaled = (x / size).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16):
            v = self.model(scaled, torch.from_numpy(steps).to(x.device).float(), rows).float()
        picture = ((1 - t) * scaled - t * v) / size
        return (x - picture) / t
