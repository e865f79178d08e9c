"""All pictures of a demo on one sheet, each with its caption."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_CELL = 256
_MARGIN = 16
_CAPTION = 28
_PAPER, _INK = (250, 250, 248), (40, 40, 44)


def contact_sheet(pictures: Sequence[tuple[Path, str]], columns: int = 4) -> Image.Image:
    """Lay out pictures in rows.

    Args:
        pictures: files and captions, at least one.
        columns: pictures in a row, at most.

    Returns:
        An RGB picture; each cell is 256 pixels wide, larger pictures are reduced to fit.
    """
    columns = min(columns, len(pictures))
    rows = math.ceil(len(pictures) / columns)
    width = _MARGIN + columns * (_CELL + _MARGIN)
    height = _MARGIN + rows * (_CELL + _CAPTION + _MARGIN)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for index, (path, caption) in enumerate(pictures):
        left = _MARGIN + index % columns * (_CELL + _MARGIN)
        top = _MARGIN + index // columns * (_CELL + _CAPTION + _MARGIN)
        with Image.open(path, formats=["PNG"]) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left + (_CELL - picture.width) // 2, top + (_CELL - picture.height) // 2))
        draw.text((left, top + _CELL + 6), _shortened(caption, font), fill=_INK, font=font)
    return sheet


def tiled(pictures: Sequence[bytes]) -> Image.Image:
    """Lay encoded pictures of one size in a square as nearly as they fit, without captions.

    Args:
        pictures: PNG files' contents, at least one.
    """
    opened = [Image.open(io.BytesIO(picture), formats=["PNG"]).convert("RGB") for picture in pictures]
    columns = math.ceil(math.sqrt(len(opened)))
    width, height = opened[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(opened) / columns) * height), _PAPER)
    for index, picture in enumerate(opened):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    return sheet


def _shortened(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(caption) <= _CELL:
        return caption
    while caption and font.getlength(caption + "...") > _CELL:
        caption = caption[:-1]
    return caption + "..."
