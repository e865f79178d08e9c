"""Opening a segmentation model from a local Hugging Face folder, whichever of the three kinds it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from ..weights.folders import CONFIG, ModelFolder, ModelFolderError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

SIDE = 256  # pixels; used where the folder has no preprocessor_config.json
MEAN = STD = (0.5, 0.5, 0.5)
SEMANTIC, QUERIES, PHRASES = "semantic", "queries", "phrases"
KINDS = {"mask2former": QUERIES, "maskformer": QUERIES, "clipseg": PHRASES}  # by model_type; all others: semantic
# Some exports leave these out: BatchNorm's step counters and what only a loss in training reads.
UNUSED = ("num_batches_tracked", "criterion.empty_weight")


class SegmenterError(ModelFolderError):
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


def open_folder(path: Path) -> Opened:
    """Open a folder with config.json and safetensors weights.

    Raises:
        SegmenterError: the folder, one of its files, its class names or its weights are missing or unusable.
    """
    folder = ModelFolder(path, "segmenter", SegmenterError)
    folder.require_model()
    kind = KINDS.get(str(folder.config.get("model_type")), SEMANTIC)
    names = () if kind == PHRASES else _read_names(folder)
    size, mean, std = _read_preprocessing(folder)

    def class_of(config: "PreTrainedConfig") -> type[nn.Module]:
        import transformers  # slow to import, and only needed here

        if kind == PHRASES:
            return transformers.CLIPSegForImageSegmentation
        networks = {
            SEMANTIC: transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
            QUERIES: transformers.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
        }
        return networks[kind][type(config)]

    network = folder.network(class_of, UNUSED)
    return Opened(kind, network, names, folder.tokenizer() if kind == PHRASES else None, size, mean, std)


def _read_names(folder: ModelFolder) -> tuple[str, ...]:
    names = folder.config.get("id2label")
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))} or not names:
        raise folder.refuse(f"has a {CONFIG} without an id2label that has a name for every class 0, 1, 2, ...")
    return tuple(str(names[str(i)]) for i in range(len(names)))


def _read_preprocessing(folder: ModelFolder) -> tuple[tuple[int, int], tuple[float, ...], tuple[float, ...]]:
    """Size, mean and std from the folder's preprocessor settings, or the embedded segmenter's."""
    config = folder.pictures()
    if config.get("do_flip_channel_order"):
        raise folder.refuse(
            "wants blue before red (do_flip_channel_order), as MobileViT does, which is not supported. Choose another, "
            "such as a SegFormer"
        )
    size = config.get("size", SIDE)
    if isinstance(size, dict):
        side = size.get("shortest_edge", SIDE)
        size = (size.get("height", side), size.get("width", side))
    else:
        size = (size, size)
    mean, std = folder.colours(config, "image_mean", MEAN), folder.colours(config, "image_std", STD)
    if not config.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return (folder.side(size[0]), folder.side(size[1])), mean, std
