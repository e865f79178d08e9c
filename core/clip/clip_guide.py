"""CLIP with both towers from local Hugging Face folders, differentiable in the picture (arXiv 2103.00020)."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError
from torch import Tensor, nn

from .small_clip import VOCABULARY, SmallCLIP
from .unread import unread_end
from .vocabulary import END_ROW

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIG, WEIGHTS, PICTURES = "config.json", "model.safetensors", "preprocessor_config.json"
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of the published CLIPs
SMALL_MEAN = SMALL_STD = (0.5, 0.5, 0.5)


class CLIPFileError(ValueError):
    """A folder that is no usable CLIP with both towers."""


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


def load_clip(folder: str | Path) -> CLIPGuide:
    """Open a CLIP folder in the Hugging Face layout: transformers' CLIPModel with its tokenizer, or a small CLIP.

    Nothing is downloaded and no pickle is opened. Weights are computed in float32 on the CPU.

    Raises:
        CLIPFileError: missing, damaged, or no CLIP with a text and a picture tower.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CLIPFileError(f"There is no CLIP {folder.name}: {folder} is missing. Choose another, or copy it there.")
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise CLIPFileError(f"The CLIP folder {folder.name} lacks {' and '.join(missing)}. Copy the whole folder.")
    with torch.inference_mode(False), torch.no_grad():  # weights made in inference mode could not be differentiated
        if (folder / VOCABULARY).is_file():
            return _load_small(folder)
        network = _load_network(folder)
        longest = network.config.text_config.max_position_embeddings
        return CLIPGuide(network, _load_tokenizer(folder, longest), *_read_normalisation(folder), folder.name)


def _load_small(folder: Path) -> CLIPGuide:
    try:
        small = SmallCLIP.load(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise CLIPFileError(
            f"The CLIP {folder.name} cannot be opened ({_first_line(error)}). Copy it again."
        ) from error
    end = small.model.config.text_config.eos_token_id

    def tokenise(texts: list[str]) -> dict[str, Tensor]:
        rows = small.vocabulary.encode(texts)
        return {"input_ids": rows.masked_fill(rows == END_ROW, end)}

    return CLIPGuide(small.model, tokenise, SMALL_MEAN, SMALL_STD, folder.name)


def _load_network(folder: Path) -> nn.Module:
    from transformers import CLIPModel  # slow to import, and only needed here

    kind = _read_json(folder / CONFIG).get("model_type")
    if kind != "clip":
        raise CLIPFileError(
            f"The folder {folder.name} holds no CLIP with both towers: its {CONFIG} is of {kind or 'something else'}; "
            "expected clip."
        )
    try:
        network, report = CLIPModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise CLIPFileError(
            f"The CLIP {folder.name} cannot be opened ({_first_line(error)}). Copy it again."
        ) from error
    # Old exports leave out what can be counted: which position is the how-manieth.
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("position_ids"))
    if missing:
        raise CLIPFileError(
            f"The CLIP {folder.name} lacks {len(missing)} weights, {missing[0]} first. Choose a whole CLIP's folder."
        )
    return network.float().eval().requires_grad_(False)


def _load_tokenizer(folder: Path, longest: int) -> Callable[[list[str]], Mapping[str, Tensor]]:
    from transformers import AutoTokenizer

    # Without its files transformers would make one that knows no words, and say nothing.
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
        raise CLIPFileError(
            f"The CLIP folder {folder.name} lacks its tokenizer. Copy tokenizer.json, or vocab.json and merges.txt, "
            "into it."
        )
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the package tokenizers raises nothing more special over damaged files
        raise CLIPFileError(
            f"The tokenizer of the CLIP {folder.name} cannot be opened ({_first_line(error)}). Copy its files again."
        ) from error

    def tokenise(texts: list[str]) -> Mapping[str, Tensor]:
        found = tokenizer(texts, padding=True, max_length=longest, truncation=True, return_tensors="pt")
        return {name: found[name] for name in ("input_ids", "attention_mask")}

    return tokenise


def _read_normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    path = folder / PICTURES
    found = _read_json(path) if path.is_file() else {}
    return tuple(found.get("image_mean", MEAN)), tuple(found.get("image_std", STD))


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CLIPFileError(
            f"{path.name} of the CLIP {path.parent.name} cannot be read ({error}). Copy it again."
        ) from error
    return content if isinstance(content, dict) else {}


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
