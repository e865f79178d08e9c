"""The judging segmenter: UPerNet (Xiao et al. 2018, arXiv 1807.10221) on a small ResNet, which knows "something else".

Another architecture than the shipped segmenter (a SegFormer), other scenes, other first weights.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers import ResNetConfig, UperNetConfig, UperNetForSemanticSegmentation

from ....sticker_world.readers.segmenter import spoil
from ....sticker_world.training.loop import pick_device, train
from ....sticker_world.training.prepared import prepare
from ....sticker_world.world.concepts import CANVAS
from ....sticker_world.world.dataset import Scenes
from ...records.provenance import digest
from .distractors import FOLDER
from .pictures import CLASSES, draw

HERE = Path(__file__).parent.parent  # with the stickers
NAME = "judge_segmenter"
SERIES, SEED = 7_310, 7_311  # of the drawn pictures; of first weights and crops
DRAWN = 8_000
BATCH, CROP = 12, 192
STAGES = ["stage1", "stage2", "stage3", "stage4"]
ROWS_AT_ONCE = 100


def make_segmenter() -> UperNetForSemanticSegmentation:
    """Untrained; 0.7 M parameters."""
    widths, depths = [24, 48, 80, 112], [1, 1, 2, 1]
    backbone = ResNetConfig(
        embedding_size=widths[0], hidden_sizes=widths, depths=depths, layer_type="basic", out_features=STAGES
    )
    config = UperNetConfig(
        backbone_config=backbone,
        hidden_size=40,
        use_auxiliary_head=False,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: index for index, name in enumerate(CLASSES)},
    )
    return UperNetForSemanticSegmentation(config)


def open_pictures(folder: Path, number: int = DRAWN) -> np.ndarray:
    """Pictures and their labels, uint8 (n h w 4) with the label last; drawn first where they are missing."""

    def rows(indices: range) -> np.ndarray:
        made = [draw(np.random.default_rng([SERIES, index])) for index in indices]
        return np.stack([np.concatenate([each.image, each.labels[..., None]], -1) for each in made])

    shape = number, CANVAS, CANVAS, 4
    key = f"{SERIES} {number} {digest(_drawn_from(), HERE)}"  # other stickers or mixtures are other pictures
    return prepare(folder / f"{NAME}.npy", key, shape, rows, rows_at_once=ROWS_AT_ONCE, dtype=np.uint8)


def _drawn_from() -> list[Path]:
    return [
        *(HERE / "training" / f"{name}.py" for name in ("pictures", "mixtures", "distractors")),
        *FOLDER.rglob("*.webp"),
    ]


def train_segmenter(pictures: np.ndarray, scenes: Scenes, folder: Path, steps: int) -> dict[str, Tensor]:
    """Train on random, mirrored, damaged crops; returns the averaged weights.

    Half of them are of scenes with the world's things alone, which hide each other: without these a thing that is half
    hidden is taken for half a thing.

    Args:
        pictures: uint8 (n h w 4), see `open_pictures`.
        scenes: of the world alone.
        folder: of state and weights.
        steps: length of the schedule.
    """
    device = pick_device()
    torch.manual_seed(SEED)
    model = make_segmenter().to(device, memory_format=torch.channels_last).train()

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([SEED, step])
        crops = []
        for index, (y, x) in enumerate(rng.integers(0, CANVAS - CROP + 1, (BATCH, 2))):
            window = np.s_[y : y + CROP, x : x + CROP]
            if index < BATCH // 2:
                crop = pictures[rng.integers(len(pictures))][window]
            else:
                row = rng.integers(len(scenes))
                crop = np.concatenate([scenes.images[row][window], scenes.labels[row][window][..., None]], -1)
            crops.append(crop[:, :: rng.choice([-1, 1])])
        batch = torch.from_numpy(np.stack(crops)).to(device)
        labels = batch[:, 1::2, 1::2, 3].long()
        images = spoil(rearrange(batch[..., :3], "b h w c -> b c h w").float() / 255, rng)
        pixels = (images * 2 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            # The head alone: the whole model enlarges all classes to the picture's size first.
            logits = model.decode_head(model.backbone(pixels).feature_maps)
        logits = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear")
        loss = F.cross_entropy(logits, labels)
        right = logits.argmax(1) == labels
        other = labels == CLASSES.index(CLASSES[-1])
        things = (labels > 0) & ~other
        return loss, {
            "loss": loss.item(),
            "things": right[things].float().mean().item(),
            "other": right[other].float().mean().item(),
        }

    return train(NAME, model, loss_of_step, folder=folder, steps=steps, peak_lr=2e-3)
