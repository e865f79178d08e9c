"""Icon and banner for ComfyUI's registry: `python commands/launcher.py evaluation.pages.registry`.

The icon is a drawn scene of the embedded world with its layout around it, `assets/icon.png`; the banner shows layouts
and what layered rendering painted for them, cut out of the README's first picture, `assets/banner.jpg`.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ...commands.environment import CLONE
from ...sticker_world.world.concepts import CANVAS
from ..sets.sets import Placement, paste
from ..tiles import GAP, PAPER, tile
from .gallery import FILE

ICON, BANNER = CLONE / "assets" / "icon.png", CLONE / "assets" / "banner.jpg"
ICON_SIDE = 400  # pixels, the registry's size
BANNER_SHAPE = (21, 9)
PLACE, SEED = "meadow", 3
STANDING = (Placement("house", 0.58, 0.0, False, 12, 22), Placement("dog", 0.5, 0.0, False, 116, 112))
LINES = ((230, 97, 76), (60, 140, 230))  # of the boxes, as Layout Preview has them
COLUMNS = (0, 1, 2, 4, 5)  # of the README's picture; a banner has room for five
LAYOUTS, PAINTED = 0, 2  # its rows


def main(argv: Sequence[str] | None = None) -> int:
    """Draw both; returns the exit status."""
    icon().save(ICON, optimize=True)
    with Image.open(FILE, formats=["JPEG"]) as gallery:
        banner(gallery).save(BANNER, quality=88)
    print(f"written: {ICON}, {BANNER}")
    return 0


def icon() -> Image.Image:
    """Two things where two boxes are."""
    scale = ICON_SIDE / CANVAS
    picture = Image.fromarray(paste(PLACE, STANDING, SEED)).resize((ICON_SIDE, ICON_SIDE), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    for placement, colour in zip(STANDING, LINES, strict=True):
        height, width = placement.pixels().shape[:2]
        corners = placement.left, placement.top, placement.left + width, placement.top + height
        draw.rounded_rectangle([each * scale for each in corners], 10, outline=colour, width=6)
    return picture


def banner(gallery: Image.Image) -> Image.Image:
    """Layouts, and below each what was painted, on paper of the registry's shape."""
    step = CANVAS + GAP
    corners = [[(GAP + column * step, GAP + row * step) for column in COLUMNS] for row in (LAYOUTS, PAINTED)]
    parts = [[gallery.crop((x, y, x + CANVAS, y + CANVAS)) for x, y in line] for line in corners]
    tiles = tile([[np.asarray(part) for part in line] for line in parts])
    wide, high = BANNER_SHAPE
    sheet = Image.new("RGB", (tiles.width, tiles.width * high // wide), PAPER)
    sheet.paste(tiles, (0, (sheet.height - tiles.height) // 2))
    return sheet
