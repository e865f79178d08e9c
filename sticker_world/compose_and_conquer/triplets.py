"""Triplets for depth disentanglement training: a picture, its foreground, and the background without it.

Compose and Conquer (Lee et al. 2024, arXiv 2401.09048) has to estimate them with a saliency model, an inpainting model
and a depth model. Here they are exact, the hidden parts included: of a scene's objects the nearest k are the
foreground, and the same scene without them is the background.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ...core.compose_and_conquer.depth_pair import GROUND, draw_planes, stretch
from ..checkpoint.autoencoder import LATENT_CHANNELS, Autoencoder
from ..checkpoint.diffusion import LATENT_SIZE
from ..readers.clip import SIZE, WIDTH, TaughtCLIP
from ..training.loop import pick_device
from ..world.concepts import CANVAS
from ..world.dataset import MOST_OBJECTS, TRAINING_SEED
from ..world.scene import Scene, make_scene
from ..world.vocabulary import vocabulary

ORDINARY, OVERLAPPING = 6_000, 10_000  # how many scenes of each kind
OVERLAPPING_SEED = 20_261
OVERLAPPING_COUNTS = (0.0, 0.0, 0.7, 0.3)
LEAST_HIDDEN = 0.15  # of an object in an overlapping scene; ordinary scenes show too few occlusions to learn from
LEAST_COVERED = 0.004  # share of the canvas where a foreground hides background objects, to count as an occlusion
OVERLAPPING_SHARE = 0.6  # of the triplets that training draws
WITHOUT_GROUND = 0.5  # share of background depths that show objects only, as a silhouette drawn by hand does
_CHUNK = 250


@dataclass(frozen=True)
class Triplets:
    """Memory-mapped triplets; the first `ordinary` are scenes of the common training set, the others overlap.

    Attributes:
        latents: float16 (n 4 h w) of the pictures.
        rows: the captions in the compact vocabulary (n 77).
        silhouettes: uint8 (n 3 H W/8), one bit a pixel: full masks, hidden parts included, in painter's order.
        disparities: float32 (n 3), the objects' planes, ascending; 0 where there is no object.
        covered: float32 (n 3), share of the canvas where the k nearest objects hide farther ones, at k - 1.
        embeddings: float16 (n 4 d), CLIP's projection of the picture without its k nearest objects, at k.
        ordinary: how many are ordinary scenes.
    """

    latents: np.ndarray
    rows: Tensor
    silhouettes: np.ndarray
    disparities: np.ndarray
    covered: np.ndarray
    embeddings: np.ndarray
    ordinary: int

    def __len__(self) -> int:
        return len(self.latents)

    def draw(self, rng: np.random.Generator, number: int) -> "TripletBatch":
        """Draw triplets: scenes that have an object, split at random, overlapping ones more often than they come."""
        overlapping = rng.uniform(size=number) < OVERLAPPING_SHARE
        chosen = [self._choose(rng, bool(wanted)) for wanted in overlapping]
        return self.take([c for c, _ in chosen], [k for _, k in chosen], rng.uniform(size=number) >= WITHOUT_GROUND)

    def _choose(self, rng: np.random.Generator, overlapping: bool) -> tuple[int, int]:
        """One scene, and how many of its objects are the foreground."""
        first, last = (self.ordinary, len(self)) if overlapping else (0, self.ordinary)
        while True:
            scene = int(rng.integers(first, last))
            splits = 1 + np.flatnonzero(self.covered[scene] >= LEAST_COVERED)
            if not overlapping:
                splits = np.arange(1, 1 + np.count_nonzero(self.disparities[scene]))
            if len(splits):
                return scene, int(rng.choice(splits))

    def take(self, scenes: list[int], nearest: list[int], ground: np.ndarray) -> "TripletBatch":
        """Give triplets by name.

        Args:
            scenes: their indices.
            nearest: how many of each scene's nearest objects are its foreground.
            ground: whether the background's depth shows the ground plane; an empty background always does.
        """
        masks = torch.from_numpy(np.unpackbits(self.silhouettes[scenes], axis=-1)).float()
        disparities = torch.from_numpy(self.disparities[scenes])
        present = (disparities > 0).sum(1)
        front = torch.arange(MOST_OBJECTS) >= (present - torch.tensor(nearest))[:, None]
        plane = GROUND * torch.from_numpy(np.asarray(ground)).float()
        empty = present == torch.tensor(nearest)
        fore, back = disparities * front, disparities * ~front
        split = front[:, :, None, None]
        foreground = (masks * split).amax(1, keepdim=True)
        index = np.arange(len(scenes))
        return TripletBatch(
            latents=torch.from_numpy(self.latents[scenes]).float(),
            rows=self.rows[scenes],
            foreground=stretch(draw_planes(masks, fore, torch.zeros(len(scenes)))),
            background=stretch(draw_planes(masks, back, plane.masked_fill(empty, GROUND))),
            whole=stretch(draw_planes(masks, disparities, plane)),
            mask=foreground,
            objects=masks.amax(1, keepdim=True),
            covered=foreground * (masks * ~split).amax(1, keepdim=True),
            foreground_look=torch.from_numpy(self.embeddings[scenes][:, 0]).float(),
            background_look=torch.from_numpy(self.embeddings[scenes][index, nearest]).float(),
        )


@dataclass(frozen=True)
class TripletBatch:
    """What a training step needs; depths, masks and areas are (b 1 H W) in 0..1.

    Attributes:
        latents: of the pictures (b 4 h w).
        rows: captions in the compact vocabulary (b 77).
        foreground: depth of the foreground alone.
        background: depth of the scene without its foreground, hidden parts included.
        whole: depth of the whole scene, as a control with a single depth sees it.
        mask: the foreground.
        objects: all objects together.
        covered: where the foreground hides objects of the background.
        foreground_look: CLIP's projection of the whole picture (b d); the paper's exemplar is not cut out.
        background_look: CLIP's projection of the background (b d).
    """

    latents: Tensor
    rows: Tensor
    foreground: Tensor
    background: Tensor
    whole: Tensor
    mask: Tensor
    objects: Tensor
    covered: Tensor
    foreground_look: Tensor
    background_look: Tensor


def without_nearest(scene: Scene) -> list[np.ndarray]:
    """Paint a scene without its k nearest objects, for every k from 0: uint8 (h w 3) each."""
    canvas = scene.backdrop.astype(np.float32)
    pictures = [scene.backdrop]
    for thing in scene.objects[:-1]:
        x0, y0, x1, y1 = (round(side * CANVAS) for side in thing.box)
        layer = thing.layer[y0:y1, x0:x1].astype(np.float32)
        canvas[y0:y1, x0:x1] += (layer[..., :3] - canvas[y0:y1, x0:x1]) * (layer[..., 3:] / 255)
        pictures.append(np.round(canvas).astype(np.uint8))
    return [scene.image, *reversed(pictures)] if scene.objects else pictures


def _draw_chunk(seed: int, start: int, stop: int) -> tuple:
    overlapping = seed == OVERLAPPING_SEED
    options = {"counts": OVERLAPPING_COUNTS, "least_hidden": LEAST_HIDDEN} if overlapping else {}
    number = stop - start
    silhouettes = np.zeros((number, MOST_OBJECTS, CANVAS, CANVAS // 8), np.uint8)
    disparities = np.zeros((number, MOST_OBJECTS), np.float32)
    covered = np.zeros((number, MOST_OBJECTS), np.float32)
    small = np.zeros((number, 1 + MOST_OBJECTS, SIZE, SIZE, 3), np.uint8)
    images, captions = [], []
    for row in range(number):
        scene = make_scene(seed, start + row, **options)
        masks = [thing.mask >= 0.5 for thing in scene.objects]
        for i, mask in enumerate(masks):
            silhouettes[row, i] = np.packbits(mask, axis=-1)
            disparities[row, i] = scene.objects[i].disparity
        for k in range(1, len(masks)):
            covered[row, k - 1] = (np.any(masks[-k:], 0) & np.any(masks[:-k], 0)).mean()
        for k, picture in enumerate(without_nearest(scene)):
            small[row, k] = Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        if overlapping:
            images.append(scene.image)
        captions.append(scene.caption)
    return silhouettes, disparities, covered, small, np.asarray(images), captions


@torch.no_grad()
def _embed(clip: TaughtCLIP, small: np.ndarray) -> np.ndarray:
    """CLIP's projections of pictures, not normalised: uint8 (n k h w 3) -> float16 (n k d), 0 where all is black."""
    there = small.any((2, 3, 4))
    pixels = rearrange(torch.from_numpy(small[there]), "n h w c -> n c h w").float() / 127.5 - 1
    model = clip.clip.model
    projected = np.zeros((*small.shape[:2], WIDTH), np.float16)
    projected[there] = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output).half().numpy()
    return projected


