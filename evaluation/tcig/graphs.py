"""TCIG (arXiv 2403.01212) by our own nodes, img2img from its start and from a flat drawing: a draft, painted again."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ...core.tcig.cut_outs import NUMBER
from ...core.tcig.draft import CLIP_WEIGHT, FEW_ITERATIONS, LEARNING_RATE, SEGMENTER_NOISE
from ...core.tcig.refinement import LEAST_DENOISE, MOST_DENOISE
from ...core.tcig.starts import COLOURS, flat_colours
from ...sticker_world.shipped import CLIP_FOLDER, SEGMENTER_FOLDER, SPECIALIST_FOLDERS, VQGAN_FOLDER
from ...sticker_world.world.backgrounds import paint_background
from ...sticker_world.world.concepts import CANVAS
from ..graphs.builder import CFG, NEGATIVE, SAMPLER, SCHEDULER, STEPS, Graph, GraphBuilder, Link
from ..graphs.colours import NONE, coloured
from ..graphs.lrdiff import LRDiff
from ..painter import TIMEOUT, Painter
from ..sets.sets import Item

GENERAL = (SEGMENTER_FOLDER.name,)
SPECIALISTS = tuple(folder.name for folder in SPECIALIST_FOLDERS.values())
DRAFT = "draft"  # id of the node whose picture stage one made
# Inputs of TCIG Draft that no method changes, at the node's own defaults.
FIXED = {
    "prompt": "",
    "size": 256,
    "clip_weight": CLIP_WEIGHT,
    "balance": True,
    "learning_rate": LEARNING_RATE,
    "cut_outs": NUMBER,
    "patience": 0,
}
HOLD = 0.0
LAYERED_DENOISE = 0.5  # of stage two in layers, which hold things in place, so that more noise does no harm
LAYERED_UNTIL = 0.9  # share of a whole run that stage two is in layers; it begins late, so that much is left of them
DRAWING_DENOISE = 0.5  # what suits the drawings of the tuning layouts best, so that the competitor is at its best
# Of stage two where no segmenter is asked, so that none decides: the drawings', which are flat colours as well.
UNGUIDED_DENOISE = DRAWING_DENOISE


def refined(number: int = 0) -> str:
    """Id of the node whose picture stage two made, with the first or a later one of the asked shares."""
    return f"refined_{number}"


@dataclass(frozen=True)
class TCIG:
    """A method: both stages, with these settings.

    Attributes:
        segmenters: folders that guide the draft and judge it before stage two.
        guided: False leaves the segmenters out of the draft's loss: VQGAN+CLIP.
        start: of stage one, "random codes" or "flat colours" (the layout's own), to which the draft is then held.
        segmenter_noise: of stage one.
        iterations: of stage one.
        denoise: of stage two; None lets the measured fit decide.
        layered: whether stage two is an img2img run with Layered Rendering, which keeps every prompt to its region.
        ground: whether flat colours lie on the empty place, painted by the checkpoint from the background's words.
    """

    segmenters: tuple[str, ...] = GENERAL
    guided: bool = True
    start: str = COLOURS
    segmenter_noise: float = SEGMENTER_NOISE
    iterations: int = FEW_ITERATIONS
    denoise: float | None = None
    layered: bool = False
    ground: bool = True

    def graph(self, painter: Painter, item: Item, seed: int, shares: Sequence[float | None] | None = None) -> Graph:
        """Build the graph: one draft, and a stage two for each denoise, or only for the method's own."""
        builder = GraphBuilder()
        model, text, vae = builder.load()
        layout, segmenter = builder.layout(item.layout), _segmenters(builder, self.segmenters)
        vqgan: Link = [builder.add("StageVQGANLoader", vqgan_name=VQGAN_FOLDER.name), 0]
        clip: Link = [builder.add("StageCLIPLoader", folder=CLIP_FOLDER.name), 0]
        behind = {}
        if self.ground and self.start == COLOURS:
            behind = {"image": _empty_place(builder, model, text, vae, item, seed)}
        draft = builder.add(
            "StageTCIGDraft",
            layout=layout,
            vqgan=vqgan,
            clip=clip,
            segmenter=segmenter,
            seed=seed,
            start=self.start,
            segmenter_noise=self.segmenter_noise,
            iterations=self.iterations,
            segmenter_weights="1.0" if self.guided else "0.0",
            **behind,
            **FIXED,
        )
        stage = _Stage([draft, 0], layout, segmenter, model, text, vae, self.layered)
        return _refine(builder, stage, item, seed, (self.denoise,) if shares is None else shares)


@dataclass(frozen=True)
class Drawing:
    """A method: img2img from a drawing of flat colours with everything in its place.

    Attributes:
        denoise: of img2img; None lets the measured fit decide.
    """

    denoise: float | None = DRAWING_DENOISE

    def graph(self, painter: Painter, item: Item, seed: int, shares: Sequence[float | None] | None = None) -> Graph:
        """Build the graph; the painter's server gets the drawing."""
        builder = GraphBuilder()
        model, text, vae = builder.load()
        layout, segmenter = builder.layout(item.layout), _segmenters(builder, GENERAL)
        drawing: Link = [builder.add("LoadImage", image=painter.upload(flat_drawing(item))), 0]
        stage = _Stage(drawing, layout, segmenter, model, text, vae)
        return _refine(builder, stage, item, seed, (self.denoise,) if shares is None else shares)


@dataclass(frozen=True)
class Start:
    """A method: what a draft begins with, and stage two; nothing is optimised, and no segmenter is asked.

    The layout in flat colours far from each other, on the empty place, as TCIG Draft has it before its first step.

    Attributes:
        denoise: of stage two.
    """

    denoise: float = UNGUIDED_DENOISE

    def graph(self, painter: Painter, item: Item, seed: int, shares: Sequence[float | None] | None = None) -> Graph:
        """Build the graph; the painter's server gets the colours and where they lie."""
        builder = GraphBuilder()
        model, text, vae = builder.load()
        layout, segmenter = builder.layout(item.layout), _segmenters(builder, GENERAL)
        ground = _empty_place(builder, model, text, vae, item, seed)
        colours: Link = [builder.add("LoadImage", image=painter.upload(start_colours(item))), 0]
        regions = painter.upload(1 - item.layout.visible_masks(CANVAS, CANVAS)[0].numpy())
        start = builder.add(
            "ImageCompositeMasked",
            destination=ground,
            source=colours,
            mask=[builder.add("LoadImageMask", image=regions, channel="red"), 0],
            x=0,
            y=0,
            resize_source=False,
        )
        stage = _Stage([start, 0], layout, segmenter, model, text, vae)
        return _refine(builder, stage, item, seed, (self.denoise,) if shares is None else shares)


def start_colours(item: Item) -> np.ndarray:
    """The flat colours of the layout's start, which is told no true ones: uint8 (h w 3)."""
    (picture,) = flat_colours(coloured(item.layout, NONE), CANVAS, CANVAS)
    return np.round(255 * picture.movedim(0, -1).numpy()).astype(np.uint8)


def _empty_place(builder: GraphBuilder, model: Link, text: Link, vae: Link, item: Item, seed: int) -> Link:
    """IMAGE of the background alone, painted by the checkpoint."""
    place, nothing = builder.encode(text, item.layout.background), builder.encode(text, NEGATIVE)
    return builder.painted(model, place, nothing, vae, seed)


@dataclass(frozen=True)
class _Stage:
    """What stage two needs."""

    draft: Link
    layout: Link
    segmenter: Link
    model: Link
    text: Link
    vae: Link
    layered: bool = False


def _segmenters(builder: GraphBuilder, folders: Sequence[str]) -> Link:
    others: dict[str, Link] = {}
    for folder in folders:
        others = {"others": [builder.add("StageSegmenterLoader", folder=folder, **others), 0]}
    return others["others"]


def _refine(builder: GraphBuilder, stage: _Stage, item: Item, seed: int, shares: Sequence[float | None]) -> Graph:
    builder.add("PreviewImage", DRAFT, images=stage.draft)
    model, positive = stage.model, builder.encode(stage.text, item.layout.prompt)
    negative = builder.encode(stage.text, NEGATIVE)
    if stage.layered:
        model, positive, negative = LRDiff(end_at=LAYERED_UNTIL).render(
            builder,
            model=model,
            clip=stage.text,
            vae=stage.vae,
            layout=stage.layout,
            positive=positive,
            negative=negative,
        )
    for number, denoise in enumerate(shares):
        by_hand = {"denoise_from": "mask fit" if denoise is None else "by hand", "denoise": denoise or 0.0}
        made = builder.add(
            "StageTCIGRefine",
            image=stage.draft,
            layout=stage.layout,
            segmenter=stage.segmenter,
            model=model,
            vae=stage.vae,
            positive=positive,
            negative=negative,
            seed=seed,
            steps=STEPS,
            cfg=CFG,
            sampler_name=SAMPLER,
            scheduler=SCHEDULER,
            denoise_if_fits=LEAST_DENOISE,
            denoise_if_not=MOST_DENOISE,
            hold=HOLD,
            upscale=1.0,
            **by_hand,
        )
        builder.add("PreviewImage", refined(number), images=[made, 0])
    return builder.graph


def flat_drawing(item: Item) -> np.ndarray:
    """Every thing's silhouette in its mean colour on the background's: uint8 (h w 3)."""
    ground = paint_background(item.background, np.random.default_rng(item.seed))
    drawing = np.broadcast_to(ground.mean((0, 1)), ground.shape).copy()
    for placement in item.placements:
        pixels = placement.pixels()
        drawing[placement.mask() >= 0.5] = pixels[..., :3].sum((0, 1)) / pixels[..., 3].sum()
    return np.round(np.clip(drawing, 0, 1) * 255).astype(np.uint8)


def paint(painter: Painter, graph: Graph) -> tuple[Mapping[str, np.ndarray], float]:
    """Run a graph of one picture per node: uint8 pictures (h w 3) by node, and seconds on the server.

    Raises:
        PromptRejected: the server does not accept the graph.
        PromptFailed: a node failed.
    """
    result = painter.server.run(graph, timeout=TIMEOUT)
    shown = {node: pictures[0] for node, pictures in result.images.items() if node == DRAFT or node.startswith("refi")}
    return {
        node: np.asarray(Image.open(io.BytesIO(data), formats=["PNG"]).convert("RGB")) for node, data in shown.items()
    }, (result.seconds)
