"""Captions of several pictures in one CONDITIONING entry, so that every picture of a batch has its own."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .types import Clip, Conditioning


def embed_captions(clip: Clip, captions: Sequence[str]) -> Conditioning:
    """Embed one caption, or one for each picture of a batch.

    Args:
        clip: encodes them.
        captions: one for each picture; equal ones need only one row.

    Returns:
        CONDITIONING; where captions differ its tensors have a row for each picture.

    Raises:
        ValueError: a text encoder whose schedule has several entries, or whose further outputs differ in shape.
    """
    texts = {caption: clip.encode_from_tokens_scheduled(clip.tokenize(caption)) for caption in dict.fromkeys(captions)}
    if len(texts) == 1:
        return next(iter(texts.values()))
    rows = [texts[caption] for caption in captions]
    if any(len(row) != 1 for row in rows):
        raise ValueError("Layouts of one batch need prompts without schedules. Sample the layouts one by one.")
    longest = math.lcm(*(row[0][0].shape[1] for row in rows))
    # Repeating the tokens does not change what cross-attention gives; ComfyUI pads with it too. Where text is a part of
    # the state it does: `rows_of_one_length` says which captions may share a batch there.
    embedded = torch.cat([row[0][0].repeat(1, longest // row[0][0].shape[1], 1) for row in rows])
    options = [row[0][1] for row in rows]
    return [[embedded, {key: _joined(key, [each.get(key) for each in options]) for key in options[0]}]]


def rows_of_one_length(clip: Clip, *captions: Sequence[str]) -> list[list[int]]:
    """Which pictures of a batch have captions of as many tokens, for networks that no text may be repeated for.

    Args:
        clip: encodes them.
        captions: one for each picture; of several kinds, all have to be of one length.

    Returns:
        Numbers of pictures, by the lengths of their captions; each of them once.
    """
    lengths = {
        caption: tuple(text.shape[1] for text, _ in clip.encode_from_tokens_scheduled(clip.tokenize(caption)))
        for caption in dict.fromkeys(caption for kind in captions for caption in kind)
    }
    found = [tuple(lengths[caption] for caption in own) for own in zip(*captions, strict=True)]
    return [[i for i, each in enumerate(found) if each == length] for length in dict.fromkeys(found)]


def captions_of_rows(captions: Sequence[str], rows: Sequence[int]) -> list[str]:
    """Captions of some pictures of a batch; the others, which do not count, say what the first of these does."""
    return [caption if i in rows else captions[rows[0]] for i, caption in enumerate(captions)]


def _joined(key: str, values: list[object]) -> object:
    if all(isinstance(value, Tensor) for value in values):
        if len({value.shape[1:] for value in values}) == 1:
            return torch.cat(values)
    elif all(value == values[0] for value in values):
        return values[0]
    raise ValueError(
        f'The prompts of this batch\'s layouts differ in "{key}", which cannot be put into one batch. '
        "Sample the layouts one by one."
    )
