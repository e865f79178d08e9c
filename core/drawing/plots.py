"""Plots over the steps of a run, as pictures: energies of a guidance, losses of an optimisation."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .plates import Colour, region_colour

WIDTH, HEIGHT, MARGIN, LETTERS = 640, 360, 48, 15  # pixels of a plot
LEFT, RIGHT, TOP, BOTTOM = MARGIN, WIDTH - 12, 36, HEIGHT - 28  # where its axes end
TITLE_TOP, CAPTION_GAP, LABEL_LEFT = 8, 6, 4  # pixels
LINE_HEIGHT = LETTERS + 5  # pixels, of a legend
DASH, DOT = 6, 3  # pixels: of a dashed line and of the gaps in it; the radius
PAPER, INK, RULER = (24, 26, 32), (225, 225, 225), (70, 74, 84)
SHARES = (0.0, 0.5, 1.0)  # of the height; where a ruler is drawn

Point = tuple[float, float]  # x, y in pixels


class Plot:
    """A sheet with a title, on which things are drawn by their shares of the axes' width and height."""

    def __init__(self, title: str) -> None:
        self._canvas = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
        self._draw, self._font = ImageDraw.Draw(self._canvas), ImageFont.load_default(LETTERS)
        self.write(title, (LEFT, TITLE_TOP))

    def axes(self, labels: Sequence[str], caption: str) -> None:
        """Draw a ruler at each of `SHARES` with its label before it, and a caption below."""
        for share, label in zip(SHARES, labels, strict=True):
            _, y = self.point(0, share)
            self._draw.line((LEFT, y, RIGHT, y), fill=RULER)
            self.write(label, (LABEL_LEFT, y - LETTERS / 2))
        self.write(caption, (LEFT, BOTTOM + CAPTION_GAP))

    def point(self, across: float, up: float) -> Point:
        """Where shares of the axes' width and height lie, in pixels."""
        return LEFT + across * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP)

    def curve(self, shares: Sequence[float], steps: int) -> list[Point]:
        """Where the values of the first of so many steps lie; the last step is at the right end."""
        return [self.point(index / max(1, steps - 1), share) for index, share in enumerate(shares)]

    def line(self, points: Sequence[Point], colour: Colour) -> None:
        """Join points; one alone is no line."""
        if len(points) > 1:
            self._draw.line(points, fill=colour, width=2)

    def dashes(self, up: float) -> None:
        """Draw a dashed line across at a share of the height."""
        _, y = self.point(0, up)
        for x in range(LEFT, RIGHT, 2 * DASH):
            self._draw.line((x, y, x + DASH, y), fill=INK)

    def dot(self, point: Point, colour: Colour) -> None:
        """Draw a dot."""
        x, y = point
        self._draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=colour)

    def write(self, text: str, corner: Point, ink: Colour = INK) -> None:
        """Write from a corner on, the upper left one."""
        self._draw.text(corner, text, fill=ink, font=self._font)

    def picture(self) -> Tensor:
        """The sheet: float32 (h w 3) in 0..1."""
        return torch.from_numpy(np.asarray(self._canvas, np.float32) / 255)


def plot_energies(energies: Sequence[Sequence[float]], firsts: Sequence[int], threshold: float, title: str) -> Tensor:
    """Draw energies over the evaluations, a line per picture.

    Args:
        energies: of each evaluation, one for each picture, 0 or more.
        firsts: the evaluations that are the first of a model call; they get a dot.
        threshold: a dashed line, where it lies on the plot.
        title: above the plot.

    Returns:
        float32 (h w 3) in 0..1.
    """
    plot = Plot(title)
    if not energies:
        plot.write("nothing was guided", (LEFT, HEIGHT // 2))
        return plot.picture()
    highest = max(max(each) for each in energies) or 1.0
    labels = [f"{share * highest:.2g}" for share in SHARES]
    plot.axes(labels, "evaluations of the energy; dots: first of a model call")
    if 0 < threshold <= highest:
        plot.dashes(threshold / highest)
    for picture, values in enumerate(zip(*energies, strict=True)):
        points = plot.curve([value / highest for value in values], len(energies))
        plot.line(points, region_colour(picture))
        for first in firsts:
            plot.dot(points[first], region_colour(picture))
    return plot.picture()


def plot_losses(losses: Mapping[str, Sequence[float]], title: str) -> Tensor:
    """Draw each loss over the iterations, as a share of its own largest value: they have different scales.

    Args:
        losses: name -> a value for every iteration, finite, 0 or more; a negative one is drawn at 0.
        title: above the plot.

    Returns:
        float32 (h w 3) in 0..1.
    """
    plot, count = Plot(title), max(map(len, losses.values()))
    labels = [f"{share:.0%}" for share in SHARES]
    plot.axes(labels, f"{count} iterations; each loss as a share of its largest value")
    for index, (name, values) in enumerate(losses.items()):
        highest, colour = max(max(values), 0.0) or 1.0, region_colour(index)
        points = plot.curve([max(value, 0.0) / highest for value in values], count)
        plot.line(points, colour)
        if len(points) == 1:
            plot.dot(points[0], colour)
        # At the lower left, where falling losses leave room.
        corner = (LEFT + 8, BOTTOM - LINE_HEIGHT * (len(losses) - index) - 4)
        plot.write(f"{name}: {values[0]:.3g} to {values[-1]:.3g}", corner, colour)
    return plot.picture()
