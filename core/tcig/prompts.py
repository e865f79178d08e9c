"""Texts with weights, and how far a picture is from them: the prompts of the canonical VQGAN+CLIP loop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SEPARATOR, PART = "|", ":"
FARTHEST = 1 - 1e-6  # half the longest chord; at 1 the arc has no gradient


class PromptError(ValueError):
    """A text that is no prompt for CLIP."""


@dataclass(frozen=True)
class WeightedPrompt:
    """One text that a picture shall look like, or shall not.

    Attributes:
        text: what CLIP reads.
        weight: of its part of the loss; a negative one pushes the picture away from the text.
        stop: distance below which a cut-out is near enough and not pulled any more; of a negative weight, the negative
            of the distance above which it is far enough.
    """

    text: str
    weight: float = 1.0
    stop: float = -math.inf


def read_prompts(text: str) -> tuple[WeightedPrompt, ...]:
    """Read prompts as the canonical loop writes them: "text", "text:weight" or "text:weight:stop", between bars.

    Raises:
        PromptError: no text, or a weight or stop that is not a number.
    """
    prompts = tuple(_read_prompt(part.strip()) for part in text.split(SEPARATOR) if part.strip())
    if not prompts:
        raise PromptError('There is no prompt. Write one such as "a dog and a cat | blurry:-0.5".')
    return prompts


def distances(embeddings: Tensor, text: Tensor) -> Tensor:
    """Half the squared angle between unit vectors: 2 arcsin(|u - v| / 2)^2.

    Args:
        embeddings: (n d), of pictures.
        text: (d).

    Returns:
        (n) from 0 to pi^2 / 2.
    """
    chord = (embeddings - text).norm(dim=-1) / 2
    return 2 * chord.clamp(max=FARTHEST).arcsin().square()


def prompt_loss(embeddings: Tensor, texts: Tensor, prompts: Sequence[WeightedPrompt]) -> Tensor:
    """How far cut-outs are from all prompts: the sum over prompts of |weight| times the mean distance, with its sign.

    Args:
        embeddings: (n d), of cut-outs.
        texts: (p d), of the prompts.
        prompts: p of them.
    """
    total = embeddings.new_zeros(())
    for text, prompt in zip(texts, prompts, strict=True):
        each = distances(embeddings, text) * math.copysign(1.0, prompt.weight)
        # What has reached its stop counts, but is not pulled.
        each = torch.where(each > prompt.stop, each, each.detach())
        total = total + abs(prompt.weight) * each.mean()
    return total


def _read_prompt(part: str) -> WeightedPrompt:
    text, *numbers = part.split(PART)
    if len(numbers) > 2 or not text.strip():
        raise PromptError(
            f'The prompt "{part}" has not the form text, text:weight or text:weight:stop. Write colons only there.'
        )
    try:
        values = [float(number) for number in numbers]
    except ValueError as error:
        raise PromptError(
            f'The prompt "{part}" has something behind a colon that is no number. Write text:weight:stop, and leave '
            "colons out of the text."
        ) from error
    if any(math.isnan(value) for value in values) or (values and math.isinf(values[0])):
        raise PromptError(f'The prompt "{part}" has a weight or stop that is not finite. Write a number such as 1.')
    return WeightedPrompt(text.strip(), *values)
