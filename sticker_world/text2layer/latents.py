"""Latents of layers, drawn and encoded once, for the U-Nets of Text2Layer and of those that it is measured against."""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor
from tqdm import tqdm

from ...core.text2layer.autoencoder import LayeredAutoencoder, compose
from ..checkpoint.autoencoder import LATENT_CHANNELS, Autoencoder
from ..checkpoint.diffusion import LATENT_SIZE
from ..training.fast_norm import use_fast_norms
from ..training.loop import pick_device
from ..world.dataset import TRAINING_SEED
from ..world.vocabulary import vocabulary
from .autoencoder import load_layered_autoencoder
from .samples import samples, to_tensors, worker_count

SCENES = 10_000
_CHUNK = 50
AHEAD = 4  # chunks that are drawn while another is encoded

Encode = Callable[[Tensor, Tensor, Tensor], Tensor]  # foreground, background, mask in 0..1 -> latent


@dataclass(frozen=True)
class Codec:
    """How a row of the table turns layers into a latent.

    Attributes:
        encode: foreground and background (b 3 H W), mask (b 1 H W) -> (b c h w) as it comes.
        channels: of the latent.
        one_by_one: whether single layers over what lies below them are encoded too, besides whole scenes.
    """

    encode: Encode
    channels: int = LATENT_CHANNELS
    one_by_one: bool = False


@dataclass(frozen=True)
class LatentSet:
    """Memory-mapped latents of scenes or of layers, as the autoencoder gives them.

    Attributes:
        latents: float16 (n c h w).
        masks: uint8 (n h w), share 0..255 of each cell that the foreground covers.
        rows: captions in the compact vocabulary (n 77).
        below: float16 (n c h w), latents of what lies below each layer, without a foreground; None for whole scenes.
    """

    latents: np.ndarray
    masks: np.ndarray
    rows: Tensor
    below: np.ndarray | None = None


@dataclass(frozen=True)
class LayeredLatents:
    """All latents of a codec.

    Attributes:
        whole: every scene, all its objects as the foreground.
        layers: one object of every scene over what lies below it; None where the codec is not asked for them.
        shift: mean over all values of the latents.
        scale: one over their standard deviation; a U-Net sees (z - shift) * scale.
    """

    whole: LatentSet
    layers: LatentSet | None
    shift: float
    scale: float

    def scaled(self, latents: np.ndarray) -> Tensor:
        """Some of the latents as a U-Net sees them, float32."""
        return (torch.from_numpy(latents).float() - self.shift) * self.scale


def layered_codec(part: str, weights: Mapping[str, Tensor], *, one_by_one: bool = False) -> Codec:
    """A trained `LayeredAutoencoder`'s; `part` is a key of `autoencoder.PARTS`."""
    model: LayeredAutoencoder = load_layered_autoencoder(part, weights)
    if pick_device().type == "cpu":
        use_fast_norms(model)
    return Codec(model.encode, model.config.latent_channels, one_by_one)


