"""How the losses of an optimisation fell, as a picture."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..attention_guidance.log import HEIGHT, INK, LETTERS, MARGIN, PAPER, RULER, WIDTH
from .plates import region_colour

LINE_HEIGHT = LETTERS + 5  # pixels, of the legend


def plot_losses(losses: Mapping[str, Sequence[float]], title: str) -> Tensor:
    """Draw each loss over the iterations, as a share of its own largest value: they have different scales.

    Args:
        losses: name -> a value for every iteration, finite, 0 or more; a negative one is drawn at 0.
        title: above the plot.

    Returns:
        float32 (h w 3) in 0..1.
    """
    canvas = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(LETTERS)
    left, right, top, bottom = MARGIN, WIDTH - 12, 36, HEIGHT - 28
    draw.text((left, 8), title, fill=INK, font=font)
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * (bottom - top)
        draw.line((left, y, right, y), fill=RULER)
        draw.text((4, y - LETTERS / 2), f"{share:.0%}", fill=INK, font=font)
    count = max(map(len, losses.values()))
    draw.text((left, bottom + 6), f"{count} iterations; each loss as a share of its largest value", fill=INK, font=font)
    for index, (name, values) in enumerate(losses.items()):
        highest = max(max(values), 0.0) or 1.0
        points = [
            (left + i / max(1, count - 1) * (right - left), bottom - max(value, 0.0) / highest * (bottom - top))
            for i, value in enumerate(values)
        ]
        if len(points) > 1:
            draw.line(points, fill=region_colour(index), width=2)
        else:
            x, y = points[0]
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=region_colour(index))
        # At the lower left, where falling losses leave room.
        corner = (left + 8, bottom - LINE_HEIGHT * (len(losses) - index) - 4)
        draw.text(corner, f"{name}: {values[0]:.3g} to {values[-1]:.3g}", fill=region_colour(index), font=font)
    return torch.from_numpy(np.asarray(canvas, np.float32) / 255)
