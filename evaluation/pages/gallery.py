"""The README's first picture: layouts, what the prompt alone paints, and what two of the methods paint.

`python commands/launcher.py evaluation.pages.gallery` paints it on a real ComfyUI server and writes
`assets/gallery.jpg`. The layouts are for show; they are in no evaluation set.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ...commands.comfy_server import ComfyServer
from ...commands.environment import CLONE, current_environment
from ...core.layout.layout import Layout
from ...core.layout.preview import draw_layout
from ...core.layout.reading import parse_layout
from ...sticker_world.world.concepts import CANVAS
from ..graphs import sali
from ..graphs.builder import Method
from ..graphs.methods import METHODS
from ..painter import Painter
from ..tiles import tile

FILE = CLONE / "assets" / "gallery.jpg"
SHOWN: tuple[Method, ...] = (METHODS["plain"], METHODS["lrdiff"], sali.METHODS[sali.BOTH])
# (seed, background, regions)
LAYOUTS = (
    (
        1,
        "on a green meadow",
        "a house: 0.05 0.1 0.5 0.58 | colour=#b18c72\na panda: 0.5 0.45 0.95 0.9 | colour=#b2a2c8",
    ),
    (2, "at night", "a rocket: 0.55 0.05 0.95 0.5 | colour=#db93a8\na frog: 0.06 0.5 0.46 0.92 | colour=#a1be72"),
    (3, "on the beach", "a duck: 0.05 0.4 0.45 0.8 | colour=#a9a19e\na bus: 0.5 0.55 0.95 0.9 | colour=#9aa3aa"),
    (4, "in the snow", "a tree: 0.62 0.08 0.94 0.6 | colour=#70a260\na penguin: 0.12 0.3 0.5 0.8 | colour=#b58cba"),
    (
        5,
        "in the desert",
        "a cactus: 0.06 0.08 0.44 0.56 | colour=#67b365\na tractor: 0.46 0.5 0.95 0.9 | colour=#3f8b81",
    ),
    (6, "in a room", "a cat: 0.06 0.48 0.48 0.9 | colour=#f3a04b\na gift: 0.56 0.1 0.92 0.5 | colour=#e07c3d"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Paint the gallery; returns the exit status."""
    layouts = [
        (seed, parse_layout(text, width=CANVAS, height=CANVAS, background=background))
        for seed, background, text in LAYOUTS
    ]
    with ComfyServer(current_environment(), CLONE) as server:
        painter = Painter(server)
        rows = [[_preview(layout) for _, layout in layouts]]
        for method in SHOWN:
            rows.append([painter.paint_graph(method(layout, seed, 1))[0][0] for seed, layout in layouts])
    FILE.parent.mkdir(exist_ok=True)
    tile(rows).save(FILE, quality=90)
    print(f"written: {FILE}")
    return 0


def _preview(layout: Layout) -> np.ndarray:
    picture = Image.fromarray((draw_layout(layout)[0] * 255).round().byte().numpy())
    return np.asarray(picture.resize((CANVAS, CANVAS), Image.Resampling.LANCZOS))
