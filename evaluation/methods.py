"""One function per method: a layout in, a graph in ComfyUI's API format out.

Every method paints with the same checkpoint, steps, CFG, sampler, scheduler, size and noise, so that only the method
differs. The pictures are the output of node `PICTURES`.
"""

import json
from collections.abc import Callable, Sequence
from typing import TypeAlias

from ..core.layout import Layout
from ..sticker_world.concepts import CANVAS
from ..sticker_world.shipped import CHECKPOINT_FILE

CHECKPOINT = CHECKPOINT_FILE.name
STEPS = 20
CFG = 5.0
SAMPLER, SCHEDULER = "euler", "normal"
NEGATIVE = ""
T0, STRENGTH, LAYER_PROMPT = 0.5, 0.6, "{phrase}"  # the node's defaults, chosen on the tuning layouts
PICTURES = "pictures"  # id of the node whose images are the result

Graph: TypeAlias = dict[str, dict]
Link: TypeAlias = list  # [node id, output index]


class GraphBuilder:
    """Collects nodes; `add` gives each an id and returns it."""

    def __init__(self) -> None:
        self.graph: Graph = {}

    def add(self, class_type: str, node_id: str | None = None, **inputs: object) -> str:
        """Add a node and return its id; a link is [id, output index]."""
        node_id = node_id or str(len(self.graph) + 1)
        self.graph[node_id] = {"class_type": class_type, "inputs": inputs}
        return node_id

    def load(self) -> tuple[Link, Link, Link]:
        """MODEL, CLIP and VAE of the checkpoint."""
        loader = self.add("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
        return [loader, 0], [loader, 1], [loader, 2]

    def encode(self, clip: Link, text: str) -> Link:
        """CONDITIONING of a prompt."""
        return [self.add("CLIPTextEncode", clip=clip, text=text), 0]

    def sample(self, model: Link, positive: Link, negative: Link, vae: Link, seed: int, pictures: int) -> Graph:
        """Add everything from the empty latent to the pictures; returns the finished graph."""
        latent = self.add("EmptyLatentImage", width=CANVAS, height=CANVAS, batch_size=pictures)
        sampler = self.add(
            "KSampler", model=model, positive=positive, negative=negative, latent_image=[latent, 0], seed=seed,
            steps=STEPS, cfg=CFG, sampler_name=SAMPLER, scheduler=SCHEDULER, denoise=1.0,
        )  # fmt: skip
        decoded = self.add("VAEDecode", samples=[sampler, 0], vae=vae)
        self.add("PreviewImage", PICTURES, images=[decoded, 0])
        return self.graph


def plain_prompt(prompt: str, seed: int, pictures: int) -> Graph:
    """A prompt and nothing else.

    Args:
        prompt: what to paint.
        seed: of the noise.
        pictures: how many to paint in one batch.
    """
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    positive, negative = builder.encode(clip, prompt), builder.encode(clip, NEGATIVE)
    return builder.sample(model, positive, negative, vae, seed, pictures)


def plain(layout: Layout, seed: int, pictures: int, masks: Sequence[str] = ()) -> Graph:
    """The layout's global prompt alone: what the checkpoint paints when nobody says where. See `set_mask`."""
    return plain_prompt(layout.prompt, seed, pictures)


def set_mask(layout: Layout, seed: int, pictures: int, masks: Sequence[str] = ()) -> Graph:
    """ComfyUI's own regional prompting: one masked prompt per region, and the background's prompt everywhere else.

    The masks are a partition in painter's order, as layered rendering has them, so that the comparison is fair.

    Args:
        layout: what is asked for.
        seed: of the noise.
        pictures: how many to paint in one batch.
        masks: file names in the server's input folder, one per region in painter's order; empty takes the boxes.
    """
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    regions = layout.sorted_regions()
    shapes = [_load_mask(builder, name) for name in masks] or [_box_mask(builder, region.box) for region in regions]
    free = _constant_mask(builder, 1.0)
    positive: Link | None = None
    for region, shape in reversed(list(zip(regions, shapes, strict=True))):
        seen = _combine(builder, free, shape, "multiply")
        free = _combine(builder, free, [builder.add("InvertMask", mask=shape), 0], "multiply")
        positive = _add_masked(builder, positive, builder.encode(clip, region.prompt or region.phrase), seen)
    positive = _add_masked(builder, positive, builder.encode(clip, layout.background), free)
    return builder.sample(model, positive, builder.encode(clip, NEGATIVE), vae, seed, pictures)


def _constant_mask(builder: GraphBuilder, value: float, width: int = CANVAS, height: int = CANVAS) -> Link:
    return [builder.add("SolidMask", value=value, width=width, height=height), 0]


def _combine(builder: GraphBuilder, first: Link, second: Link, operation: str, x: int = 0, y: int = 0) -> Link:
    return [builder.add("MaskComposite", destination=first, source=second, x=x, y=y, operation=operation), 0]


def _load_mask(builder: GraphBuilder, name: str) -> Link:
    return [builder.add("LoadImageMask", image=name, channel="red"), 0]


def _box_mask(builder: GraphBuilder, box: tuple[float, float, float, float]) -> Link:
    x0, y0, x1, y1 = (round(value * CANVAS) for value in box)
    inside = _constant_mask(builder, 1.0, x1 - x0, y1 - y0)
    return _combine(builder, _constant_mask(builder, 0.0), inside, "add", x0, y0)


def _add_masked(builder: GraphBuilder, before: Link | None, prompt: Link, mask: Link) -> Link:
    settings = {"strength": 1.0, "set_cond_area": "default"}
    masked = [builder.add("ConditioningSetMask", conditioning=prompt, mask=mask, **settings), 0]
    if before is None:
        return masked
    return [builder.add("ConditioningCombine", conditioning_1=before, conditioning_2=masked), 0]


def lrdiff(layout: Layout, seed: int, pictures: int, masks: Sequence[str] = ()) -> Graph:
    """Layered rendering (LRDiff) by our own nodes; the layout travels as JSON, masks included. See `set_mask`."""
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    text = json.dumps(layout.to_dict())
    stage = builder.add("StageLayout", layout=text, prompt="", background="", width=CANVAS, height=CANVAS)
    rendering = builder.add(
        "StageLayeredRendering", model=model, clip=clip, vae=vae, layout=[stage, 0],
        positive=builder.encode(clip, layout.prompt), negative=builder.encode(clip, NEGATIVE),
        t0=T0, strength=STRENGTH, layer_prompt=LAYER_PROMPT,
    )  # fmt: skip
    return builder.sample([rendering, 0], [rendering, 1], [rendering, 2], vae, seed, pictures)


METHODS: dict[str, Callable[..., Graph]] = {"plain": plain, "set_mask": set_mask, "lrdiff": lrdiff}
