"""Reads a layout's text, one region per line or JSON with anything around it, into plain values."""

import json
import re
import unicodedata
from typing import Any

from .region import LayoutError, check_text, describe, nearest
from .words.answers import find_layout, has_json, unfenced
from .words.loose_boxes import is_layout

LINE_OPTIONS = ("colour", "color", "strength", "order", "lora")
BYTE_ORDER_MARK = "\ufeff"  # some editors begin a file with it, and it is seen nowhere
# Signs of a line as keyboards for Chinese and Japanese write them.
_COLONS, _BARS, _COMMENTS = ":\uff1a", "|\uff5c", ("#", "\uff03")
_IS_JSON = re.compile(r"\s*(\{|\[(?!\s*\w*[^\W\d_]))")  # a line's name may begin with a bracket too: "[red] dog"
_SHAPE = re.compile(r"(ellipse|polygon)\s+(.+)", re.IGNORECASE)
_MASK = re.compile(r"mask\s+(\d+)", re.IGNORECASE)


def read_layout_text(text: str, *, has_masks: bool = False) -> dict[str, Any]:
    """Read lines or JSON, as in a language model's answer, into the form of `Layout.to_dict`.

    The values are not looked at yet.

    Args:
        text: what a person wrote.
        has_masks: whether masks are connected. Where no line has a place, they are the places, and what stands behind a
            colon belongs to the name.

    Raises:
        LayoutError: not JSON, or not a line of a layout.
    """
    text = plain_text(text)
    data = read_json(text, has_masks=has_masks)
    return {"regions": _read_lines(unfenced(text), has_masks)} if data is None else data


def plain_text(text: str) -> str:
    """A text without byte order marks.

    Raises:
        LayoutError: no text, or control characters in it.
    """
    check_text(text, "The layout")
    return text.replace(BYTE_ORDER_MARK, "")


def read_json(text: str, *, has_masks: bool = False) -> dict[str, Any] | None:
    """Read JSON, as in a language model's answer, into the form of `Layout.to_dict`; None where a text is none.

    Args:
        text: a plain one.
        has_masks: whether masks are connected, so that JSON that is no layout may stand in their names.

    Raises:
        LayoutError: not JSON.
    """
    data = _read_json(text, has_masks) if is_json(text) and not _are_lines(text) else None
    return {"regions": data} if isinstance(data, list) else data


def is_json(text: str) -> bool:
    """Whether a text begins with JSON, or has some in it as a language model's answer has."""
    return bool(_IS_JSON.match(text)) or has_json(text)


def _are_lines(text: str) -> bool:
    """Whether a text with JSON in it is lines all the same, because each of them says a place."""
    if _IS_JSON.match(text):
        return False
    try:
        regions = _read_lines(text, False)
    except LayoutError:
        return False
    return bool(regions) and all("box" in region or "mask" in region for region in regions)


def _read_lines(text: str, has_masks: bool) -> list[dict[str, Any]]:
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    written = [(number, line) for number, line in lines if line and not line.startswith(_COMMENTS)]
    if has_masks:
        regions = [_read_line(line, number, True) for number, line in written]
        if not any("box" in region or "mask" in region for region in regions):
            return regions
    return [_read_line(line, number, False) for number, line in written]


def _read_json(text: str, has_masks: bool) -> object:
    """The JSON of a text; None where what looks like it is no layout, and may be names of masks."""
    problem = ""
    if _IS_JSON.match(text):
        try:
            return json.loads(text, object_pairs_hook=_unique_keys)
        except json.JSONDecodeError as error:
            problem = f"{error.msg} at line {error.lineno}, column {error.colno}"
        except RecursionError:
            raise LayoutError("The layout is not valid JSON: it is nested too deeply.") from None
        except LayoutError:
            raise
        except ValueError as error:  # Python's limit on the digits of one number
            raise LayoutError(f"The layout is not valid JSON: {error}.") from None
    try:
        found = find_layout(text, _unique_keys, problem)
    except LayoutError:
        if has_masks and not problem:  # names may hold anything
            return None
        raise
    return found if problem or not has_masks or is_layout(found) else None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data:
            raise LayoutError(f'The layout has the key "{key}" twice in one object; keep one of them.')
        data[key] = value
    return data


def _read_line(line: str, number: int, only_names: bool) -> dict[str, Any]:
    head, *options = (part.strip() for part in re.split(f"[{_BARS}]", line))
    phrase, place = _parted(head, only_names)
    region: dict[str, Any] = {"phrase": phrase}
    if place is None:
        pass
    elif reference := _MASK.fullmatch(place):
        region["mask"] = int(reference[1])
    elif shape := _SHAPE.fullmatch(place):
        region["mask"] = {shape[1].lower(): _read_shape_numbers(shape[2], number)}
    else:
        region["box"] = _read_numbers(place, number)
    for option in options:
        key, equals, value = (part.strip() for part in option.replace("\uff1d", "=").partition("="))
        if not equals or not re.fullmatch(r"\w+", key):
            if "prompt" in region:
                raise LayoutError(f'Line {number} has two prompts: "{region["prompt"]}" and "{option}". Keep one.')
            region["prompt"] = option
        elif key not in LINE_OPTIONS:
            hint = nearest(key, LINE_OPTIONS)
            raise LayoutError(f'Line {number} has the unknown option "{key}".{hint} Known: {", ".join(LINE_OPTIONS)}.')
        elif key == "lora" and key in region:
            region[key] += f", {value}"
        else:
            region[key] = _read_option(key, value, number)
    return region


def _parted(head: str, only_names: bool) -> tuple[str, str | None]:
    """A line's name, and its place if it has one; a colon within brackets parts nothing: "(a dog:1.2)"."""
    colon = max(map(head.rfind, _COLONS))
    if colon < 0:
        return head, None
    # Full-width brackets, numbers and commas are brackets, numbers and commas.
    name, place = (unicodedata.normalize("NFKC", each).strip() for each in (head[:colon], head[colon + 1 :]))
    values = _floats(place)
    is_within = any(name.count(left) > name.count(right) and right in place for left, right in ("()", "[]", "{}"))
    # A single number is no place that lacks some, but a time or a ratio: "a clock at 12:30".
    is_place = _MASK.fullmatch(place) or _SHAPE.fullmatch(place) or (values is not None and len(values) > 1)
    if is_within or (only_names and not is_place):
        return head.rstrip(_COLONS + " "), None
    return head[:colon].strip(), place


def _read_numbers(place: str, number: int) -> list[float]:
    values = _floats(place)
    if values is None or len(values) != 4:
        raise LayoutError(
            f'Line {number} has "{describe(place.strip())[1:-1]}" behind the colon; expected four numbers x0 y0 x1 y1 '
            'in 0..1, "mask 1", "ellipse x0 y0 x1 y1" or "polygon x y x y x y".'
        )
    return values


def _read_shape_numbers(place: str, number: int) -> list[float]:
    values = _floats(place)
    if values is None:
        raise LayoutError(f'Line {number} has a shape of "{describe(place.strip())[1:-1]}"; expected numbers in 0..1.')
    return values


def _floats(place: str) -> list[float] | None:
    try:
        return [float(word) for word in place.replace(",", " ").split()]
    except ValueError:
        return None


def _read_option(key: str, value: str, number: int) -> str | float | int:
    try:
        return {"strength": float, "order": int}.get(key, str)(value)
    except ValueError:
        wanted = "a whole number such as 1" if key == "order" else "a number such as 1.0"
        raise LayoutError(f'Line {number} has {key}="{value}"; expected {wanted}.') from None
