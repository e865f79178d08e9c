"""Draws what was found beside what was asked: readable at 256 pixels."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .layout import Layout
from .layout_score import RegionScore, match_layout, score_picture
from .masks import Box
from .metrics import Array, to_numpy
from .segmentation import Segmenter

# One colour per region, far apart in hue and readable on most pictures.
COLOURS = (
    (255, 99, 71), (64, 160, 255), (255, 212, 59), (80, 220, 100), (214, 120, 255), (64, 224, 208), (255, 150, 40),
)  # fmt: skip
TINT = 0.35  # opacity of a found mask
SMALLEST_SIDE = 512  # pixels; smaller pictures are enlarged by a whole factor so that lines and letters stay sharp
DASH, LINE, LETTERS = 8, 3, 18  # pixels of a picture whose shorter side is 512


def score_and_draw(image: Tensor, layout: Layout, segmenter: Segmenter) -> tuple[list[RegionScore], Tensor]:
    """Score one picture (h w 3) against a layout and draw the result; see `score_picture` and `draw_scores`.

    Raises:
        SegmenterError: a phrase has no class.
        LayoutError: the picture has not the shape of the canvas.
    """
    indices = match_layout(layout, segmenter.classes)  # before the network runs: a bad phrase fails at once
    probabilities = segmenter.probabilities(image[None])[0]
    scores = score_picture(probabilities, segmenter.classes, layout)
    labels = probabilities.argmax(0)
    return scores, draw_scores(image, scores, [labels == index for index in indices])


def draw_scores(image: Tensor, scores: Sequence[RegionScore], masks: Sequence[Array | None]) -> Tensor:
    """Draw one picture's scores on it: dashed asked boxes, solid found boxes, tinted found masks, names and box IoUs.

    Args:
        image: (h w 3), float in 0..1.
        scores: one per region.
        masks: one (h w) mask per region of what the segmenter found, or None.

    Returns:
        (h' w' 3) float32 on the CPU; h' and w' are h and w times the smallest whole number that makes the shorter
        side at least `SMALLEST_SIDE`.
    """
    height, width = image.shape[:2]
    factor = -(-SMALLEST_SIDE // min(height, width))
    pixels = rearrange(image.detach().float().cpu().clamp(0, 1), "h w c -> 1 c h w")
    large = F.interpolate(pixels, scale_factor=factor, mode="bilinear") if factor > 1 else pixels
    canvas = rearrange(large[0], "c h w -> h w c").numpy().copy()
    for i, mask in enumerate(masks):
        if mask is not None:
            inside = np.repeat(np.repeat(to_numpy(mask) >= 0.5, factor, 0), factor, 1)
            canvas[inside] = (1 - TINT) * canvas[inside] + TINT * np.array(_colour(i)) / 255

    picture = Image.fromarray(np.round(canvas * 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    scale = min(picture.size) / SMALLEST_SIDE
    for i, score in enumerate(scores):
        _dashed_box(draw, _pixels(score.asked_box, picture.size), _colour(i), scale)
        if score.found_box is not None:
            draw.rectangle(_pixels(score.found_box, picture.size), outline=_colour(i), width=round(LINE * scale))
    for i, score in enumerate(scores):  # after all boxes, so that no line crosses a letter
        _label(draw, score, picture.size, _colour(i), scale)
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)


def _colour(index: int) -> tuple[int, int, int]:
    return COLOURS[index % len(COLOURS)]


def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Corners in pixels, inside the picture."""
    corners = (box[0] * size[0], box[1] * size[1], box[2] * size[0] - 1, box[3] * size[1] - 1)
    return tuple(min(max(round(value), 0), side - 1) for value, side in zip(corners, size * 2, strict=True))


def _dashed_box(draw: ImageDraw.ImageDraw, box: tuple[int, ...], colour: tuple[int, ...], scale: float) -> None:
    x0, y0, x1, y1 = box
    dash, line = round(DASH * scale), round(LINE * scale)
    for start in range(x0, x1, 2 * dash):
        for y in (y0, y1):
            draw.line((start, y, min(start + dash, x1), y), colour, line)
    for start in range(y0, y1, 2 * dash):
        for x in (x0, x1):
            draw.line((x, start, x, min(start + dash, y1)), colour, line)


def _label(
    draw: ImageDraw.ImageDraw, score: RegionScore, size: tuple[int, int], colour: tuple[int, ...], scale: float
) -> None:
    """The class and box IoU on a dark plate at the asked box's top left corner, kept inside the picture."""
    text = f"{score.class_name} {score.box_iou:.2f}" if score.found_box else f"{score.class_name} not found"
    font = ImageFont.load_default(LETTERS * scale)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    margin = round(2 * scale)
    plate = (right - left + 2 * margin, bottom - top + 2 * margin)
    x0, y0, _, _ = _pixels(score.asked_box, size)
    x, y = max(0, min(x0, size[0] - plate[0])), max(0, min(y0, size[1] - plate[1]))
    draw.rectangle((x, y, x + plate[0], y + plate[1]), fill=(0, 0, 0))
    draw.text((x + margin - left, y + margin - top), text, fill=colour, font=font)
