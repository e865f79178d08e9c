"""CLIP as a yardstick and a guide: unit embeddings of pictures and texts from a local Hugging Face folder."""

from pathlib import Path

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..drawing.resizing import resized
from ..weights.folders import CONFIG, WEIGHTS, ModelFolder, ModelFolderError
from .vocabulary import END_ROW, Vocabulary

VOCABULARY = "vocabulary.json"
NEEDED = (CONFIG, WEIGHTS, VOCABULARY)


class CLIPFileError(ModelFolderError):
    """A folder that is no usable CLIP, or none with the tower that is needed."""


def clip_folder(path: str | Path) -> ModelFolder:
    """The reader of a folder with a CLIP; it raises CLIPFileError."""
    return ModelFolder(Path(path), "CLIP", CLIPFileError)


def load_network(folder: ModelFolder) -> nn.Module:
    """Transformers' CLIPModel, with both towers.

    Raises:
        CLIPFileError: damaged, or no CLIPModel.
    """
    from transformers import CLIPModel  # slow to import, and only needed here

    return folder.network(lambda config: CLIPModel)


class SmallCLIP(nn.Module):
    """A small CLIP with a compact vocabulary.

    A folder holds transformers' `config.json` and `model.safetensors` and a `vocabulary.json` (word -> CLIP token id);
    the text table has the vocabulary's rows (`<unk>`, start, an unused one, the words) and then the end token, whose
    row `config.json` names as `eos_token_id`. It cannot be row 2 as in the vocabulary: transformers pools the text
    there, and takes a 2 for an old, wrong configuration, where it pools at the word of the highest row instead.
    """

    def __init__(self, model: nn.Module, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.model = model
        self.vocabulary = vocabulary

    @staticmethod
    def load(path: Path) -> "SmallCLIP":
        """Load from a local folder, never from the network; weights in fp32, eval mode, no gradients on weights.

        Raises:
            CLIPFileError: something of it is missing or damaged.
        """
        folder = clip_folder(path)
        folder.require(*NEEDED)
        words = folder.json(VOCABULARY)
        if not all(type(token) is int for token in words.values()):
            raise folder.refuse(f"has a {VOCABULARY} with other values than CLIP's token ids. Copy it again")
        return SmallCLIP(load_network(folder), Vocabulary(words))

    def embed_images(self, images: Tensor) -> Tensor:
        """Embed pictures, differentiably.

        Args:
            images: (b h w 3) in 0..1, any size; squeezed to the model's square.

        Returns:
            unit vectors (b d).
        """
        size = self.model.config.vision_config.image_size
        pixels = rearrange(images, "b h w c -> b c h w").float()
        pixels = resized(pixels, (size, size))
        vision = self.model.vision_model(pixel_values=pixels * 2 - 1)
        return F.normalize(self.model.visual_projection(vision.pooler_output), dim=-1)

    def embed_rows(self, rows: Tensor) -> Tensor:
        """Embed encoded texts: compact-vocabulary rows (b 77) -> unit vectors (b d)."""
        end = self.model.config.text_config.eos_token_id
        text = self.model.text_model(input_ids=rows.masked_fill(rows == END_ROW, end))
        return F.normalize(self.model.text_projection(text.pooler_output), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Embed texts: unit vectors (b d)."""
        return self.embed_rows(self.vocabulary.encode(texts).to(self.model.device))
