"""Pictures painted layer by layer by our own node on a real server, and whether each thing is in a layer of its own."""

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...commands.comfy_api import Result
from ...core.layers.files import SUFFIXES, read_layer_file, write_layer_file
from ...core.layers.layered_image import Layer, LayeredImage
from ...core.layers.stored import stored
from ...sticker_world.shipped import TEXT2LAYER_FILE
from ...sticker_world.world.captions import plain_prompt
from ...sticker_world.world.concepts import CANVAS
from ..base_family import all_present
from ..graphs.builder import CFG, NEGATIVE, PICTURES, SAMPLER, SCHEDULER, STEPS, Graph, GraphBuilder, Link
from ..image_lines import image_line
from ..judging.yardsticks import Yardsticks
from ..painter import TIMEOUT, Painter
from ..records.lines import PictureLine
from ..result_rows import measure
from ..sets.sets import PresencePrompt, expected_areas
from ..summary.means import mean_of
from .scores import own_layers

SET = "text2layer_layers"
METHOD = "layer by layer"
BACKGROUND, COLOURS, ALPHAS, AGAIN = "background", "colours", "alphas", "again"  # further nodes with pictures
SHOWS = "1 shows the picture"  # what a mask means to Composite Layers
GREY = 128  # of 255; what a layer alone is shown to the segmenter before
LEVELS = 255
OWN, ALL_OWN, RECOMPOSED = "in its own layer", "all in their own", "recomposed error"  # measures of a picture
TARGETS = {"present": 0.7, "recomposed": 1 / LEVELS}


@dataclass(frozen=True)
class Painted:
    """A picture in layers.

    Attributes:
        prompt: what was asked for.
        picture: the composite, uint8 (h w 3).
        image: its layers as they come out in 8 bits, one picture.
        recomposed: the composite of the same layers by the node Composite Layers, uint8 (h w 3).
        own: for each thing, whether it is in its own layer.
        present: whether the strict judge finds all things in the composite.
        seconds: it took.
    """

    prompt: PresencePrompt
    picture: np.ndarray
    image: LayeredImage
    recomposed: np.ndarray
    own: tuple[bool, ...]
    present: bool
    seconds: float


def layers_painted(builder: GraphBuilder, prompt: str, seed: int, steps: int = STEPS, **more: Link) -> str:
    """Add the node with all that it needs, from the embedded file; returns its id.

    Args:
        builder: that gets the nodes.
        prompt: of the picture; "" where a layout is among `more`.
        seed: of the lowest layer.
        steps: of each layer.
        more: further links of the node, by input.
    """
    _, clip, _ = builder.load()
    file = builder.add("StageText2LayerLoader", text2layer_name=TEXT2LAYER_FILE.name)
    return builder.add(
        "StageLayerByLayer",
        model=[file, 0],
        layered_vae=[file, 1],
        clip=clip,
        prompt=prompt,
        background="",
        seed=seed,
        steps=steps,
        cfg=CFG,
        sampler_name=SAMPLER,
        scheduler=SCHEDULER,
        width=CANVAS,
        height=CANVAS,
        negative=NEGATIVE,
        **more,
    )


def graph(prompt: PresencePrompt, steps: int = STEPS) -> Graph:
    """Paint a prompt layer by layer, and lay the layers over each other again."""
    builder = GraphBuilder()
    painted = layers_painted(builder, prompt.prompt, prompt.seed, steps)
    again = builder.add(
        "StageComposite",
        layers=[painted, 2],
        arrange="",
        shadow=0.0,
        shadow_right=0.0,
        shadow_down=0.0,
        shadow_blur=0.0,
        mask_means=SHOWS,
    )
    alphas = builder.add("MaskToImage", mask=[painted, 4])
    shown = {PICTURES: [painted, 0], COLOURS: [painted, 3], ALPHAS: [alphas, 0], BACKGROUND: [painted, 5]}
    for node_id, link in (shown | {AGAIN: [again, 0]}).items():
        builder.add("PreviewImage", node_id, images=link)
    return builder.graph


