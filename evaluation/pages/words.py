"""The picture of docs/layouts-from-words.md: its sentences' layouts, as Layout Preview draws them.

`python commands/launcher.py evaluation.pages.words` writes `assets/layouts_from_words.jpg`. It needs no server.
"""

import re
from collections.abc import Sequence

import numpy as np

from ...commands.environment import CLONE
from ...core.layout.other_programs import import_layout
from ...core.layout.preview import draw_layout
from ..tiles import tile

PAGE, FILE = CLONE / "docs" / "layouts-from-words.md", CLONE / "assets" / "layouts_from_words.jpg"
COLUMNS, SIDE = 4, 256


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the page's sentences; returns the exit status."""
    sentences = re.search(r"```sentences\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1].splitlines()
    drawn = [draw_layout(import_layout(sentence, width=SIDE, height=SIDE))[0] for sentence in sentences]
    pictures = [(each.numpy() * 255).round().astype(np.uint8) for each in drawn]
    sheet = tile([pictures[at : at + COLUMNS] for at in range(0, len(pictures), COLUMNS)], SIDE)
    sheet.save(FILE, quality=75, optimize=True)
    print(f"written: {FILE.relative_to(CLONE)}, {FILE.stat().st_size // 1000} kB")
    return 0
