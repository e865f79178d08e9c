"""Layouts out of sentences: what is said, placed on a canvas."""

import re
from typing import Any

from ..region import check_text
from ..text import is_json
from .answers import unfenced
from .placing import place_things
from .sentences import read_sentences

# What only lines have: a place behind a colon, options behind a bar, or numbers in a row.
_IS_LINES = re.compile(r"[:\uff1a|\uff5c=\uff1d]|\d\.\d|\d[\s,]+-?\d")


def is_sentences(text: str) -> bool:
    """Whether a text is sentences: it is no JSON, and has no colon, no bar, no sign of equality, no numbers in a row.

    A line of a layout has its place behind a colon, so no line that says a place is taken for a sentence; a damaged one
    stays a damaged line.
    """
    written = [
        line for line in unfenced(text).splitlines() if line.strip() and not line.lstrip().startswith(("#", "\uff03"))
    ]
    return bool(written) and not is_json(text) and not any(map(_IS_LINES.search, written))


def layout_of_sentences(text: str, width: int, height: int) -> dict[str, Any]:
    """Read sentences into the form of `Layout.to_dict`.

    Args:
        text: English sentences, see `read_sentences`.
        width: canvas, pixels.
        height: canvas, pixels.

    Returns:
        The keys prompt, background and regions.

    Raises:
        LayoutError: no place is said, or places that contradict each other.
    """
    check_text(text, "The layout")
    said = read_sentences(unfenced(text))
    placed = place_things(said.names, said.statements, width, height)
    regions = [
        {"phrase": name, "box": list(each.box), "order": each.order}
        for name, each in zip(said.names, placed, strict=True)
    ]
    return {"prompt": said.prompt, "background": " ".join(dict.fromkeys(said.scene)), "regions": regions}
