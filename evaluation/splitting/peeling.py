"""A picture taken apart: by Split Layers, the nearest thing first and the next one out of what was filled in behind it.

All ways hear what is in the picture and in which order, and find it with the same segmenter, which knows no shape that
is hidden. What is painted behind hears nothing, as in the paper, or what the background is called. The plain way is to
cut the segmenter's labels out and to leave the background as it is.
"""

from dataclasses import dataclass

import numpy as np

from ...core.layout.prompts import with_article
from ...core.segmentation.segmenter import Segmenter
from ...core.text2layer.splitting import DILATION
from ...sticker_world.world.scene import Scene
from ..graphs.builder import CHECKPOINT, PICTURES, SAMPLER, SCHEDULER, STEPS, Graph, GraphBuilder
from ..graphs.counted import COUNTED, counted
from ..judging.yardsticks import to_images
from ..painter import Painter, pictures_of
from .measures import LEVELS, FoundLayer, TakenApart

FOREGROUND, MASK = "foreground", "mask"  # further nodes with pictures
# At the node's own defaults; the thing's name is the negative prompt.
CFG = 4.0
SETTINGS = {
    "dilation": DILATION,
    "steps": STEPS,
    "cfg": CFG,
    "sampler_name": SAMPLER,
    "scheduler": SCHEDULER,
    "tries": 1,
    "clean_edges": True,
    "folder": "",
    "save": "good ones only",
    "captions": "",
}


@dataclass(frozen=True)
class Cost:
    """Seconds on the server, and rows that the network evaluated."""

    seconds: float = 0.0
    evaluations: int = 0


def graph(picture: str, mask: str, name: str, behind: str, seed: int) -> Graph:
    """Split one thing off.

    Args:
        picture: its file's name in the server's input folder.
        mask: of the thing, likewise.
        name: of the thing, which is not to be painted behind it.
        behind: prompt of what is painted there.
        seed: of the noise.
    """
    builder = GraphBuilder()
    model, clip, vae = builder.load()
    split = builder.add(
        "StageSplitLayers",
        image=[builder.add("LoadImage", image=picture), 0],
        mask=[builder.add("LoadImageMask", image=mask, channel="red"), 0],
        model=model,
        vae=vae,
        positive=builder.encode(clip, behind),
        negative=builder.encode(clip, name),
        seed=seed,
        **SETTINGS,
    )
    alpha = builder.add("MaskToImage", mask=[split, 2])
    builder.add("PreviewImage", FOREGROUND, images=[split, 0])
    builder.add("PreviewImage", MASK, images=[alpha, 0])
    return builder.show([split, 1])


def split_scene(
    painter: Painter, segmenter: Segmenter, scene: Scene, seed: int, behind: str = ""
) -> tuple[TakenApart, Cost]:
    """Take a scene's picture apart with Split Layers; a thing that the segmenter does not find has an empty layer.

    Args:
        painter: of a server with `baselines`.
        segmenter: finds the things.
        scene: of which the picture and the things' names and order are told.
        seed: of the noise behind the nearest thing; the next has the next one.
        behind: prompt of what is painted; empty as in the paper.
    """
    picture, layers, cost = scene.image, [], Cost()
    for number, thing in enumerate(reversed(scene.objects)):
        shape = shape_in(segmenter, picture, thing.concept)
        if not shape.any() or shape.all():
            layers.append(FoundLayer(np.zeros(picture.shape), np.zeros(shape.shape)))
            continue
        files = painter.upload(picture), painter.upload(shape)
        result = painter.run(counted(graph(*files, with_article(thing.concept), behind, seed + number), CHECKPOINT))
        (colour,), (alpha,), (picture,) = (pictures_of(result, node) for node in (FOREGROUND, MASK, PICTURES))
        layers.append(FoundLayer(colour / LEVELS, alpha[..., 0] / LEVELS))
        evaluated = int(result.outputs[COUNTED]["text"][0])
        cost = Cost(cost.seconds + result.seconds, cost.evaluations + evaluated)
    return TakenApart(picture / LEVELS, tuple(reversed(layers))), cost


def cut_out(segmenter: Segmenter, scene: Scene) -> TakenApart:
    """Each thing's labels cut out of the picture, which is the background too."""
    picture = scene.image / LEVELS
    shapes = (shape_in(segmenter, scene.image, thing.concept) for thing in scene.objects)
    return TakenApart(picture, tuple(FoundLayer(picture, shape.astype(float)) for shape in shapes))


def shape_in(segmenter: Segmenter, picture: np.ndarray, concept: str) -> np.ndarray:
    """Where a segmenter sees a thing in a uint8 picture (h w 3): bool (h w)."""
    return (segmenter.labels(to_images([picture]))[0] == segmenter.class_of(concept)).numpy()
