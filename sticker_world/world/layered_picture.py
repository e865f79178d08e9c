"""Draws the layered picture that the pack ships, so that Load Layers has one to open: a house, a tree and a dog."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ...core.layers.files import write_layer_file
from ...core.layers.layered_image import Layer, LayeredImage
from ...core.layers.stored import stored
from ..shipped import MODELS
from .backgrounds import paint_background
from .scene import SPRITES

FILE = MODELS / "layered_pictures" / "sticker_world_meadow.ora"
SIDE = 512  # pixels
SEED = 5  # of the background
# name -> its longer side, and the middle of its left-right and top-bottom extent, in shares of the canvas
THINGS = {"house": (0.34, 0.74, 0.5), "tree": (0.46, 0.22, 0.5), "dog": (0.34, 0.47, 0.76)}


def draw_picture() -> LayeredImage:
    """Paint the background and put the sprites on it, farthest first: one picture of `SIDE` x `SIDE` pixels."""
    ground = paint_background("meadow", np.random.default_rng(SEED))
    ground = Image.fromarray((ground * 255).round().astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    layers = []
    for name, (size, x, y) in THINGS.items():
        # Multiplied by opacity while it is scaled, so that the colour of transparent pixels does not bleed.
        sprite = Image.open(SPRITES / f"{name}.webp", formats=["WEBP"]).convert("RGBa")
        scale = size * SIDE / max(sprite.size)
        sprite = sprite.resize([round(side * scale) for side in sprite.size], Image.Resampling.LANCZOS).convert("RGBA")
        canvas = Image.new("RGBA", (SIDE, SIDE))
        canvas.paste(sprite, (round(x * SIDE - sprite.width / 2), round(y * SIDE - sprite.height / 2)))
        rgba = torch.from_numpy(np.asarray(canvas, np.float32) / 255)[None]
        layers.append(Layer(rgba[..., :3], rgba[..., 3], name))
    background = torch.from_numpy(np.asarray(ground, np.float32) / 255)[None]
    return LayeredImage(background, layers)


def main(arguments: list[str]) -> int:
    """Draw it and write the file: `python commands/launcher.py sticker_world.world.layered_picture [FILE]`."""
    path = Path(arguments[0]) if arguments else FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_layer_file(stored(draw_picture()), path)
    return 0
