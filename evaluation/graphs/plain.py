"""Prompts without a layout: what the checkpoint paints when nobody says where."""

from collections.abc import Sequence

from ...core.layout.layout import Layout
from .builder import NEGATIVE, STEPS, Graph, GraphBuilder


def plain_prompt(prompt: str, seed: int, pictures: int, steps: int = STEPS) -> Graph:
    """A prompt and nothing else.

    Args:
        prompt: what to paint.
        seed: of the noise.
        pictures: how many to paint in one batch.
        steps: of the sampler.
    """
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    positive, negative = builder.encode(clip, prompt), builder.encode(clip, NEGATIVE)
    return builder.show(builder.painted(model, positive, negative, vae, seed, pictures, steps))


def plain(layout: Layout, seed: int, pictures: int, masks: Sequence[str] = ()) -> Graph:
    """The layout's global prompt alone; takes what every method takes, see `methods.set_mask`."""
    return plain_prompt(layout.prompt, seed, pictures)
