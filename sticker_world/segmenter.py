"""The segmenter that judges pictures: a small SegFormer (Xie et al. 2021, arXiv 2105.15203) on exact labels."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from .concepts import CONCEPT_NAMES
from .dataset import Scenes
from .training import pick_device, train

BATCH = 12
CROP = 192


def make_segmenter() -> SegformerForSemanticSegmentation:
    """One class per concept and `background`; logits at a quarter of the input's size."""
    names = ("background", *CONCEPT_NAMES)
    config = SegformerConfig(
        hidden_sizes=[24, 40, 72, 96],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
        sr_ratios=[8, 4, 2, 1],
        mlp_ratios=[4, 4, 4, 4],
        decoder_hidden_size=96,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
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


def train_segmenter(scenes: Scenes, folder: Path, steps: int) -> dict[str, Tensor]:
    """Train on random crops with light damage; returns the averaged weights."""
    device = pick_device()
    torch.manual_seed(0)
    model = make_segmenter().to(device).train()

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([4, step])
        rows = rng.integers(0, len(scenes), BATCH)
        corners = rng.integers(0, scenes.images.shape[1] - CROP + 1, (BATCH, 2))
        windows = [np.s_[i, y : y + CROP, x : x + CROP] for i, (y, x) in zip(rows, corners, strict=True)]
        images = torch.from_numpy(np.stack([scenes.images[w] for w in windows])).to(device)
        labels = torch.from_numpy(np.stack([scenes.labels[w] for w in windows])).to(device)[:, ::2, ::2].long()
        images = spoil(rearrange(images, "b h w c -> b c h w").float() / 255, rng)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(pixel_values=images * 2 - 1).logits
        logits = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear")
        loss = F.cross_entropy(logits, labels)
        right = (logits.argmax(1) == labels)[labels > 0].float().mean()
        return loss, {"loss": loss.item(), "right": right.item()}

    return train("segmenter", model, loss_of_step, folder=folder, steps=steps, peak_lr=2e-3)
