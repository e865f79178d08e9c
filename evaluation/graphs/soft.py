"""Soft guidance by our own node: the layout's phrases as texts of their own, each seen in its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...core.layout.layout import Layout
from .builder import NEGATIVE, Graph, GraphBuilder


@dataclass(frozen=True)
class Soft:
    """A method: soft guidance beside a prompt for the rest of the picture.

    Attributes:
        prompt: of the rest: the scene alone, or the whole prompt, whose words then draw the things elsewhere too.
        strength: of the phrases in their places.
        hard_until: share of the run in which regions do not see each other's picture; transformers only.
    """

    prompt: Literal["scene", "whole"] = "scene"
    strength: float = 10.0  # the node's default
    hard_until: float = 0.0

    def __call__(self, layout: Layout, seed: int, pictures: int, masks: Sequence[str] = ()) -> Graph:
        """Build the graph; the layout brings its own masks."""
        builder = GraphBuilder()
        model, clip, vae = builder.load()
        soft = builder.add(
            "StageSoftGuidance",
            model=model,
            positive=builder.encode(clip, layout.background if self.prompt == "scene" else layout.prompt),
            negative=builder.encode(clip, NEGATIVE),
            clip=clip,
            layout=builder.layout(layout),
            strength=self.strength,
            rule="as published",
            hard_until=self.hard_until,
        )
        return builder.show(builder.painted([soft, 0], [soft, 1], [soft, 2], vae, seed, pictures))
