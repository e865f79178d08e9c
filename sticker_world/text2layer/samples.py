"""Scenes split into a foreground, a background and the mask between them, hidden parts included, with captions.

Text2Layer (Zhang et al. 2023, arXiv 2307.09781), section 3, has to estimate them with a saliency model and an
inpainting model. Here they are exact. Every scene gives two samples: all its objects before its backdrop, as the paper
splits a picture, and one of them before all that lies below it, as layers are added one by one.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from ..training.loop import pick_device
from ..world.captions import write_caption
from ..world.concepts import CANVAS
from ..world.dataset import TRAINING_SEED
from ..world.scene import Scene, make_scene

CHANNELS = 7  # foreground 3, background 3, mask 1
SAMPLES_OF_SCENE = 2
PICTURES = 3_000  # scenes whose layers are kept as pictures, for the autoencoder
AT_FOREGROUND = 0.7  # share of the crops around a pixel of the foreground; the others lie anywhere
WITHOUT_FOREGROUND = 0.06  # share of the crops that show a background alone, which is what a condition shows
_CHUNK = 50


@dataclass(frozen=True)
class LayeredSample:
    """Two layers and what they show.

    Attributes:
        foreground: straight colour, uint8 (h w 3), black where the mask is 0.
        background: uint8 (h w 3), complete behind the foreground.
        mask: uint8 (h w), 255 where the foreground is opaque.
        caption: of the composed picture.
    """

    foreground: np.ndarray
    background: np.ndarray
    mask: np.ndarray
    caption: str

    def stack(self) -> np.ndarray:
        """Uint8 (h w 7): foreground, background, mask."""
        return np.concatenate([self.foreground, self.background, self.mask[..., None]], axis=-1)


def split_scene(scene: Scene, first: int, last: int, caption: str) -> LayeredSample:
    """Take objects `first` to `last` - 1 as the foreground, those before them as part of the background.

    Objects from `last` on are left out.
    """
    background = scene.backdrop.astype(np.float32)
    for thing in scene.objects[:first]:
        alpha = thing.mask[..., None]
        background = thing.layer[..., :3] * alpha + background * (1 - alpha)
    colour, mask = np.zeros_like(background), np.zeros((*background.shape[:2], 1), np.float32)
    for thing in scene.objects[first:last]:
        alpha = thing.mask[..., None]
        colour = thing.layer[..., :3] * alpha + colour * (1 - alpha)
        mask = alpha + mask * (1 - alpha)
    colour = np.where(mask > 0, colour / np.maximum(mask, 1e-3), 0)
    pictures = (np.round(np.clip(x, 0, 255)).astype(np.uint8) for x in (colour, background, 255 * mask[..., 0]))
    return LayeredSample(*pictures, caption)


def whole_sample(scene: Scene) -> LayeredSample:
    """The paper's split: every object of the scene before its backdrop."""
    return split_scene(scene, 0, len(scene.objects), scene.caption)


def layer_sample(scene: Scene, rng: np.random.Generator) -> LayeredSample:
    """One object before all that lies below it, by a caption that names it alone; the backdrop if there is none."""
    if not scene.objects:
        return whole_sample(scene)
    k = int(rng.integers(len(scene.objects)))
    return split_scene(scene, k, k + 1, write_caption([scene.objects[k].concept], scene.background, None, rng))


def samples(seed: int, start: int, stop: int) -> Iterator[tuple[LayeredSample, LayeredSample]]:
    """Both samples of every scene of a series, see `whole_sample` and `layer_sample`."""
    for index in range(start, stop):
        scene = make_scene(seed, index)
        yield whole_sample(scene), layer_sample(scene, np.random.default_rng([seed, index, 1]))


def _draw_chunk(start: int, stop: int) -> np.ndarray:
    return np.stack([sample.stack() for pair in samples(TRAINING_SEED, start, stop) for sample in pair])


def worker_count() -> int | None:
    """Processes that draw: as many as there are processors for this one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def open_layers(folder: Path, scenes: int) -> np.ndarray:
    """Open the layers of the first training scenes, drawn if need be (about 50 scenes a second).

    Returns:
        uint8 (n h w 7), memory-mapped, two samples of every scene.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"layers-{scenes}.npy"
    if not path.exists():
        partial = path.with_suffix(".partial")
        shape = (SAMPLES_OF_SCENE * scenes, CANVAS, CANVAS, CHANNELS)
        array = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        starts = range(0, scenes, _CHUNK)
        with ProcessPoolExecutor(worker_count()) as pool:
            jobs = pool.map(_draw_chunk, starts, [min(start + _CHUNK, scenes) for start in starts])
            for start, drawn in zip(starts, tqdm(jobs, "layers", len(starts), mininterval=10), strict=True):
                array[SAMPLES_OF_SCENE * start : SAMPLES_OF_SCENE * start + len(drawn)] = drawn
        array.flush()
        os.replace(partial, path)
    return np.load(path, mmap_mode="r")


def to_tensors(stacks: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Uint8 (b h w 7) -> foreground (b 3 h w), background (b 3 h w) and mask (b 1 h w) in 0..1, channels last."""
    layers = rearrange(torch.from_numpy(stacks).to(pick_device()), "b h w c -> b c h w").float() / 255
    return tuple(x.contiguous(memory_format=torch.channels_last) for x in layers.split((3, 3, 1), 1))


def draw_crops(layers: np.ndarray, rng: np.random.Generator, number: int, size: int) -> np.ndarray:
    """Random crops, mirrored half of the time: (n h w 7) -> (number size size 7)."""
    crops = []
    for row in rng.integers(0, len(layers), number):
        top, left = rng.integers(0, layers.shape[1] - size + 1, 2)
        layer = layers[row]
        if rng.uniform() < AT_FOREGROUND and len(found := np.argwhere(layer[::4, ::4, -1] > 127)):
            centre = 4 * found[rng.integers(len(found))] - rng.integers(0, size, 2)
            top, left = np.clip(centre, 0, np.array(layer.shape[:2]) - size)
        crop = layer[top : top + size, left : left + size].copy()
        if rng.uniform() < WITHOUT_FOREGROUND:
            crop[..., :3], crop[..., -1] = 0, 0
        crops.append(crop[:, ::-1] if rng.uniform() < 0.5 else crop)
    return np.stack(crops)
