"""Draws what was found beside what was asked: readable at 256 pixels."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..drawing.plates import LINE, SMALLEST_SIDE, Colour, draw_plate, enlarged, enlarging_factor, region_colour
from ..layout.layout import Layout
from ..layout.masks import Array, Box, inside_of, to_numpy
from ..segmentation.files import SegmenterError
from ..segmentation.segmenter import Segmenter, back_to_size, readable
from .layout_score import RegionScore, match_layout, score_picture

TINT = 0.35  # opacity of a found mask
DASH, LETTERS, MARGIN = 8, 18, 2  # pixels of a picture whose shorter side is 512


def score_and_draw(image: Tensor, layout: Layout, segmenter: Segmenter) -> tuple[list[RegionScore], Tensor]:
    """Score one picture (h w c) against a layout and draw the result; see `score_picture` and `draw_scores`.

    Raises:
        SegmenterError: a phrase has no class, or the network gives NaN.
        LayoutError: the picture has NaN or not the shape of the canvas, or a region's mask is nowhere half opaque.
    """
    segmenter = segmenter.for_phrases([region.phrase for region in layout.sorted_regions()])
    indices = match_layout(layout, segmenter.classes)  # before the network runs: a bad phrase fails at once
    probabilities = segmenter.probabilities(readable(image)[None])[0]
    if not bool(torch.isfinite(probabilities).all()):
        raise SegmenterError("The segmenter gives numbers that are not finite (NaN). Copy its folder again.")
    scores = score_picture(probabilities, segmenter.classes, layout)
    labels = back_to_size(probabilities.argmax(0), *image.shape[:2])
    return scores, draw_scores(image, scores, [labels == index for index in indices])


def draw_scores(image: Tensor, scores: Sequence[RegionScore], masks: Sequence[Array | None]) -> Tensor:
    """Draw one picture's scores on it: dashed asked boxes, solid found boxes, tinted found masks, names and box IoUs.

    Args:
        image: (h w 3), float in 0..1.
        scores: one per region.
        masks: one (h w) mask per region of what the segmenter found, or None.

    Returns:
        (h' w' 3) float32 on the CPU, enlarged by `plates.enlarged`.
    """
    factor, canvas = enlarging_factor(*image.shape[:2]), enlarged(image).numpy().copy()
    for i, mask in enumerate(masks):
        if mask is not None:
            inside = np.repeat(np.repeat(to_numpy(inside_of(mask)), factor, 0), factor, 1)
            canvas[inside] = (1 - TINT) * canvas[inside] + TINT * np.array(region_colour(i)) / 255

    picture = Image.fromarray(np.round(canvas * 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    scale = min(picture.size) / SMALLEST_SIDE
    for i, score in enumerate(scores):
        _dashed_box(draw, _pixels(score.asked_box, picture.size), region_colour(i), scale)
        if score.found_box is not None:
            draw.rectangle(
                _pixels(score.found_box, picture.size), outline=region_colour(i), width=max(1, round(LINE * scale))
            )
    for i, score in enumerate(scores):  # after all boxes, so that no line crosses a letter
        _label(draw, score, picture.size, region_colour(i), scale)
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)


def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Corners in pixels, inside the picture."""
    corners = (box[0] * size[0], box[1] * size[1], box[2] * size[0] - 1, box[3] * size[1] - 1)
    return tuple(min(max(round(value), 0), side - 1) for value, side in zip(corners, size * 2, strict=True))


def _dashed_box(draw: ImageDraw.ImageDraw, box: tuple[int, ...], colour: tuple[int, ...], scale: float) -> None:
    x0, y0, x1, y1 = box
    dash, line = max(1, round(DASH * scale)), max(1, round(LINE * scale))
    for start in range(x0, x1, 2 * dash):
        for y in (y0, y1):
            draw.line((start, y, min(start + dash, x1), y), colour, line)
    for start in range(y0, y1, 2 * dash):
        for x in (x0, x1):
            draw.line((x, start, x, min(start + dash, y1)), colour, line)


def _label(draw: ImageDraw.ImageDraw, score: RegionScore, size: tuple[int, int], colour: Colour, scale: float) -> None:
    """The class and box IoU on a dark plate at the asked box's top left corner."""
    text = f"{score.class_name} {score.box_iou:.2f}" if score.found_box else f"{score.class_name} not found"
    corner = _pixels(score.asked_box, size)[:2]
    draw_plate(draw, text, corner, size, letters=LETTERS * scale, margin=round(MARGIN * scale), ink=colour)
