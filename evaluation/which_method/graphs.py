"""One layout by the methods whose evaluations ask for something else than a layout: depth, layers, a draft, an edit."""

from ...core.layout.layout import Layout
from ...sticker_world.shipped import CNC_FILE
from ..editing.graphs import SETTINGS, sampled
from ..graphs.builder import NEGATIVE, PICTURES, Graph, GraphBuilder
from ..graphs.soft import soft_guidance
from ..painter import Painter
from ..sets.sets import Item
from ..tcig.graphs import TCIG, refined
from ..text2layer.layer_by_layer import layers_painted


def composed(layout: Layout, seed: int) -> Graph:
    """Depth Compose with two depth maps that Depth Pair draws from the layout, names kept to their shapes."""
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    placed = builder.layout(layout)
    model, positive, negative = soft_guidance(builder, model, clip, layout.prompt, 1.0, 0.0, layout=placed)
    depths = builder.add(
        "StageDepthPair",
        source="layout",
        variant="v2",
        layout=placed,
        margin=8,
        front=1,
        ground=0.2,
        round_boxes=True,
    )
    made = builder.add(
        "StageDepthCompose",
        model=model,
        positive=positive,
        negative=negative,
        cnc=[builder.add("StageCnCLoader", cnc_name=CNC_FILE.name), 0],
        foreground_depth=[depths, 0],
        background_depth=[depths, 1],
        foreground_depth_strength=1.0,
        background_depth_strength=1.0,
        residual_scale=1.0,
        start_at=0.0,
        end_at=1.0,
    )
    return builder.show(builder.painted([made, 0], [made, 1], [made, 2], vae, seed))


def layered(layout: Layout, seed: int) -> Graph:
    """Layer by Layer: a background, and a layer for each region."""
    builder = GraphBuilder()
    return builder.show([layers_painted(builder, "", seed, layout=builder.layout(layout)), 0])


def inserted(layout: Layout, seed: int) -> Graph:
    """Edit Picture in Layers, which puts all things into a picture of the empty place that the checkpoint painted."""
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    negative = builder.encode(clip, NEGATIVE)
    place = builder.painted(model, builder.encode(clip, layout.background), negative, vae, seed)
    edit = builder.add(
        "StageEditPicture",
        model=model,
        clip=clip,
        vae=vae,
        image=place,
        positive=builder.encode(clip, layout.prompt),
        negative=negative,
        background=layout.background,
        edits=[builder.add("StageEditInsert", layout=builder.layout(layout)), 0],
        **SETTINGS,
    )
    return sampled(builder, [edit, 0], [edit, 1], [edit, 2], vae, [edit, 3], seed)


def drafted(painter: Painter, item: Item) -> Graph:
    """TCIG Draft and TCIG Refine, both as the evaluation has them."""
    graph = TCIG().graph(painter, item, item.seed)
    last = graph[refined()]["inputs"]["images"]
    return graph | {PICTURES: {"class_type": "PreviewImage", "inputs": {"images": last}}}
