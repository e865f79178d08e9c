"""The small CLIP: pictures at 64 px against captions, trained contrastively (Radford et al. 2021, arXiv 2103.00020)."""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from ..core.clip import SmallCLIP
from .dataset import Scenes
from .training import pick_device, train
from .vocabulary import vocabulary

SIZE, PATCH, WIDTH = 64, 8, 96
BATCH = 128
LARGEST_SCALE = math.log(100)


def make_clip() -> SmallCLIP:
    """A ViT of 4 layers on 64 px with patches of 8, and a causal text tower of 2 layers, both 96 wide."""
    config = CLIPConfig(
        text_config={
            "vocab_size": len(vocabulary().token_ids), "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 77,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "projection_dim": WIDTH,
        },
        vision_config={
            "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 4, "num_attention_heads": 3,
            "image_size": SIZE, "patch_size": PATCH, "projection_dim": WIDTH,
        },
        projection_dim=WIDTH,
    )  # fmt: skip
    return SmallCLIP(CLIPModel(config), vocabulary())


def shrink(scenes: Scenes) -> np.ndarray:
    """All pictures at 64 px by exact area averaging: uint8 (n 64 64 3)."""
    small = np.empty((len(scenes), SIZE, SIZE, 3), np.uint8)
    for start in range(0, len(scenes), 500):
        images = scenes.images[start : start + 500].astype(np.float32)
        small[start : start + 500] = np.round(
            rearrange(images, "n (h a) (w b) c -> n h a w b c", h=SIZE, w=SIZE).mean((2, 4))
        )
    return small


def jitter(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Small zooms, shifts, noise and brightness: b 3 h w -> b 3 h w."""
    n = len(images)
    zoom = torch.from_numpy(rng.uniform(0.85, 1.1, n)).float()
    shift = torch.from_numpy(rng.uniform(-0.08, 0.08, (n, 2))).float()
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False).to(images.device)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (n, 3, 1, 1))).float().to(images.device)
    noise = torch.from_numpy(rng.standard_normal(images.shape, np.float32)).to(images.device)
    strength = torch.from_numpy(rng.uniform(0, 0.06, (n, 1, 1, 1))).float().to(images.device)
    return (images * gain + strength * noise).clamp(0, 1)


def train_clip(scenes: Scenes, folder: Path, steps: int) -> dict[str, Tensor]:
    """Train both towers; returns the averaged weights."""
    device = pick_device()
    torch.manual_seed(0)
    clip = make_clip().to(device)
    images, rows = shrink(scenes), vocabulary().encode(scenes.captions)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([3, step])
        chosen = rng.integers(0, len(images), BATCH)
        pixels = rearrange(torch.from_numpy(images[chosen]).to(device), "b h w c -> b c h w").float() / 255
        pixels = rearrange(jitter(pixels, rng), "b c h w -> b h w c")
        scale = clip.model.logit_scale.clamp(max=LARGEST_SCALE).exp()
        logits = scale * clip.embed_images(pixels) @ clip.embed_rows(rows[chosen].to(device)).T
        target = torch.arange(BATCH, device=device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return loss, {"loss": loss.item(), "top1": (logits.argmax(1) == target).float().mean().item()}

    return train("clip", clip, loss_of_step, folder=folder, steps=steps, peak_lr=1e-3, weight_decay=0.05)
