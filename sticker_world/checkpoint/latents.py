"""Latents of every training scene, cached on disk, and what the checkpoint must know about their scale and colour."""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..training.loop import pick_device
from ..training.prepared import fingerprint, prepare
from ..world.dataset import Scenes
from .autoencoder import LATENT_CHANNELS, Autoencoder
from .diffusion import LATENT_SIZE

BATCH = 8  # pictures in a pass; more of them no longer fit into a CPU's cache, and take longer each
ROWS = 256  # between two saves


@torch.no_grad()
def encode_scenes(
    scenes: Scenes, autoencoder: Autoencoder, folder: Path, scale: tuple[float, float] | None = None
) -> tuple[np.ndarray, tuple[float, float]]:
    """Encode every scene once.

    Args:
        scenes: the pictures.
        autoencoder: its encoder makes the latents.
        folder: keeps the raw output; rows that are there and were made by these weights are not made again.
        scale: mean and deviation of the raw output that the latents are brought to; None for these scenes' own.

    Returns:
        float16 (n 4 32 32) at zero mean and unit deviation over all, and that mean and deviation of the raw output.
    """
    device = pick_device()
    key = f"{fingerprint(autoencoder.state_dict())} {len(scenes)}"
    autoencoder = autoencoder.to(device, memory_format=torch.channels_last).eval()

    def encode(rows: range) -> np.ndarray:
        images = torch.from_numpy(scenes.images[rows.start : rows.stop]).to(device)
        images = rearrange(images, "b h w c -> b c h w").float() / 255
        with torch.autocast(device.type, torch.bfloat16):
            parts = images.contiguous(memory_format=torch.channels_last).split(BATCH)
            return torch.cat([autoencoder.encode(part).float() for part in parts]).cpu().numpy()

    shape = (len(scenes), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
    raw = prepare(folder / "latents.npy", key, shape, encode, rows_at_once=ROWS)
    mean, std = scale or (float(raw.mean(dtype=np.float64)), float(raw.std(dtype=np.float64)))
    latents = np.empty(shape, np.float16)
    for start in range(0, len(raw), ROWS):
        latents[start : start + ROWS] = (raw[start : start + ROWS].astype(np.float32) - mean) / std
    return latents, (mean, std)


def latent_colours(scenes: Scenes, latents: np.ndarray, number: int = 256) -> tuple[Tensor, Tensor]:
    """Least squares from unit-scale latents to the mean colour of their 8 x 8 pixels in -1..1, for previews.

    Returns:
        factors (4 3) and bias (3).
    """
    images = rearrange(
        torch.from_numpy(scenes.images[:number]).float() / 127.5 - 1, "n (h a) (w b) c -> n h w a b c", a=8, b=8
    )
    colours = images.mean((3, 4)).reshape(-1, 3)
    inputs = rearrange(torch.from_numpy(latents[:number]).float(), "n c h w -> (n h w) c")
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    solution = torch.linalg.lstsq(inputs, colours).solution
    return solution[:-1], solution[-1]
