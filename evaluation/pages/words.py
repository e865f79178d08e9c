"""The picture of docs/layouts-from-words.md: its sentences' layouts, as Layout Preview draws them.

`python commands/launcher.py evaluation.pages.words` writes `assets/layouts_from_words.jpg`. It needs no server.
"""

import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ...commands.environment import CLONE
from ...core.layout.other_programs import import_layout
from ...core.layout.preview import draw_layout

PAGE, FILE = CLONE / "docs" / "layouts-from-words.md", CLONE / "assets" / "layouts_from_words.jpg"
COLUMNS, SIDE, GAP = 4, 256, 8
PAPER = (250, 250, 248)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the page's sentences; returns the exit status."""
    sentences = re.search(r"```sentences\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1].splitlines()
    step = SIDE + GAP
    sheet = Image.new("RGB", (step * COLUMNS + GAP, step * -(-len(sentences) // COLUMNS) + GAP), PAPER)
    for place, sentence in enumerate(sentences):
        drawn = draw_layout(import_layout(sentence, width=SIDE, height=SIDE))[0]
        picture = Image.fromarray((drawn.numpy() * 255).round().astype(np.uint8))
        row, column = divmod(place, COLUMNS)
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (GAP + column * step, GAP + row * step))
    sheet.save(FILE, quality=75, optimize=True)
    print(f"written: {FILE.relative_to(CLONE)}, {FILE.stat().st_size // 1000} kB")
    return 0
