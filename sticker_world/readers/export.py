"""From training weights to the shipped folders of CLIP and the segmenters: Hugging Face layout, fp16."""

import json
import shutil
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from ...core.clip.small_clip import VOCABULARY
from ..world.vocabulary import VOCABULARY_FILE
from .clip import SHIPPED, Shape, TaughtCLIP
from .segmenter import GENERAL, make_segmenter


def export_clip(weights: dict[str, Tensor], folder: Path, shape: Shape = SHIPPED) -> None:
    """Write a small CLIP as a Hugging Face folder with its vocabulary."""
    taught = TaughtCLIP(shape)
    taught.load_state_dict(weights)
    clip = taught.clip
    clip.model.half().save_pretrained(folder)
    shutil.copyfile(VOCABULARY_FILE, folder / VOCABULARY)


def export_segmenter(weights: dict[str, Tensor], folder: Path, part: str = GENERAL) -> None:
    """Write a segmenter as a Hugging Face folder, with the input size it was trained for."""
    write_segmenter(make_segmenter(part), weights, folder)


def write_segmenter(model: PreTrainedModel, weights: dict[str, Tensor], folder: Path) -> None:
    """Write any segmentation network with these weights, for pictures of 256 x 256 pixels."""
    model.load_state_dict(weights)
    model.half().save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "SegformerImageProcessor",
        "size": {"height": 256, "width": 256},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n", encoding="utf-8")
