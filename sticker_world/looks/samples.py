"""Scenes whose stickers wear a look, as the training of its LoRA reads them."""

import itertools
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..checkpoint.autoencoder import LATENT_CHANNELS, Autoencoder
from ..checkpoint.diffusion import LATENT_SIZE
from ..checkpoint.shipped_weights import latent_scale, shipped_average
from ..shipped import CHECKPOINT_FILE
from ..training.loop import pick_device
from ..training.prepared import prepare
from ..world.scene import Scene, make_scene
from ..world.vocabulary import vocabulary
from .drawing import LOOKS, in_look

SERIES = 20_263  # of the scenes, as `make_scene` numbers them; no other model was trained on it
SCENES = 480
LEAST = 0.36  # a sticker's longer side over the canvas: a smaller one has too few blocks
COUNTS = (0.03, 0.62, 0.35)  # how often a scene has 0, 1, 2 stickers: a region's branch paints one
ROWS, AT_ONCE = 40, 8  # between two saves; pictures in a pass, see `checkpoint.latents`
SAMPLE = np.dtype(
    [
        ("latent", np.float16, (LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)),
        ("mask", np.uint8, (LATENT_SIZE, LATENT_SIZE)),
        ("rows", np.int32, (77,)),
    ]
)


def open_samples(folder: Path, look: str, number: int = SCENES) -> np.ndarray:
    """Latents at unit scale, the stickers' share of every cell in 0..255, and captions in the compact vocabulary.

    Args:
        folder: keeps them; what is there is not drawn again.
        look: a key of `LOOKS`.
        number: how many scenes.

    Returns:
        `SAMPLE` (n), memory-mapped.
    """
    device, cell = pick_device(), 8
    # At its own width: the file's, padded with zeros, takes ten times as long.
    autoencoder = Autoencoder()
    autoencoder.load_state_dict(shipped_average("autoencoder"))
    autoencoder = autoencoder.to(device, memory_format=torch.channels_last).eval()
    scale, shift = latent_scale(CHECKPOINT_FILE)

    def encode(pictures: list[np.ndarray]) -> np.ndarray:
        batch = rearrange(torch.from_numpy(np.stack(pictures)), "b h w c -> b c h w").to(device).float() / 255
        with torch.autocast(device.type, torch.bfloat16):
            raw = autoencoder.encode(batch.contiguous(memory_format=torch.channels_last)).float()
        return (raw / scale + shift).cpu().numpy()

    @torch.no_grad()
    def draw(rows: range) -> np.ndarray:
        made, pictures = np.empty(len(rows), SAMPLE), []
        for row, index in zip(made, rows, strict=True):
            scene = _large_scene(index)
            pictures.append(in_look(scene, LOOKS[look]))
            seen = sum((thing.visible for thing in scene.objects), np.zeros(scene.image.shape[:2], np.float32))
            cells = seen.reshape(LATENT_SIZE, cell, LATENT_SIZE, cell).mean((1, 3))
            row["mask"] = np.round(255 * np.clip(cells, 0, 1))
            row["rows"] = vocabulary().encode([scene.caption])[0].numpy()
        made["latent"] = np.concatenate(
            [encode(pictures[start : start + AT_ONCE]) for start in range(0, len(rows), AT_ONCE)]
        )
        return made

    return prepare(folder / f"{look}.npy", f"{SERIES} {number}", (number,), draw, rows_at_once=ROWS, dtype=SAMPLE)


def _large_scene(index: int) -> Scene:
    """Scene of a row: the first of its own part of the series whose stickers are all large enough to show a look."""
    for attempt in itertools.count():
        scene = make_scene(SERIES, index * 1000 + attempt, counts=COUNTS)
        if all(max(x1 - x0, y1 - y0) >= LEAST for x0, y0, x1, y1 in (thing.box for thing in scene.objects)):
            return scene


def batch_of(samples: np.ndarray, chosen: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Latents float32 (b 4 h w), stickers' share of every cell in 0..1 (b 1 h w), captions (b 77)."""
    picked = samples[np.sort(chosen)]
    masks = torch.from_numpy(picked["mask"].astype(np.float32) / 255)[:, None]
    return torch.from_numpy(picked["latent"].astype(np.float32)), masks, torch.from_numpy(picked["rows"]).long()
