"""Latents of every training scene, cached on disk, and what the checkpoint must know about their scale and colour."""

import json
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from ..training.loop import pick_device
from ..world.dataset import Scenes
from .autoencoder import LATENT_CHANNELS, Autoencoder
from .diffusion import LATENT_SIZE

BATCH = 32


@torch.no_grad()
def encode_scenes(
    scenes: Scenes, autoencoder: Autoencoder, folder: Path, scale: tuple[float, float] | None = None
) -> tuple[np.ndarray, tuple[float, float]]:
    """Encode every scene once.

    Args:
        scenes: the pictures.
        autoencoder: its encoder makes the latents.
        folder: keeps `latents-<number of scenes>.npy` and `.json`; used as they are if they are there.
        scale: mean and deviation of the raw output that the latents are brought to; None for these scenes' own.

    Returns:
        float16 (n 4 32 32) at zero mean and unit deviation over all, and that mean and deviation of the raw output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, stats_path = (folder / f"latents-{len(scenes)}{ending}" for ending in (".npy", ".json"))
    if not stats_path.exists():
        device = pick_device()
        autoencoder = autoencoder.to(device, memory_format=torch.channels_last).eval()
        latents = np.empty((len(scenes), LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE), np.float16)
        for start in tqdm(range(0, len(scenes), BATCH), "latents", mininterval=10):
            images = torch.from_numpy(scenes.images[start : start + BATCH]).to(device)
            images = rearrange(images, "b h w c -> b c h w").float() / 255
            with torch.autocast(device.type, torch.bfloat16):
                encoded = autoencoder.encode(images.contiguous(memory_format=torch.channels_last))
            latents[start : start + BATCH] = encoded.float().cpu().numpy()
        mean, std = scale or (float(latents.mean(dtype=np.float64)), float(latents.std(dtype=np.float64)))
        for start in range(0, len(latents), 1000):
            part = latents[start : start + 1000].astype(np.float32)
            latents[start : start + 1000] = (part - mean) / std
        np.save(path, latents)
        stats_path.write_text(json.dumps({"mean": mean, "std": std}))
    stats = json.loads(stats_path.read_text())
    return np.load(path), (stats["mean"], stats["std"])


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
