"""Small CLIPs: pictures against captions, trained contrastively (Radford et al. 2021, arXiv 2103.00020)."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from ...core.clip.small_clip import SmallCLIP
from ..training.loop import pick_device, train
from ..world.concepts import CONCEPT_NAMES
from ..world.dataset import Scenes
from ..world.vocabulary import vocabulary

BATCH = 128
LARGEST_SCALE = math.log(100)
PATCH_WEIGHT = 2.0
THING_SCALE = 10.0  # of the embeddings before the head: unit vectors are small
THING_WEIGHT = 5.0  # of a thing that is there; most are not


@dataclass(frozen=True)
class Shape:
    """How large a small CLIP is, and what it is taught from.

    Attributes:
        size: pixels of a picture's side; divides the scenes' side.
        patch: pixels of a patch's side.
        width: of both towers and of the embedding.
        layers: of the picture tower, a ViT.
        text_layers: of the causal text tower.
        heads: of both.
        series: of the batches.
        seed: of the weights it begins with.
        name: of its files in the training folder.
    """

    size: int = 64
    patch: int = 8
    width: int = 96
    layers: int = 4
    text_layers: int = 2
    heads: int = 3
    series: int = 3
    seed: int = 0
    name: str = "clip"


SHIPPED = Shape()
SIZE, WIDTH = SHIPPED.size, SHIPPED.width


def make_clip(shape: Shape = SHIPPED) -> SmallCLIP:
    """Untrained, with the world's vocabulary."""
    end = len(vocabulary().token_ids)  # a row of its own behind the words: see SmallCLIP
    config = CLIPConfig(
        text_config={
            "vocab_size": end + 1,
            "hidden_size": shape.width,
            "intermediate_size": 4 * shape.width,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": shape.heads,
            "max_position_embeddings": 77,
            "bos_token_id": 1,
            "eos_token_id": end,
            "pad_token_id": end,
            "projection_dim": shape.width,
        },
        vision_config={
            "hidden_size": shape.width,
            "intermediate_size": 4 * shape.width,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "image_size": shape.size,
            "patch_size": shape.patch,
            "projection_dim": shape.width,
        },
        projection_dim=shape.width,
    )
    return SmallCLIP(CLIPModel(config), vocabulary())


def shrink(scenes: Scenes, size: int) -> np.ndarray:
    """All pictures at another size by exact area averaging: uint8 (n size size 3)."""
    small = np.empty((len(scenes), size, size, 3), np.uint8)
    for start in range(0, len(scenes), 500):
        images = scenes.images[start : start + 500].astype(np.float32)
        small[start : start + 500] = np.round(
            rearrange(images, "n (h a) (w b) c -> n h a w b c", h=size, w=size).mean((2, 4))
        )
    return small


def jitter(images: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Small zooms, shifts, noise and brightness: b 3 h w -> b 3 h w; labels b h w go where the pictures go."""
    n = len(images)
    zoom = torch.from_numpy(rng.uniform(0.85, 1.1, n)).float()
    shift = torch.from_numpy(rng.uniform(-0.08, 0.08, (n, 2))).float()
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(images.shape), align_corners=False).to(images.device)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    moved = F.grid_sample(labels[:, None].float(), grid, "nearest", padding_mode="reflection", align_corners=False)
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (n, 3, 1, 1))).float().to(images.device)
    noise = torch.from_numpy(rng.standard_normal(images.shape, np.float32)).to(images.device)
    strength = torch.from_numpy(rng.uniform(0, 0.06, (n, 1, 1, 1))).float().to(images.device)
    return (images * gain + strength * noise).clamp(0, 1), moved[:, 0].long()


class TaughtCLIP(nn.Module):
    """The CLIP with two heads that are only there for training, because captions alone teach a small world slowly.

    One says what lies in every patch, so that the picture tower learns what to look at. The other reads the things from
    the embeddings of pictures and of texts alike, each thing for itself, so that pairs never seen together add up.
    """

    def __init__(self, shape: Shape = SHIPPED) -> None:
        super().__init__()
        self.clip = make_clip(shape)
        self.patch_head = nn.Linear(shape.width, 1 + len(CONCEPT_NAMES))
        self.thing_head = nn.Linear(shape.width, len(CONCEPT_NAMES))

    def read_pictures(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures b 3 h w in 0..1 -> unit vectors (b d) and logits of what lies in each patch (b patches k)."""
        seen = self.clip.model.vision_model(pixel_values=images * 2 - 1)
        embedded = F.normalize(self.clip.model.visual_projection(seen.pooler_output), dim=-1)
        return embedded, self.patch_head(seen.last_hidden_state[:, 1:])

    def thing_loss(self, embedded: Tensor, things: Tensor) -> Tensor:
        """Cross-entropy of each thing being there: unit vectors (b d), things (b k) of 0 and 1."""
        logits = self.thing_head(THING_SCALE * embedded)
        return F.binary_cross_entropy_with_logits(logits, things, pos_weight=logits.new_tensor(THING_WEIGHT))


def patch_shares(labels: Tensor, patch: int) -> Tensor:
    """Share of every patch that each class covers: b h w -> b patches k."""
    classes = F.one_hot(labels, 1 + len(CONCEPT_NAMES)).float()
    return reduce(classes, "b (h r) (w s) k -> b (h w) k", "mean", r=patch, s=patch)


def train_clip(scenes: Scenes, folder: Path, steps: int, shape: Shape = SHIPPED) -> dict[str, Tensor]:
    """Train both towers; returns the averaged weights, the heads' among them."""
    device = pick_device()
    torch.manual_seed(shape.seed)
    taught = TaughtCLIP(shape).to(device)
    clip = taught.clip
    images, rows = shrink(scenes, shape.size), vocabulary().encode(scenes.captions)
    step_size = scenes.labels.shape[1] // shape.size
    labels = np.ascontiguousarray(scenes.labels[:, step_size // 2 :: step_size, step_size // 2 :: step_size])
    things = np.zeros((len(scenes), len(CONCEPT_NAMES)), np.float32)
    scene, thing = (scenes.concepts >= 0).nonzero()
    things[scene, scenes.concepts[scene, thing]] = 1
    longest = 2 + max(len(vocabulary().split(caption)) for caption in scenes.captions)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([shape.series, step])
        chosen = rng.integers(0, len(images), BATCH)
        pixels = rearrange(torch.from_numpy(images[chosen]).to(device), "b h w c -> b c h w").float() / 255
        pixels, there = jitter(pixels, torch.from_numpy(labels[chosen]).to(device), rng)
        # The end token is pooled and the tower is causal, so the padding behind the longest caption says nothing.
        words = rows[chosen, :longest].to(device)
        with torch.autocast(device.type, torch.bfloat16):
            (seen, patches), read = taught.read_pictures(pixels), clip.embed_rows(words)
        seen, read = seen.float(), read.float()
        scale = clip.model.logit_scale.clamp(max=LARGEST_SCALE).exp()
        logits = scale * seen @ read.T
        target = torch.arange(BATCH, device=device)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        parts = -(patch_shares(there, shape.patch) * patches.float().log_softmax(-1)).sum(-1).mean()
        asked = torch.from_numpy(things[chosen]).to(device)
        named = taught.thing_loss(seen, asked) + taught.thing_loss(read, asked)
        loss = contrast + PATCH_WEIGHT * parts + named
        return loss, {"loss": contrast.item(), "patches": parts.item(), "things": named.item()}

    return train(shape.name, taught, loss_of_step, folder=folder, steps=steps, peak_lr=1e-3, weight_decay=0.05)
