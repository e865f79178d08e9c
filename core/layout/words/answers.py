"""Finds the JSON of a layout in a text that has more in it, such as a language model's answer."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from ..region import LayoutError
from .loose_boxes import is_layout
from .loose_json import FENCE, CutOffError, as_json

MOST_READ = 10**6  # characters, beginnings in vain included
_QUOTE = "\"'`\u201c\u201d\u201e\u2018\u2019"
# A bracket behind which JSON goes on; a line's name may hold brackets too: "a [red] dog", "{red|blue}".
_OPENS = re.compile(rf"\{{(?=\s*(?:[{_QUOTE}}}]|//|/\*|\w+\s*:))|\[(?=\s*(?:[\[{{({_QUOTE}\d.\]-]|//|/\*))")
_HAS_JSON = re.compile(
    rf"\{{\s*[{_QUOTE}][^\n{_QUOTE}]*[{_QUOTE}]\s*:|\{{\s*\w+\s*:\s*[\[{{{_QUOTE}]|[\[(]\s*[\[(]\s*[{_QUOTE}]"
)
Pairs = Callable[[list[tuple[str, Any]]], dict[str, Any]]


def find_layout(text: str, pairs: Pairs, problem: str = "") -> object:
    """Give the first JSON value of a text that is a layout; of a text whose only value is no layout that one.

    Args:
        text: with anything around the JSON.
        pairs: what makes an object of JSON's names and values.
        problem: what is said of JSON that cannot be read; "": what and where.

    Raises:
        LayoutError: JSON that is cut off or damaged, or several values of which none is a layout.
    """
    values, cut_off, damaged = [], "", problem
    for place, block in _blocks(text):
        line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
        begins = f"what begins at line {line}, column {column}"
        if isinstance(block, CutOffError):
            cut_off = cut_off or f"{begins} was cut off, {block}"
        if isinstance(block, ValueError):
            damaged = damaged or f"{begins} is damaged, {block}"
            continue
        try:
            value = json.loads(block, object_pairs_hook=pairs)
        except LayoutError:
            raise
        except (ValueError, RecursionError) as error:
            damaged = damaged or f"{begins} is damaged, {getattr(error, 'msg', 'too deep or with too long a number')}"
            continue
        if is_layout(value):
            return value
        values.append(value)
    if cut_off:
        raise LayoutError(
            f"The layout is not valid JSON: {cut_off}. Paste the whole answer, or ask once more for fewer things."
        )
    if len(values) == 1:
        return values[0]
    if len(values) > 1:
        raise LayoutError(
            f"The text has {len(values)} pieces of JSON, and none of them is a layout. Expected things with names and "
            'boxes, such as {"regions": [{"phrase": "a dog", "box": [0.1, 0.3, 0.5, 0.8]}]}.'
        )
    raise LayoutError(f"The layout is not valid JSON: {damaged or 'nothing in it is a value'}.")


def has_json(text: str) -> bool:
    """Whether a text that does not begin with JSON has some in it, or something between fences."""
    return bool(_HAS_JSON.search(text))


def unfenced(text: str) -> str:
    """What stands between a text's first fences, without a language's name; a text without fences as it is."""
    if text.count(FENCE) < 2:
        return text
    inner = text.split(FENCE)[1]
    first, end, rest = inner.partition("\n")
    return rest if end and re.fullmatch(r"\s*\w*\s*", first) else inner


def _blocks(text: str) -> Iterator[tuple[int, str | ValueError]]:
    """Where values begin in a text, and each as JSON or what is wrong with it."""
    place = read = 0
    while read < MOST_READ and (opening := _OPENS.search(text, place)):
        try:
            block, place = as_json(text, opening.start())
            read += place - opening.start()
            yield opening.start(), block
        except ValueError as error:
            place = opening.end()
            read += len(text) - place
            yield opening.start(), error
