"""Soft guidance by our own nodes: the layout's phrases as texts of their own, each seen in its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...core.layout.layout import Layout
from .builder import NEGATIVE, Graph, GraphBuilder, Link, Method
from .methods import region_masks


@dataclass(frozen=True)
class Soft:
    """A method: soft guidance beside a prompt for the rest of the picture.

    Attributes:
        prompt: of the rest: the scene alone, or the whole prompt, whose words then draw the things elsewhere too.
        strength: of the phrases in their places.
        hard_until: share of the run in which regions do not see each other's picture; transformers only.
    """

    prompt: Literal["scene", "whole"] = "scene"
    strength: float = 1.0
    hard_until: float = 0.0

    def __call__(self, layout: Layout, seed: int, pictures: int, masks: Sequence[str] = ()) -> Graph:
        """Build the graph; the layout brings its own masks."""
        builder = GraphBuilder()
        model, clip, vae = builder.load()
        text = layout.background if self.prompt == "scene" else layout.prompt
        placed = builder.layout(layout)
        guided = soft_guidance(builder, model, clip, text, self.strength, self.hard_until, layout=placed)
        return builder.show(builder.painted(*guided, vae, seed, pictures))


@dataclass(frozen=True)
class RegionTokens:
    """A method: the scene as prompt, and a prompt of its own for each region, by Region Tokens.

    Attributes:
        strength: of every region's tokens.
    """

    strength: float = 10.0

    def __call__(self, layout: Layout, seed: int, pictures: int, masks: Sequence[str] = ()) -> Graph:
        """Build the graph; masks are files on the server, one for each region in painter's order, or boxes."""
        builder = GraphBuilder()
        model, clip, vae = builder.load()
        before: dict[str, Link] = {}
        regions = layout.sorted_regions()
        for region, mask in zip(regions, region_masks(builder, regions, masks), strict=True):
            tokens = builder.add(
                "StageRegionTokens",
                mask=mask,
                strength=self.strength,
                outside=False,
                on_negative=False,
                conditioning=builder.encode(clip, region.phrase),
                **before,
            )
            before = {"before": [tokens, 0]}
        guided = soft_guidance(builder, model, clip, layout.background, 1.0, 0.0, regions=before["before"])
        return builder.show(builder.painted(*guided, vae, seed, pictures))


def soft_guidance(
    builder: GraphBuilder, model: Link, clip: Link, prompt: str, strength: float, hard_until: float, **told: Link
) -> tuple[Link, Link, Link]:
    """Add the node with a prompt for the whole picture; gives its model, positive and negative."""
    soft = builder.add(
        "StageSoftGuidance",
        model=model,
        positive=builder.encode(clip, prompt),
        negative=builder.encode(clip, NEGATIVE),
        clip=clip,
        strength=strength,
        rule="as published",
        hard_until=hard_until,
        **told,
    )
    return [soft, 0], [soft, 1], [soft, 2]


METHODS: dict[str, Method] = {"soft": Soft(), "region_tokens": RegionTokens()}
