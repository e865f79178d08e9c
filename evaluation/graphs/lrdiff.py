"""Layered rendering (LRDiff) by our own nodes, with every setting that the ablations and sweeps change."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from ...core.layered_rendering.vision_guidance import (
    AS_SEEN,
    DEFAULT_T0,
    LAMBDA_AT_1,
    PUBLISHED_TOP_K,
    WITHOUT,
    dynamic_scale,
)
from ...core.layout.layout import Layout
from .builder import NEGATIVE, STEPS, Graph, GraphBuilder, Link
from .colours import NONE, Colours

NOISIEST = torch.tensor(1 / 14.6146)  # share of data in the first state of a run by SD's schedule
LAYER_PROMPT = "{phrase}"  # the node's default
ALL_PHRASES = "{phrases}"  # as the background's own negative prompt: the names of all things


@dataclass(frozen=True)
class LRDiff:
    """A method: layered rendering with these settings, named as the nodes' inputs.

    None leaves an input to the node's own default. The layout's colours, which are the true ones of its sprites, are
    told only where `colours` says so.
    """

    end_at: float = DEFAULT_T0
    strength: float = 1.0
    layer_prompt: str = LAYER_PROMPT
    mode: str | None = None
    background_negative: str | None = None
    crop: bool | None = None
    crop_margin: int | None = None
    source: str = "dynamic"
    colours: Colours = NONE
    top_k: int = 20
    inside: float = 1.0
    outside: float = 1.0
    inject: str = "every step"
    reading: str = AS_SEEN

    def __call__(
        self, layout: Layout, seed: int, pictures: int, masks: Sequence[str] = (), *, steps: int = STEPS
    ) -> Graph:
        """Build the graph; the layout brings its own masks."""
        builder = GraphBuilder()
        model, clip, vae = builder.load()
        rendered = self.render(
            builder,
            model=model,
            clip=clip,
            vae=vae,
            layout=builder.layout(layout, self.colours),
            positive=builder.encode(clip, layout.prompt),
            negative=builder.encode(clip, NEGATIVE),
        )
        return builder.show(builder.painted(*rendered, vae, seed, pictures, steps))

    def render(self, builder: GraphBuilder, **links: Link) -> tuple[Link, Link, Link]:
        """Add the node with these links to its inputs; gives its model, positive and negative."""
        names = [each.name for each in fields(self) if each.name != "colours"]
        chosen = {name: value for name in names if (value := getattr(self, name)) is not None}
        rendering = builder.add("StageLayeredRendering", **links, **chosen)
        return [rendering, 0], [rendering, 1], [rendering, 2]


# What the published script runs with: the switch after 16 of 51 steps, its factors outside and inside of the masks, the
# mean of Eq. 6 without a factor, and the names of the things as the background's negative prompt.
PUBLISHED = LRDiff(
    end_at=16 / 51,
    strength=1 / dynamic_scale(PUBLISHED_TOP_K, NOISIEST).item() / LAMBDA_AT_1,
    mode="trajectories",
    background_negative=ALL_PHRASES,
    source="dynamic",
    top_k=PUBLISHED_TOP_K,
    outside=0.20,
    inside=0.05,
    inject="as published",
)

# Each changes one thing in the method "lrdiff", which is told names and boxes alone; "words" and "colours" are told or
# guess colours too, "published" changes all that the published script does differently. `evaluate --ablation` adds them
# to the methods.
VARIANTS: dict[str, LRDiff] = {
    "lrdiff_off": LRDiff(strength=0.0),
    "lrdiff_words": LRDiff(source="colour", colours="words"),
    "lrdiff_colours": LRDiff(source="colour", colours="true"),
    "lrdiff_without": LRDiff(reading=WITHOUT),
    "lrdiff_trajectories": LRDiff(mode="trajectories"),
    "lrdiff_published": PUBLISHED,
    "lrdiff_crop": LRDiff(crop=True),
}
