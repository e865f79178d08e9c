"""One picture of a help page: the graph around a node, the node framed, and what the workflow paints."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw

from .choice import Area

LARGEST_FILE = 40_000  # bytes
_WIDTH, _RESULT = 960, 256  # of the whole and of the result at its right, pixels
_GAP = 12
_PAPER, _FRAME = (32, 32, 32), (255, 170, 40)
_QUALITIES = (80, 70, 60, 50, 40, 30, 20)


def joined(graph: Image.Image, node: Area, result: Image.Image) -> Image.Image:
    """Lay the graph and the result beside each other.

    Args:
        graph: the part of the graph; it is reduced to its place.
        node: left, top, width and height of the node there, pixels.
        result: what the workflow paints.
    """
    graph = graph.copy()
    left, top, width, height = node
    ImageDraw.Draw(graph).rounded_rectangle((left, top, left + width, top + height), 8, outline=_FRAME, width=3)
    graph.thumbnail((_WIDTH - _RESULT - 3 * _GAP, 10_000), Image.Resampling.LANCZOS)
    result = result.convert("RGB")
    result.thumbnail((_RESULT, graph.height), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (_WIDTH, max(graph.height, result.height) + 2 * _GAP), _PAPER)
    sheet.paste(graph, (_GAP, (sheet.height - graph.height) // 2))
    sheet.paste(result, (_WIDTH - _GAP - (_RESULT + result.width) // 2, (sheet.height - result.height) // 2))
    return sheet


def encoded(picture: Image.Image) -> bytes:
    """A WebP file of the best quality that keeps to `LARGEST_FILE`.

    Raises:
        ValueError: there is none.
    """
    for quality in _QUALITIES:
        file = io.BytesIO()
        picture.save(file, "WEBP", quality=quality, method=6)
        if file.tell() <= LARGEST_FILE:
            return file.getvalue()
    raise ValueError(f"A picture of {picture.width} x {picture.height} pixels does not fit into {LARGEST_FILE} bytes.")
