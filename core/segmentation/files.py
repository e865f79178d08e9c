"""Opening a segmentation model from a local Hugging Face folder, whichever of the three kinds it is."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIDE = 256  # pixels; used where the folder has no preprocessor_config.json
MEAN = STD = (0.5, 0.5, 0.5)
SEMANTIC, QUERIES, PHRASES = "semantic", "queries", "phrases"
KINDS = {"mask2former": QUERIES, "maskformer": QUERIES, "clipseg": PHRASES}  # by model_type; all others: semantic
# Some exports leave these out: BatchNorm's step counters and what only a loss in training reads.
UNUSED = ("num_batches_tracked", "criterion.empty_weight", "position_ids")


class SegmenterError(ValueError):
    """A folder that is not a usable segmenter, or a phrase that it has no class for."""


@dataclass(frozen=True)
class Opened:
    """What a segmenter's folder holds.

    Attributes:
        kind: `SEMANTIC`, `QUERIES` or `PHRASES`.
        network: transformers' model in float32, eval mode, no gradients on weights.
        names: of its classes; none for a model that takes phrases.
        tokenizer: of a model that takes phrases, else None.
        size: (height, width) in pixels that it sees.
        mean: per channel.
        std: per channel.
    """

    kind: str
    network: nn.Module
    names: tuple[str, ...]
    tokenizer: "PreTrainedTokenizerBase | None"
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def open_folder(folder: Path) -> Opened:
    """Open a folder with config.json and safetensors weights.

    Raises:
        SegmenterError: the folder, one of its files, its class names or its weights are missing or unusable.
    """
    _require_files(folder)
    config = _read_json(folder / "config.json")
    kind = KINDS.get(config.get("model_type"), SEMANTIC)
    names = () if kind == PHRASES else _read_names(config, folder)
    size, mean, std = _read_preprocessing(folder)
    network = _load_network(folder, kind).float().eval().requires_grad_(False)
    return Opened(kind, network, names, _load_tokenizer(folder) if kind == PHRASES else None, size, mean, std)


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        raise SegmenterError(f"there is no segmenter folder {folder}")
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors (pickled weights such as pytorch_model.bin are not opened)")
    if missing:
        raise SegmenterError(
            f"the segmenter folder {folder} lacks {' and '.join(missing)}. It must hold a segmentation model in the "
            "Hugging Face layout: a semantic one such as SegFormer, Mask2Former, MaskFormer or CLIPSeg."
        )


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SegmenterError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise SegmenterError(f"{path} does not hold a JSON object")
    return content


def _read_names(config: dict, folder: Path) -> tuple[str, ...]:
    names = config.get("id2label")
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))} or not names:
        raise SegmenterError(f"{folder / 'config.json'} has no id2label with a name for every class 0, 1, 2, ...")
    return tuple(str(names[str(i)]) for i in range(len(names)))


def _load_network(folder: Path, kind: str) -> nn.Module:
    import transformers  # slow to import, and only needed here

    classes = {
        SEMANTIC: transformers.AutoModelForSemanticSegmentation,
        QUERIES: transformers.AutoModelForUniversalSegmentation,
        PHRASES: transformers.CLIPSegForImageSegmentation,
    }
    try:
        network, report = classes[kind].from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise SegmenterError(f"the segmenter in {folder} cannot be opened: {error}") from error
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(UNUSED))
    if missing:
        raise SegmenterError(f"the weights in {folder} lack {len(missing)} tensors, the first of them {missing[0]}")
    return network


def _load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise SegmenterError(
            f"the segmenter folder {folder} lacks its tokenizer: tokenizer.json, or vocab.json and merges.txt. A model "
            "that takes phrases cannot read them without it."
        )
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # the package tokenizers raises nothing more special over damaged files
        raise SegmenterError(f"the tokenizer in {folder} cannot be opened: {error}") from error


def _read_preprocessing(folder: Path) -> tuple[tuple[int, int], tuple[float, ...], tuple[float, ...]]:
    """Size, mean and std from the folder's preprocessor settings, or the embedded segmenter's."""
    config = _preprocessor(folder)
    if config is None:
        return (SIDE, SIDE), MEAN, STD
    if config.get("do_flip_channel_order"):
        raise SegmenterError(
            f"the segmenter in {folder} wants blue before red (do_flip_channel_order), as MobileViT does, which is not "
            "supported. Choose another, such as a SegFormer."
        )
    size = config.get("size", SIDE)
    if isinstance(size, dict):
        side = size.get("shortest_edge", SIDE)
        size = (size.get("height", side), size.get("width", side))
    else:
        size = (size, size)
    mean, std = config.get("image_mean", MEAN), config.get("image_std", STD)
    if not config.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return (int(size[0]), int(size[1])), tuple(map(float, mean)), tuple(map(float, std))


def _preprocessor(folder: Path) -> dict | None:
    """The image processor's settings, which newer exports keep inside the whole processor's."""
    if (path := folder / "preprocessor_config.json").is_file():
        return _read_json(path)
    if (path := folder / "processor_config.json").is_file():
        return _read_json(path).get("image_processor")
    return None
