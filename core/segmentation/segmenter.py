"""Segmentation models from local Hugging Face folders.

A closed one knows the classes that it was trained for (SegFormer and other semantic models; Mask2Former and
MaskFormer); an open one takes any phrase (CLIPSeg). Both give soft masks, differentiably in the picture.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..clip.unread import unread_end
from ..drawing.pictures import check_finite, colours_of
from ..drawing.resizing import resized
from ..layout.region import LayoutError
from .class_names import BACKGROUND, match_class, words_of
from .files import MEAN, QUERIES, SEMANTIC, SIDE, STD, SegmenterError, open_folder
from .networks import (
    phrase_embeddings,
    phrase_logits,
    query_logits,
    semantic_logits,
    with_background,
)

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

__all__ = ["OpenSegmenter", "Segmenter", "SegmenterError"]

BATCH = 16  # pictures per pass
# Pixels of the longer side beyond which pictures are not read: networks see them at half of that or less, and every
# class of a large photograph at its own size would fill the memory.
LARGEST_READ = 1024


@dataclass(frozen=True)
class Segmenter:
    """A segmentation network with named classes.

    Attributes:
        network: transformers' model.
        classes: k names, in the order of the logits.
        size: (height, width) in pixels that the network sees.
        mean: per channel, taken off the picture.
        std: per channel, the picture is divided by it.
        read: (network, normalised pixels b 3 h w) -> class logits (b k h' w') on the network's own grid.
    """

    network: nn.Module
    classes: tuple[str, ...]
    size: tuple[int, int] = (SIDE, SIDE)
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    read: Callable[[nn.Module, Tensor], Tensor] = semantic_logits

    @staticmethod
    def load(folder: str | Path, device: str | torch.device = "cpu") -> "Segmenter":
        """Open a folder with config.json and safetensors weights: a semantic model, Mask2Former, MaskFormer, CLIPSeg.

        Nothing is downloaded and no code or pickle from the folder is run. Weights are computed in float32 whatever
        they are stored in. Picture size and normalisation come from preprocessor_config.json where there is one.

        Returns:
            A segmenter whose weights can be differentiated through, even when loaded in inference mode; an
            `OpenSegmenter` for a model that takes phrases.

        Raises:
            SegmenterError: the folder, one of its files, its class names or its weights are missing or unusable.
        """
        with torch.inference_mode(False):
            found = open_folder(Path(folder))
            network = found.network.to(device)
            if found.kind == SEMANTIC:
                return Segmenter(network, found.names, found.size, found.mean, found.std)
            if found.kind == QUERIES:
                names = (*found.names, BACKGROUND)
                return Segmenter(network, names, found.size, found.mean, found.std, query_logits)
            return OpenSegmenter(network, (), found.size, found.mean, found.std, tokenizer=found.tokenizer)

    def knows(self, phrase: str) -> bool:
        """Whether the segmenter can look for what a phrase names."""
        try:
            self.name_of(phrase)
        except SegmenterError:
            return False
        return True

    def name_of(self, phrase: str) -> str:
        """The segmenter's own name for what a phrase names; phrases of one name share one mask.

        Raises:
            SegmenterError: it knows none; the message lists the nearest names.
        """
        return self.classes[self.class_of(phrase)]

    def class_of(self, phrase: str) -> int:
        """Index of the class that a phrase names; see `match_class`."""
        return match_class(phrase, self.classes)

    def for_phrases(self, phrases: Sequence[str]) -> "Segmenter":
        """A segmenter whose `classes` hold these phrases; a closed one is that already, if it knows them.

        Raises:
            SegmenterError: a phrase that it does not know.
        """
        for phrase in phrases:
            self.name_of(phrase)
        return self

    def soft_masks(self, images: Tensor, phrases: Sequence[str]) -> Tensor:
        """Where the things are that phrases name, as probabilities on the network's own grid.

        Differentiable in the pictures; the whole picture is seen at once, with the network's own normalisation.

        Args:
            images: (b 3 h w), float in 0..1, any size; resized to `size` for the network.
            phrases: k of them; those with the same `name_of` get the same mask.

        Returns:
            (b k h' w') float32 in 0..1, on the pictures' device.

        Raises:
            SegmenterError: a phrase that the segmenter does not know, or pictures of another shape.
        """
        _check_shape(images, images.ndim == 4 and images.shape[1] == 3, "(batch, 3, height, width)")
        indices = [self.class_of(phrase) for phrase in phrases]
        return self._logits(images).softmax(1)[:, indices].to(images.device)

    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities per pixel, differentiably in the pictures.

        Args:
            images: (b h w 3), float in 0..1, any size; resized to `size` for the network.

        Returns:
            (b k h w) float32 at the pictures' own size, on their device, summing to 1 over k.
        """
        _check_shape(images, images.ndim == 4 and images.shape[-1] == 3, "(batch, height, width, 3)")
        parts = [self._enlarged(part).to(images.device) for part in images.split(BATCH)]
        return torch.cat(parts)

    def features(self, images: Tensor) -> list[Tensor]:
        """What each stage of the network's encoder sees, for networks that give it as maps, as SegFormer does.

        Args:
            images: (b h w 3), float in 0..1, few enough for one pass.

        Returns:
            (b c h w) for each stage, on the network's device.
        """
        pixels = self._pixels(rearrange(images, "b h w c -> b c h w"))
        return list(self.network(pixel_values=pixels, output_hidden_states=True).hidden_states)

    def labels(self, images: Tensor) -> Tensor:
        """Most probable class per pixel: (b h w 3) -> int64 (b h w)."""
        return self.probabilities(images).argmax(1)

    def _enlarged(self, images: Tensor) -> Tensor:
        logits = self._logits(rearrange(images, "b h w c -> b c h w"))
        return F.interpolate(logits, images.shape[1:3], mode="bilinear").softmax(1)

    def _logits(self, images: Tensor) -> Tensor:
        """Class logits of pictures (b 3 h w), on the network's own grid and device."""
        return self.read(self.network, self._pixels(images))

    def _pixels(self, images: Tensor) -> Tensor:
        """Pictures (b 3 h w) as the network takes them: on its device, at its size, normalised."""
        pixels = images.to(next(self.network.parameters()).device).float()
        if pixels.shape[-2:] != self.size:
            pixels = resized(pixels, self.size)
        mean, std = (rearrange(pixels.new_tensor(v), "c -> c 1 1") for v in (self.mean, self.std))
        return (pixels - mean) / std