def stacked_codec(autoencoder: Autoencoder) -> Codec:
    """The paper's SD-AE-UNet: foreground, background and mask each through the stock autoencoder, then stacked."""

    def encode(foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        pictures = (foreground, background, repeat(mask, "b 1 h w -> b c h w", c=3))
        pictures = (picture.contiguous(memory_format=torch.channels_last) for picture in pictures)
        return torch.cat([autoencoder.encode(picture) for picture in pictures], 1)

    return Codec(encode, 3 * LATENT_CHANNELS)


def single_codec(autoencoder: Autoencoder) -> Codec:
    """One picture without layers, through the stock autoencoder."""

    def encode(foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        return autoencoder.encode(compose(foreground, background, mask).contiguous(memory_format=torch.channels_last))

    return Codec(encode)


def _draw_chunk(start: int, stop: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
    pairs = list(samples(TRAINING_SEED, start, stop))
    stacks = np.stack([np.stack([sample.stack() for sample in pair]) for pair in pairs], 1)
    return stacks, [(whole.caption, layer.caption) for whole, layer in pairs]


def _in_order(pool: Executor, chunks: Sequence[tuple[int, int]]) -> Iterator[tuple[np.ndarray, list[tuple[str, str]]]]:
    """Drawn chunks, a few of them ahead: encoding is slower than drawing, and all at once would fill the memory."""
    jobs = deque()
    for chunk in chunks:
        jobs.append(pool.submit(_draw_chunk, *chunk))
        if len(jobs) > AHEAD:
            yield jobs.popleft().result()
    while jobs:
        yield jobs.popleft().result()


@torch.no_grad()
def _encode(codec: Codec, stacks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Uint8 (n h w 7) -> latents and masks, see `LatentSet`."""
    foreground, background, mask = to_tensors(stacks)
    with torch.autocast(pick_device().type, torch.bfloat16):
        latents = codec.encode(foreground, background, mask)
    cells = F.adaptive_avg_pool2d(mask, latents.shape[-2:])[:, 0]
    return latents.float().cpu().numpy().astype(np.float16), (255 * cells).round().byte().cpu().numpy()


def _without_foreground(stacks: np.ndarray) -> np.ndarray:
    """What lies below alone, uint8 (n h w 7)."""
    alone = stacks.copy()
    alone[..., :3], alone[..., -1] = 0, 0
    return alone


def _moments(sets: list[np.ndarray]) -> tuple[float, float]:
    """Mean and standard deviation over all values."""
    mean = float(np.mean([latents.mean(dtype=np.float64) for latents in sets]))
    return mean, float(np.sqrt(np.mean([np.square(latents.astype(np.float32) - mean).mean() for latents in sets])))


def encode_layers(name: str, codec: Codec, folder: Path, scenes: int) -> LayeredLatents:
    """Open the latents of the first training scenes, or draw and encode what is not there yet.

    Args:
        name: of the codec and its weights; the latents are kept under it.
        codec: makes them.
        folder: keeps the arrays.
        scenes: how many.
    """
    folder.mkdir(parents=True, exist_ok=True)
    captions_file = folder / f"{name}-captions-{scenes}.json"  # as far as drawn; every chunk adds its own
    captions: list[list[str]] = json.loads(captions_file.read_text()) if captions_file.exists() else []
    latent, cells = (codec.channels, LATENT_SIZE, LATENT_SIZE), (LATENT_SIZE, LATENT_SIZE)
    shapes = {"whole": (latent, np.float16), "whole_masks": (cells, np.uint8)}
    if codec.one_by_one:
        shapes |= {"layer": (latent, np.float16), "below": (latent, np.float16), "layer_masks": (cells, np.uint8)}
    paths = {key: folder / f"{name}-{key}-{scenes}.npy" for key in shapes}
    if len(captions) < scenes:
        mode = "r+" if captions else "w+"
        arrays = {
            key: np.lib.format.open_memmap(paths[key], mode, dtype, (scenes, *shape))
            for key, (shape, dtype) in shapes.items()
        }
        starts = range(len(captions), scenes, _CHUNK)
        with ProcessPoolExecutor(worker_count()) as pool:
            drawn = _in_order(pool, [(start, min(start + _CHUNK, scenes)) for start in starts])
            bar = tqdm(drawn, f"{name} latents", -(-scenes // _CHUNK), initial=len(captions) // _CHUNK, mininterval=10)
            for (whole, layer), texts in bar:
                place = slice(len(captions), len(captions) + len(texts))
                arrays["whole"][place], arrays["whole_masks"][place] = _encode(codec, whole)
                if codec.one_by_one:
                    arrays["layer"][place], arrays["layer_masks"][place] = _encode(codec, layer)
                    arrays["below"][place], _ = _encode(codec, _without_foreground(layer))
                for array in arrays.values():
                    array.flush()
                captions += [list(pair) for pair in texts]
                unfinished = captions_file.with_suffix(".partial")
                unfinished.write_text(json.dumps(captions))
                unfinished.replace(captions_file)
    opened = {key: np.load(path, mmap_mode="r") for key, path in paths.items()}
    rows = [vocabulary().encode(list(texts)) for texts in zip(*captions, strict=True)]
    layers = None
    if codec.one_by_one:
        layers = LatentSet(opened["layer"], opened["layer_masks"], rows[1], opened["below"])
    mean, deviation = _moments([opened[key] for key in ("whole", "layer") if key in opened])
    return LayeredLatents(LatentSet(opened["whole"], opened["whole_masks"], rows[0]), layers, mean, 1 / deviation)


def take(data: LatentSet, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
    """Rows of captions (b 77) and masks (b 1 h w) in 0..1 of some of the latents."""
    masks = torch.from_numpy(data.masks[chosen]).float() / 255
    return data.rows[chosen].clone(), rearrange(masks, "b h w -> b 1 h w")
