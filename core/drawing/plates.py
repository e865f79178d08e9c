"""What all drawings over pictures share: whole-factor enlargement, outlines of masks, and text on a plate."""

from collections.abc import Sequence

import torch.nn.functional as F
from einops import rearrange
from PIL import ImageDraw, ImageFont
from torch import Tensor

from .pictures import colours_of

SMALLEST_SIDE = 512  # pixels; smaller pictures are enlarged by a whole factor so that lines and letters stay sharp
LARGEST_ENLARGED = 4096  # pixels; a strip is not enlarged beyond this
LINE = 3  # pixels of a picture whose shorter side is 512

# One colour per region, far apart in hue and readable on most pictures.
COLOURS = (
    (255, 99, 71),
    (64, 160, 255),
    (255, 212, 59),
    (80, 220, 100),
    (214, 120, 255),
    (64, 224, 208),
    (255, 150, 40),
)
Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def region_colour(index: int) -> Colour:
    """The colour of a region by its place in painter's order."""
    return COLOURS[index % len(COLOURS)]


def enlarging_factor(height: int, width: int) -> int:
    """The smallest whole number that brings the shorter side to `SMALLEST_SIDE` or more; less for a strip."""
    return max(1, min(-(-SMALLEST_SIDE // min(height, width)), LARGEST_ENLARGED // max(height, width)))


def enlarged(image: Tensor) -> Tensor:
    """A picture (h w c) in 0..1 made larger by `enlarging_factor`: (h' w' 3) float32 on the CPU."""
    factor = enlarging_factor(*image.shape[:2])
    pixels = rearrange(colours_of(image).detach().cpu().clamp(0, 1), "h w c -> 1 c h w")
    size = [side * factor for side in image.shape[:2]]
    return rearrange(F.interpolate(pixels, size, mode="bilinear")[0], "c h w -> h w c")


def mask_outline(mask: Tensor, width: int) -> Tensor:
    """Where a bool mask (h w) is within `width` pixels of its edge or of the picture's: bool (h w)."""
    padded = F.pad((~mask).float()[None], (width,) * 4, value=1.0)
    return mask & (F.max_pool2d(padded, 2 * width + 1, stride=1)[0] > 0)


def draw_plate(
    draw: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    size: tuple[int, int],
    *,
    letters: float,
    margin: float,
    plate: Colour = (0, 0, 0),
    ink: Colour = (255, 255, 255),
    taken: Sequence[Rectangle] = (),
) -> Rectangle:
    """Write on a plate that stays inside the picture.

    Args:
        draw: of the picture.
        text: shortened where it is wider than the picture.
        corner: where the plate's top left corner should be, in pixels.
        size: width and height of the picture.
        letters: font size in pixels.
        margin: around the letters, in pixels.
        plate: its colour.
        ink: the letters' colour.
        taken: plates that are already there; this one goes below those in its way.

    Returns:
        Where the plate lies.
    """
    font = ImageFont.load_default(letters)
    while draw.textlength(text, font) > size[0] - 2 * margin and len(text) > 4:
        text = f"{text[:-4]}..."
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 2 * margin, bottom - top + 2 * margin
    x, y = max(0, min(corner[0], size[0] - width)), max(0, min(corner[1], size[1] - height))
    for other in sorted(taken, key=lambda other: other[1]):
        if x < other[2] and other[0] < x + width and y < other[3] and other[1] < y + height:
            y = min(other[3], size[1] - height)
    draw.rectangle((x, y, x + width, y + height), fill=plate)
    draw.text((x + margin - left, y + margin - top), text, fill=ink, font=font)
    return x, y, x + width, y + height