@dataclass(frozen=True)
class OpenSegmenter(Segmenter):
    """A network that looks for any phrase, with its `tokenizer`: it has no classes until `for_phrases` names some."""

    tokenizer: "PreTrainedTokenizerBase | None" = None
    _embeddings: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def name_of(self, phrase: str) -> str:
        """The phrase without its capitals, and without commas and semicolons, which part the synonyms of a class.

        Raises:
            SegmenterError: there is nothing in it, or only the background, which is what no phrase names, or more than
                the network reads.
        """
        if not words_of(phrase):
            raise SegmenterError(f'the phrase "{phrase}" names nothing. Write what to look for, such as "a dog".')
        if words_of(phrase) == [BACKGROUND]:
            raise SegmenterError(f'the phrase "{phrase}" is what lies behind all things. Write what to look for.')
        name = " ".join(re.split(r"[,;\s]+", phrase.lower().strip(",; \t\n")))
        if unread := unread_end(lambda text: self._tokens(text)["input_ids"], name):
            raise SegmenterError(
                f'the phrase "{phrase}" is too long; "{unread}" would not be read. Write a shorter name.'
            )
        return name

    def for_phrases(self, phrases: Sequence[str]) -> Segmenter:
        """A segmenter with these phrases and a background as its classes; a pixel takes the likeliest phrase.

        A pixel is the background's where every phrase is less likely than not. No phrases: this one, without classes.

        Raises:
            SegmenterError: a phrase with nothing in it.
        """
        names = tuple(dict.fromkeys(map(self.name_of, phrases)))
        if not names:
            return self
        embeddings = self._embed(names)
        read = partial(_read_phrases, embeddings=embeddings)
        return Segmenter(self.network, (BACKGROUND, *names), self.size, self.mean, self.std, read)

    def soft_masks(self, images: Tensor, phrases: Sequence[str]) -> Tensor:
        """Where the things are that phrases name: each phrase's own probability, whatever the others are.

        As `Segmenter.soft_masks`.
        """
        _check_shape(images, images.ndim == 4 and images.shape[1] == 3, "(batch, 3, height, width)")
        embeddings = self._embed([self.name_of(phrase) for phrase in phrases])
        return phrase_logits(self.network, self._pixels(images), embeddings).sigmoid().to(images.device)

    def probabilities(self, images: Tensor) -> Tensor:
        """Not without phrases: `for_phrases` gives a segmenter that has classes.

        Raises:
            SegmenterError: always.
        """
        raise SegmenterError("this segmenter takes phrases and has no classes of its own; say what to look for")

    def _tokens(self, name: str) -> "BatchEncoding":
        longest = self.network.config.text_config.max_position_embeddings
        return self.tokenizer([name], truncation=True, max_length=longest, return_tensors="pt")

    def _embed(self, names: Sequence[str]) -> Tensor:
        """Text embeddings (n d), each computed once."""
        device = next(self.network.parameters()).device
        with torch.inference_mode(False), torch.no_grad():
            for name in names:
                if name not in self._embeddings:
                    tokens = self._tokens(name).to(device)
                    self._embeddings[name] = phrase_embeddings(self.network, tokens)[0]
        return torch.stack([self._embeddings[name].to(device) for name in names])


def _read_phrases(network: nn.Module, pixels: Tensor, embeddings: Tensor) -> Tensor:
    return with_background(phrase_logits(network, pixels, embeddings.to(pixels.device)))


def readable(image: Tensor) -> Tensor:
    """A picture (h w c) in 0..1 as it is read: its colours, its longer side at most `LARGEST_READ` pixels (h' w' 3).

    Raises:
        LayoutError: NaN in it.
    """
    check_finite(image, "The picture", "Connect one that shows something", LayoutError, batched=False)
    pixels, longer = colours_of(image), max(image.shape[:2])
    if longer <= LARGEST_READ:
        return pixels
    sides = [max(1, round(side * LARGEST_READ / longer)) for side in image.shape[:2]]
    shrunk = resized(rearrange(pixels, "h w c -> 1 c h w"), sides)
    return rearrange(shrunk[0], "c h w -> h w c")


def back_to_size(grid: Tensor, height: int, width: int) -> Tensor:
    """What was read of a picture (h' w'), labels or a mask, at the picture's own size (height width)."""
    if tuple(grid.shape) == (height, width):
        return grid
    return F.interpolate(grid[None, None].float(), (height, width), mode="nearest-exact")[0, 0].to(grid.dtype)


def _check_shape(images: Tensor, fits: bool, expected: str) -> None:
    if not fits:
        raise SegmenterError(f"pictures are {tuple(images.shape)}; expected {expected}")
