"""CLIP with both towers from local Hugging Face folders, differentiable in the picture (arXiv 2103.00020)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..weights.folders import CONFIG, ModelFolder
from .small_clip import VOCABULARY, SmallCLIP, clip_folder, load_network
from .unread import unread_end
from .vocabulary import END_ROW

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of the published CLIPs
SMALL_MEAN = SMALL_STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class CLIPGuide:
    """Embeds texts and pictures on one sphere.

    Attributes:
        network: transformers' CLIPModel, frozen, in float32.
        tokenise: texts -> what the text tower takes, on the CPU.
        mean: per channel, taken off a picture.
        std: per channel, a picture is divided by it.
        name: for people.
    """

    network: nn.Module
    tokenise: Callable[[list[str]], Mapping[str, Tensor]]
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    name: str = "CLIP"

    @property
    def size(self) -> int:
        """Side of the pictures that it sees, in pixels."""
        return self.network.config.vision_config.image_size

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (b d) of texts."""
        with torch.no_grad():
            inputs = {name: each.to(self.network.device) for name, each in self.tokenise(list(texts)).items()}
            return F.normalize(self.network.text_projection(self.network.text_model(**inputs).pooler_output), dim=-1)

    def unread(self, text: str) -> str:
        """The end of a text that is beyond what the text tower reads, 77 tokens in the published CLIPs."""
        return unread_end(lambda part: self.tokenise([part])["input_ids"], text)

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """Unit vectors (b d) of pictures (b 3 size size) in 0..1, differentiably."""
        mean, std = (rearrange(pictures.new_tensor(each), "c -> c 1 1") for each in (self.mean, self.std))
        seen = self.network.vision_model(pixel_values=(pictures - mean) / std)
        return F.normalize(self.network.visual_projection(seen.pooler_output), dim=-1)


def load_clip(path: str | Path) -> CLIPGuide:
    """Open a CLIP folder in the Hugging Face layout: transformers' CLIPModel with its tokenizer, or a small CLIP.

    Nothing is downloaded and no pickle is opened. Weights are computed in float32 on the CPU.

    Raises:
        CLIPFileError: missing, damaged, or no CLIP with a text and a picture tower.
    """
    folder = clip_folder(path)
    folder.require(CONFIG)
    kind = folder.config.get("model_type")
    if kind != "clip":
        raise folder.refuse(
            f"holds no CLIP with both towers: its {CONFIG} is of {kind or 'something else'}. Choose the folder of a "
            "whole CLIP in Load CLIP Folder"
        )
    with torch.inference_mode(False), torch.no_grad():  # weights made in inference mode could not be differentiated
        if (folder.path / VOCABULARY).is_file():
            return _load_small(folder)
        network = load_network(folder)
        longest = network.config.text_config.max_position_embeddings
        settings = folder.pictures()
        mean, std = folder.colours(settings, "image_mean", MEAN), folder.colours(settings, "image_std", STD)
        return CLIPGuide(network, _load_tokenizer(folder, longest), mean, std, folder.path.name)


def _load_small(folder: ModelFolder) -> CLIPGuide:
    small = SmallCLIP.load(folder.path)
    end = small.model.config.text_config.eos_token_id

    def tokenise(texts: list[str]) -> dict[str, Tensor]:
        rows = small.vocabulary.encode(texts)
        return {"input_ids": rows.masked_fill(rows == END_ROW, end)}

    return CLIPGuide(small.model, tokenise, SMALL_MEAN, SMALL_STD, folder.path.name)


def _load_tokenizer(folder: ModelFolder, longest: int) -> Callable[[list[str]], Mapping[str, Tensor]]:
    tokenizer = folder.tokenizer()

    def tokenise(texts: list[str]) -> Mapping[str, Tensor]:
        found = tokenizer(texts, padding=True, max_length=longest, truncation=True, return_tensors="pt")
        return {name: found[name] for name in ("input_ids", "attention_mask")}

    return tokenise
