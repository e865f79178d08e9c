"""Layouts of two things in opposite corners with a look each, and the three ways to give them LoRAs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...core.layout.layout import Layout
from ...core.layout.prompts import with_article
from ...core.layout.region import Region
from ...sticker_world.looks.drawing import NEON, PIXELS
from ...sticker_world.world.concepts import BACKGROUNDS, CANVAS, CONCEPT_NAMES
from ..graphs.builder import NEGATIVE, Graph, GraphBuilder
from ..graphs.lrdiff import LRDiff

LAYOUTS, FIRST_SEED = 12, 7100
STRENGTH = 1.0
OWN, BOTH, WITHOUT = "each its own", "both everywhere", "none"
FILES = {look: f"sticker_world/{look}.safetensors" for look in (NEON, PIXELS)}
SIDE = (0.40, 0.47)  # of a region over the canvas
DIAGONALS = (((0, 0), (1, 1)), ((1, 0), (0, 1)))  # the free corners tell whether the background wears something


def looked_layouts(number: int = LAYOUTS) -> list[tuple[int, Layout, tuple[str, str]]]:
    """Seed, layout and the looks of its regions in their order; the same numbers always give the same ones."""
    return [_looked_layout(FIRST_SEED + index) for index in range(number)]


def _looked_layout(seed: int) -> tuple[int, Layout, tuple[str, str]]:
    rng = np.random.default_rng(seed)
    names = [CONCEPT_NAMES[k] for k in rng.choice(len(CONCEPT_NAMES), 2, replace=False)]
    looks = (NEON, PIXELS) if rng.uniform() < 0.5 else (PIXELS, NEON)
    places = list(BACKGROUNDS.values())
    background = places[rng.integers(len(places))][0]
    regions = []
    for name, look, corner in zip(names, looks, DIAGONALS[rng.integers(2)], strict=True):
        sides = rng.uniform(*SIDE, 2)
        start = [0.02 + away * (0.96 - side) for away, side in zip(corner, sides, strict=True)]
        box = tuple(round(float(each), 3) for each in (*start, *(a + b for a, b in zip(start, sides, strict=True))))
        regions.append(Region(with_article(name), box, lora=f"{FILES[look]}:{STRENGTH}"))
    return seed, Layout(CANVAS, CANVAS, "", background, tuple(regions)), looks


def _undressed(layout: Layout) -> Layout:
    return replace(layout, regions=tuple(replace(region, lora="") for region in layout.regions))


def painted(layout: Layout, seed: int, way: str) -> Graph:
    """Paint a layout by Layered Rendering with its LoRAs, with both on the whole model, or without any."""
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    if way == BOTH:
        for file in FILES.values():
            strengths = {"strength_model": STRENGTH, "strength_clip": STRENGTH}
            loader = builder.add("LoraLoader", model=model, clip=clip, lora_name=file, **strengths)
            model, clip = [loader, 0], [loader, 1]
    rendered = LRDiff().render(
        builder,
        model=model,
        clip=clip,
        vae=vae,
        layout=builder.layout(layout if way == OWN else _undressed(layout)),
        positive=builder.encode(clip, layout.prompt),
        negative=builder.encode(clip, NEGATIVE),
    )
    return builder.show(builder.painted(*rendered, vae, seed))


WAYS: dict[str, Callable[[Layout, int], Graph]] = {
    way: lambda layout, seed, way=way: painted(layout, seed, way) for way in (OWN, BOTH, WITHOUT)
}
