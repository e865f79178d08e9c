"""Pictures in a grid, for the pages."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..sticker_world.world.concepts import CANVAS

GAP = 8  # pixels between pictures
PAPER = (250, 250, 248)


def tile(rows: Sequence[Sequence[np.ndarray]], side: int = CANVAS, gap: int = GAP) -> Image.Image:
    """Lay pictures out in a grid, with a gap around each.

    Args:
        rows: uint8 (h w 3), square; reduced or enlarged to their place. Rows may be shorter than the first.
        side: of a picture's place, pixels.
        gap: between pictures, and around all of them.
    """
    step = side + gap
    sheet = Image.new("RGB", (step * len(rows[0]) + gap, step * len(rows) + gap), PAPER)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            shown = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(shown, (gap + x * step, gap + y * step))
    return sheet
