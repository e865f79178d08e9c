"""What the trained parts can do on held-out scenes, measured without a host."""

from collections.abc import Callable

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..world.concepts import CANVAS, CONCEPT_NAMES
from ..world.dataset import TOKEN_GRID
from ..world.scene import Scene, make_scene
from ..world.vocabulary import vocabulary
from .autoencoder import Autoencoder
from .diffusion import MapRecorder, StickerDiffusion, noun_positions, scaled_linear_alphas

HELD_OUT_SEED = 7_001
ONE_TO_THREE = (0.0, 0.34, 0.33, 0.33)


def held_out_scenes(number: int, counts: tuple[float, ...] = ONE_TO_THREE) -> list[Scene]:
    """Scenes of combinations that training never shows."""
    return [make_scene(HELD_OUT_SEED, i, held_out=True, counts=counts) for i in range(number)]


def familiar_scenes(number: int) -> list[Scene]:
    """Scenes that training never shows, of combinations that it does show."""
    return [make_scene(HELD_OUT_SEED, i, held_out=False, counts=ONE_TO_THREE) for i in range(number)]


def pictures(scenes: list[Scene]) -> Tensor:
    """Pictures of scenes: (b 3 h w) in 0..1."""
    stacked = np.stack([scene.image for scene in scenes])
    return rearrange(torch.from_numpy(stacked), "b h w c -> b c h w").float() / 255


@torch.no_grad()
def autoencoder_psnr(autoencoder: Autoencoder, scenes: list[Scene]) -> float:
    """Mean PSNR in dB of whole pictures after encoding and decoding, clamped to 0..1."""
    images = pictures(scenes)
    outputs = torch.cat([autoencoder.decode(autoencoder.encode(part)) for part in images.split(8)]).clamp(0, 1)
    return float((-10 * torch.log10((outputs - images).square().mean((1, 2, 3)))).mean())


@torch.no_grad()
def word_map_hits(
    model: StickerDiffusion, encode: Callable[[Tensor], Tensor], scenes: list[Scene], timestep: int = 500, seed: int = 0
) -> tuple[int, int]:
    """How many nouns' cross-attention maps at 16 cells peak inside that noun's own visible mask.

    Args:
        model: the denoiser in diffusers' layout.
        encode: pictures (b 3 h w) in 0..1 -> unit-scale latents (b 4 h/8 w/8).
        scenes: real scenes; each is noised to `timestep` and shown with its own caption.
        timestep: 0..999.
        seed: of the noise.

    Returns:
        hits and nouns in all. A cell belongs to a mask that covers any part of it.
    """
    recorder = MapRecorder(TOKEN_GRID)
    model.unet.set_attn_processor(recorder)
    alpha = scaled_linear_alphas()[timestep]
    generator = torch.Generator().manual_seed(seed)
    hits = total = 0
    for scene in scenes:
        x0 = encode(pictures([scene]))
        noise = torch.randn(x0.shape, generator=generator)
        recorder.maps.clear()
        x = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        model(x, torch.tensor([timestep]), vocabulary().encode([scene.caption]))
        mean = torch.stack(recorder.maps).mean(0)[0]
        concepts = np.array([CONCEPT_NAMES.index(thing.concept) for thing in scene.objects])
        for thing, token in zip(scene.objects, noun_positions(scene.caption, concepts), strict=True):
            cell = CANVAS // TOKEN_GRID
            cover = thing.visible.reshape(TOKEN_GRID, cell, TOKEN_GRID, cell).max((1, 3)) > 0.5
            hits += bool(cover.flat[int(mean[:, token].argmax())])
            total += 1
    return hits, total
