"""A segmenter from a local Hugging Face folder, and how a phrase is matched to one of its class names."""

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError
from torch import Tensor, nn

BACKGROUND = "background"  # a class of this name is never what a phrase asks for
NEAREST = 5  # names that an error suggests
SIDE = 256  # pixels; used where the folder has no preprocessor_config.json
MEAN = STD = (0.5, 0.5, 0.5)
BATCH = 16  # pictures per pass


class SegmenterError(ValueError):
    """A folder that is not a usable segmenter, or a phrase that it has no class for."""


@dataclass(frozen=True)
class Segmenter:
    """A semantic segmentation network with named classes.

    Attributes:
        network: a transformers model whose `logits` are (b k h w).
        classes: k names, in the order of the logits.
        size: (height, width) in pixels that the network sees.
        mean: per channel, taken off the picture.
        std: per channel, the picture is divided by it.
    """

    network: nn.Module
    classes: tuple[str, ...]
    size: tuple[int, int] = (SIDE, SIDE)
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> "Segmenter":
        """Open a folder with config.json and safetensors weights of any transformers semantic segmentation model.

        Nothing is downloaded and no code or pickle from the folder is run. Weights are computed in float32 whatever
        they are stored in. Picture size and normalisation come from preprocessor_config.json where there is one.

        Raises:
            SegmenterError: the folder, one of its files, its class names or its weights are missing or unusable.
        """
        folder = Path(folder)
        _require_files(folder)
        config = _read_json(folder / "config.json")
        names = config.get("id2label")
        if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))} or not names:
            raise SegmenterError(f"{folder / 'config.json'} has no id2label with a name for every class 0, 1, 2, ...")
        network = _load_network(folder).float().eval().requires_grad_(False).to(device)
        size, mean, std = _read_preprocessing(folder)
        return cls(network, tuple(str(names[str(i)]) for i in range(len(names))), size, mean, std)

    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities per pixel, differentiably in the pictures.

        Args:
            images: (b h w 3), float in 0..1, any size; resized to `size` for the network.

        Returns:
            (b k h w) float32 at the pictures' own size, on their device, summing to 1 over k.
        """
        if images.ndim != 4 or images.shape[-1] != 3:
            raise SegmenterError(f"pictures are {tuple(images.shape)}; expected (batch, height, width, 3)")
        device = next(self.network.parameters()).device
        parts = [self._run(part.to(device)).to(images.device) for part in images.split(BATCH)]
        return torch.cat(parts)

    def features(self, images: Tensor) -> list[Tensor]:
        """What each stage of the network's encoder sees, for networks that give it as maps, as SegFormer does.

        Args:
            images: (b h w 3), float in 0..1, few enough for one pass.

        Returns:
            (b c h w) for each stage, on the network's device.
        """
        found = self.network(pixel_values=self._pixels(images), output_hidden_states=True)
        return list(found.hidden_states)

    def _run(self, images: Tensor) -> Tensor:
        logits = self.network(pixel_values=self._pixels(images)).logits
        return F.interpolate(logits, images.shape[1:3], mode="bilinear").softmax(1)

    def _pixels(self, images: Tensor) -> Tensor:
        """Pictures (b h w 3) as the network takes them: (b 3 h w) at its size, normalised."""
        pixels = rearrange(images.float(), "b h w c -> b c h w")
        if pixels.shape[-2:] != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        mean, std = (rearrange(pixels.new_tensor(v), "c -> c 1 1") for v in (self.mean, self.std))
        return (pixels - mean) / std

    def labels(self, images: Tensor) -> Tensor:
        """Most probable class per pixel: (b h w 3) -> int64 (b h w)."""
        return self.probabilities(images).argmax(1)

    def class_of(self, phrase: str) -> int:
        """Index of the class that a phrase names; see `match_class`."""
        return match_class(phrase, self.classes)


def match_class(phrase: str, classes: tuple[str, ...]) -> int:
    """Find the class that a phrase names: the known name that ends last in it, so "a red apple" is "apple".

    Upper and lower case do not matter and a plural s is allowed. A name of several words ("traffic light") wins over
    a name of its last word. A class may list synonyms, separated by commas or semicolons ("door; double door").

    Args:
        phrase: what a region is called.
        classes: the segmenter's names; one called "background" is never matched.

    Returns:
        Index into `classes`.

    Raises:
        SegmenterError: no name occurs in the phrase; the message lists the nearest names.
    """
    known = {
        tuple(_words(name)): index
        for index, names in reversed(list(enumerate(classes)))
        for name in re.split("[,;]", names)
        if _words(name) and _words(name) != [BACKGROUND]
    }
    longest = max(map(len, known), default=0)
    words = _words(phrase)
    for end in range(len(words), 0, -1):
        for length in range(min(longest, end), 0, -1):
            part = words[end - length : end]
            for last in _singulars(part[-1]):
                index = known.get((*part[:-1], last))
                if index is not None:
                    return index
    nearest = _nearest_names(words, [" ".join(name) for name in known])
    raise SegmenterError(
        f'the segmenter has no class for the phrase "{phrase}". The nearest of its {len(classes)} names: '
        f"{', '.join(nearest)}. Name one of its classes in the phrase, or choose a segmenter that knows the thing."
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _singulars(word: str) -> tuple[str, ...]:
    """The word, and what it is without a plural ending."""
    if word.endswith("es"):
        return word, word[:-1], word[:-2]
    return (word, word[:-1]) if word.endswith("s") else (word,)


def _nearest_names(words: list[str], names: list[str]) -> list[str]:
    def likeness(name: str) -> float:
        return max((difflib.SequenceMatcher(None, word, name).ratio() for word in words), default=0.0)

    return sorted(names, key=likeness, reverse=True)[:NEAREST]


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        raise SegmenterError(f"there is no segmenter folder {folder}")
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors (pickled weights such as pytorch_model.bin are not opened)")
    if missing:
        raise SegmenterError(
            f"the segmenter folder {folder} lacks {' and '.join(missing)}. It must hold a semantic segmentation model "
            "in the Hugging Face layout."
        )


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SegmenterError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise SegmenterError(f"{path} does not hold a JSON object")
    return content


def _load_network(folder: Path) -> nn.Module:
    from transformers import AutoModelForSemanticSegmentation  # slow to import, and only needed here

    try:
        network, report = AutoModelForSemanticSegmentation.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SegmenterError(f"the segmenter in {folder} cannot be opened: {error}") from error
    # BatchNorm's step counters are not used outside training and some exports leave them out.
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("num_batches_tracked"))
    if missing:
        raise SegmenterError(f"the weights in {folder} lack {len(missing)} tensors, the first of them {missing[0]}")
    return network


def _read_preprocessing(folder: Path) -> tuple[tuple[int, int], tuple[float, ...], tuple[float, ...]]:
    """Size, mean and std from preprocessor_config.json, or the embedded segmenter's."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return (SIDE, SIDE), MEAN, STD
    config = _read_json(path)
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
