"""One layout by the methods whose evaluations ask for something else than a layout: depth, layers, a draft, an edit."""

from ...core.layout.layout import Layout
from ...core.soft_guidance.soft_guidance import PUBLISHED
from ...sticker_world.shipped import CNC_FILE, TEXT2LAYER_FILE
from ...sticker_world.world.concepts import CANVAS
from ..editing.graphs import SETTINGS
from ..graphs.builder import CFG, NEGATIVE, PICTURES, SAMPLER, SCHEDULER, STEPS, Graph, GraphBuilder
from ..painter import Painter
from ..sets.sets import Item
from ..tcig.graphs import TCIG, refined


def composed(layout: Layout, seed: int) -> Graph:
    """Depth Compose with two depth maps that Depth Pair draws from the layout, names kept to their shapes."""
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    placed = builder.layout(layout)
    soft = builder.add(
        "StageSoftGuidance",
        model=model,
        positive=builder.encode(clip, layout.prompt),
        negative=builder.encode(clip, NEGATIVE),
        clip=clip,
        layout=placed,
        strength=1.0,
        rule=PUBLISHED,
    )
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
        model=[soft, 0],
        positive=[soft, 1],
        negative=[soft, 2],
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
    _, clip, _ = builder.load()
    file = builder.add("StageText2LayerLoader", text2layer_name=TEXT2LAYER_FILE.name)
    painted = builder.add(
        "StageLayerByLayer",
        model=[file, 0],
        layered_vae=[file, 1],
        clip=clip,
        prompt="",
        background="",
        layout=builder.layout(layout),
        seed=seed,
        steps=STEPS,
        cfg=CFG,
        sampler_name=SAMPLER,
        scheduler=SCHEDULER,
        width=CANVAS,
        height=CANVAS,
        negative=NEGATIVE,
    )
    return builder.show([painted, 0])


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
    sampler = builder.add(
        "KSampler",
        model=[edit, 0],
        positive=[edit, 1],
        negative=[edit, 2],
        latent_image=[edit, 3],
        seed=seed,
        steps=STEPS,
        cfg=CFG,
        sampler_name=SAMPLER,
        scheduler=SCHEDULER,
        denoise=1.0,
    )
    return builder.show([builder.add("VAEDecode", samples=[sampler, 0], vae=vae), 0])


def drafted(painter: Painter, item: Item) -> Graph:
    """TCIG Draft and TCIG Refine, both as the evaluation has them."""
    graph = TCIG().graph(painter, item, item.seed)
    last = graph[refined()]["inputs"]["images"]
    return graph | {PICTURES: {"class_type": "PreviewImage", "inputs": {"images": last}}}