def paint(painter: Painter, yardsticks: Yardsticks, prompt: PresencePrompt) -> Painted:
    """Paint a prompt and judge its layers."""
    result = painter.server.run(graph(prompt), timeout=TIMEOUT)
    (picture,), (background,), (again,) = (_pictures(result, name) for name in (PICTURES, BACKGROUND, AGAIN))
    parts = (_pictures(result, name) for name in (COLOURS, ALPHAS))
    layers = [np.concatenate([colour, alpha[..., :1]], -1) for colour, alpha in zip(*parts, strict=True)]
    image = layered_image(background, layers, prompt.concepts)
    alone = [yardsticks.labels(over_grey(layer)) for layer in layers]
    areas = expected_areas(len(prompt.concepts))
    classes = [yardsticks.segmenter.class_of(concept) for concept in prompt.concepts]
    own = own_layers(alone, classes, [areas[concept] for concept in prompt.concepts])
    return Painted(
        prompt, picture, image, again, tuple(own), all_present(yardsticks, picture, prompt.concepts), result.seconds
    )


def _pictures(result: Result, node_id: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(data), formats=["PNG"]).convert("RGB")) for data in result.images[node_id]]


def over_grey(layer: np.ndarray) -> np.ndarray:
    """A layer, uint8 (h w 4) with straight colour, alone before grey: uint8 (h w 3)."""
    alpha = layer[..., 3:].astype(np.float32) / LEVELS
    return np.round(alpha * layer[..., :3] + (1 - alpha) * GREY).astype(np.uint8)


def layered_image(background: np.ndarray, layers: Sequence[np.ndarray], names: Sequence[str]) -> LayeredImage:
    """Layers as they come out of the server: uint8 (h w 3), and (h w 4) each."""
    rgba = [torch.from_numpy(layer.astype(np.float32) / LEVELS)[None] for layer in layers]
    return LayeredImage(
        torch.from_numpy(background.astype(np.float32) / LEVELS)[None],
        [Layer(layer[..., :3], layer[..., 3], name) for layer, name in zip(rgba, names, strict=True)],
    )


def largest_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Of two uint8 pictures, in 0..1."""
    return float(np.abs(first.astype(int) - second.astype(int)).max() / LEVELS)


def saved_difference(image: LayeredImage, suffix: str) -> float:
    """Largest difference in 0..1 between a picture's composite and that of its file, opened again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"layers{suffix}"
        write_layer_file(stored(image), path)
        found = read_layer_file(path).composite()
    return float((found - image.composite()).abs().max())


def layers_line(yardsticks: Yardsticks, painted: Painted) -> PictureLine:
    """The scores of a picture in layers; "present" is whether all things are in the composite."""
    prompt = painted.prompt
    measures = {
        OWN: float(np.mean(painted.own)),
        ALL_OWN: all(painted.own),
        RECOMPOSED: largest_difference(painted.recomposed, painted.picture),
        **{saved(suffix): saved_difference(painted.image, suffix) for suffix in SUFFIXES},
    }
    return image_line(
        yardsticks,
        (METHOD, SET, prompt.seed, 0),
        painted.picture,
        plain_prompt(prompt.concepts, prompt.background),
        objects=len(prompt.concepts),
        present=painted.present,
        seconds=painted.seconds,
        measures=measures,
    )


def saved(suffix: str) -> str:
    """The name of what a file of layers loses."""
    return f"saved as {suffix} error"


def layers_measures(lines: Sequence[PictureLine]) -> list[dict]:
    """How many things have a layer of their own, and whether the layers are the picture, each of them."""
    named = {RECOMPOSED: "recomposed by Composite Layers"}
    named |= {saved(suffix): f"saved as {suffix} and opened" for suffix in SUFFIXES}
    return [
        mean_of(lines, lambda line: line.measures[ALL_OWN]).measure(
            "layers: all things, each in its own", "", TARGETS["present"]
        ),
        mean_of(lines, lambda line: line.measures[OWN]).measure("layers: a thing in its own"),
        *(
            measure(
                f"layers: {name}, largest difference",
                max(line.measures[key] for line in lines),
                "",
                TARGETS["recomposed"],
            )
            for key, name in named.items()
        ),
    ]


def shown(painted: Painted) -> np.ndarray:
    """The composite, the background and each layer before grey, side by side: uint8 (h w 3)."""
    layers = [np.round(LEVELS * layer.rgba()[0].numpy()).astype(np.uint8) for layer in painted.image.layers]
    background = np.round(LEVELS * painted.image.background[0].numpy()).astype(np.uint8)
    return np.concatenate([painted.picture, background, *(over_grey(layer) for layer in layers)], 1)
