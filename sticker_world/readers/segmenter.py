"""Small SegFormers (Xie et al. 2021, arXiv 2105.15203) on exact labels: one for everything, and two specialists.

The general one knows every concept. The specialists know a part of the world each, so that several can guide one
picture: one the animals, one the other things and the places behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from ..training.loop import pick_device, train
from ..world.concepts import BACKGROUNDS, CONCEPT_NAMES, EMPTY_CAPTIONS
from ..world.dataset import Scenes

BATCH = 12
CROP = 192
GENERAL = "segmenter"
ANIMALS = ("dog", "cat", "panda", "pig", "frog", "rabbit", "penguin", "duck")
# Plain grounds are called so that "a blue rabbit" does not name one.
PLACES = {name: f"{name} background" if name in ("blue", "pink") else name for name in BACKGROUNDS}
MIXED = 0.5  # share of the steps in which pictures with places are put together of two


@dataclass(frozen=True)
class Seen:
    """What a segmenter is trained to see.

    Attributes:
        concepts: its things; all others are background to it.
        series: of the random crops.
        widths: channels of the four stages.
        decoder: channels of the decoder.
        places: whether it tells the places behind the things apart; its background are then the other things.
    """

    concepts: tuple[str, ...]
    series: int
    widths: tuple[int, int, int, int]
    decoder: int
    places: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes, `background` first."""
        return ("background", *self.concepts, *(PLACES.values() if self.places else ()))

    def relabel(self, labels: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Its own labels of scenes.

        Args:
            labels: uint8 (b h w), 0 behind all things, else 1 + the concept's index.
            places: int (b), index in `PLACES` of each picture; not used without places.
        """
        table = np.zeros(1 + len(CONCEPT_NAMES), np.uint8)
        for index, concept in enumerate(self.concepts, 1):
            table[1 + CONCEPT_NAMES.index(concept)] = index
        own = table[labels]
        if self.places:
            own = np.where(labels == 0, (1 + len(self.concepts) + places)[:, None, None].astype(np.uint8), own)
        return own


PARTS: dict[str, Seen] = {
    GENERAL: Seen(CONCEPT_NAMES, 4, (24, 40, 72, 96), 96),
    "segmenter_animals": Seen(ANIMALS, 11, (16, 32, 48, 64), 64),
    "segmenter_things": Seen(
        tuple(name for name in CONCEPT_NAMES if name not in ANIMALS), 12, (16, 32, 64, 96), 64, places=True
    ),
}


def make_segmenter(part: str = GENERAL) -> SegformerForSemanticSegmentation:
    """Untrained; logits at a quarter of the input's size."""
    seen = PARTS[part]
    config = SegformerConfig(
        hidden_sizes=list(seen.widths),
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4] if part == GENERAL else [1, 2, 2, 4],
        sr_ratios=[8, 4, 2, 1],
        mlp_ratios=[4, 4, 4, 4],
        decoder_hidden_size=seen.decoder,
        id2label=dict(enumerate(seen.classes)),
        label2id={name: i for i, name in enumerate(seen.classes)},
        classifier_dropout_prob=0.0,
        drop_path_rate=0.0,
    )
    return SegformerForSemanticSegmentation(config)


def spoil(images: Tensor, rng: np.random.Generator) -> Tensor:
    """What generated pictures suffer from: blur, noise, shifted colours. b 3 h w in 0..1 -> the same."""
    n = len(images)
    size = images.shape[-1]
    factor = rng.uniform(1.0, 3.0)
    if factor > 1.3:
        small = F.interpolate(images, (int(size / factor),) * 2, mode="bilinear", antialias=True)
        blurred = F.interpolate(small, (size, size), mode="bicubic")
        keep = torch.from_numpy(rng.uniform(0, 1, (n, 1, 1, 1))).float().to(images.device)
        images = keep * images + (1 - keep) * blurred
    gain = torch.from_numpy(rng.uniform(0.88, 1.12, (n, 3, 1, 1))).float().to(images.device)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(int(rng.integers(2**31))))
    strength = torch.from_numpy(rng.uniform(0, 0.06, (n, 1, 1, 1))).float()
    return (images * gain + (strength * noise).to(images.device)).clamp(0, 1)


def places_of(captions: Sequence[str]) -> np.ndarray:
    """Index in `PLACES` of the place that each caption ends with, -1 where it leaves the place open: int (n)."""
    ends = {end: index for index, name in enumerate(BACKGROUNDS) for end in (*BACKGROUNDS[name], EMPTY_CAPTIONS[name])}
    found = np.full(len(captions), -1)
    for row, caption in enumerate(captions):
        found[row] = next((index for end, index in ends.items() if caption.endswith(end)), -1)
    return found


def mix(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lay a part of the next picture over each (b h w ...): places are then to be told by what they look like there."""
    start, end = np.sort(rng.integers(0, CROP + 1, 2))
    part = (slice(None), slice(start, end)) if rng.uniform() < 0.5 else (slice(None), slice(None), slice(start, end))
    images, labels = images.copy(), labels.copy()
    images[part], labels[part] = np.roll(images, 1, 0)[part], np.roll(labels, 1, 0)[part]
    return images, labels


def train_segmenter(scenes: Scenes, folder: Path, steps: int, part: str = GENERAL) -> dict[str, Tensor]:
    """Train one of `PARTS` on random crops with light damage; returns the averaged weights."""
    device = pick_device()
    torch.manual_seed(0)
    model, seen = make_segmenter(part).to(device).train(), PARTS[part]
    places = places_of(scenes.captions)
    usable = np.flatnonzero(places >= 0) if seen.places else np.arange(len(scenes))

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seen.series, step])
        rows = usable[rng.integers(0, len(usable), BATCH)]
        corners = rng.integers(0, scenes.images.shape[1] - CROP + 1, (BATCH, 2))
        windows = [np.s_[i, y : y + CROP, x : x + CROP] for i, (y, x) in zip(rows, corners, strict=True)]
        pixels = np.stack([scenes.images[w] for w in windows])
        own = seen.relabel(np.stack([scenes.labels[w] for w in windows]), places[rows])
        if seen.places and rng.uniform() < MIXED:
            pixels, own = mix(pixels, own, rng)
        images, labels = torch.from_numpy(pixels).to(device), torch.from_numpy(own).to(device)[:, ::2, ::2].long()
        images = spoil(rearrange(images, "b h w c -> b c h w").float() / 255, rng)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(pixel_values=images * 2 - 1).logits
        logits = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear")
        loss = F.cross_entropy(logits, labels)
        right = (logits.argmax(1) == labels)[labels > 0].float().mean()
        return loss, {"loss": loss.item(), "right": right.item()}

    return train(part, model, loss_of_step, folder=folder, steps=steps, peak_lr=2e-3)