@torch.no_grad()
def _encode(autoencoder: Autoencoder, images: np.ndarray, stats: tuple[float, float]) -> np.ndarray:
    """Latents of pictures at the scale of the common ones: uint8 (n h w 3) -> float16 (n 4 h/8 w/8)."""
    device = pick_device()
    latents = []
    for part in np.array_split(images, max(1, len(images) // 25)):
        pixels = rearrange(torch.from_numpy(part).to(device), "b h w c -> b c h w").float() / 255
        with torch.autocast(device.type, torch.bfloat16):
            latents.append(autoencoder.encode(pixels.contiguous(memory_format=torch.channels_last)).float().cpu())
    mean, std = stats
    return ((torch.cat(latents) - mean) / std).half().numpy()


def open_triplets(
    folder: Path,
    latents: np.ndarray,
    stats: tuple[float, float],
    autoencoder: Autoencoder,
    clip: TaughtCLIP,
    ordinary: int,
    overlapping: int,
) -> Triplets:
    """Open the triplets in `folder`, drawing first what is not there (about 15 a second on one core).

    Args:
        folder: keeps the arrays.
        latents: of the common training scenes, in order; at least `ordinary` of them.
        stats: mean and deviation of the autoencoder's raw latents over the common scenes.
        autoencoder: encodes the overlapping scenes.
        clip: embeds the pictures.
        ordinary: how many of the common training scenes to use.
        overlapping: how many scenes with an occlusion to draw beside them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    number = ordinary + overlapping
    name = f"{ordinary}-{overlapping}"
    captions_file = folder / f"captions-{name}.json"  # as far as drawn; every chunk adds its own
    captions: list[str] = json.loads(captions_file.read_text()) if captions_file.exists() else []
    shapes = {
        "latents": ((number, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE), np.float16),
        "silhouettes": ((number, MOST_OBJECTS, CANVAS, CANVAS // 8), np.uint8),
        "disparities": ((number, MOST_OBJECTS), np.float32),
        "covered": ((number, MOST_OBJECTS), np.float32),
        "embeddings": ((number, 1 + MOST_OBJECTS, WIDTH), np.float16),
    }
    paths = {key: folder / f"{key}-{name}.npy" for key in shapes}
    if len(captions) < number:
        autoencoder = autoencoder.to(pick_device(), memory_format=torch.channels_last).eval()
        clip = clip.cpu().eval()
        mode = "r+" if captions else "w+"
        arrays = {
            key: np.lib.format.open_memmap(paths[key], mode, dtype, shape) for key, (shape, dtype) in shapes.items()
        }
        pieces = [(TRAINING_SEED, a, min(a + _CHUNK, ordinary)) for a in range(0, ordinary, _CHUNK)]
        pieces += [(OVERLAPPING_SEED, a, min(a + _CHUNK, overlapping)) for a in range(0, overlapping, _CHUNK)]
        places = [start + (ordinary if seed == OVERLAPPING_SEED else 0) for seed, start, _ in pieces]
        pieces = [piece for piece, place in zip(pieces, places, strict=True) if place >= len(captions)]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            drawn = pool.map(_draw_chunk, *zip(*pieces, strict=True))
            bar = tqdm(drawn, "triplets", len(places), initial=len(places) - len(pieces), mininterval=10)
            for (seed, start, stop), (silhouettes, disparities, covered, small, images, texts) in zip(
                pieces, bar, strict=True
            ):
                common = seed == TRAINING_SEED
                place = slice(len(captions), len(captions) + stop - start)
                arrays["latents"][place] = latents[start:stop] if common else _encode(autoencoder, images, stats)
                arrays["silhouettes"][place] = silhouettes
                arrays["disparities"][place] = disparities
                arrays["covered"][place] = covered
                arrays["embeddings"][place] = _embed(clip, small)
                for array in arrays.values():
                    array.flush()
                captions += texts
                captions_file.write_text(json.dumps(captions))
    opened = {key: np.load(path, mmap_mode="r") for key, path in paths.items()}
    return Triplets(rows=vocabulary().encode(captions), ordinary=ordinary, **opened)
