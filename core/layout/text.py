"""Reads a layout's text, JSON or one region per line, into plain values."""

import json
import re
from typing import Any

from .region import LayoutError, check_text, describe, nearest

LINE_OPTIONS = ("colour", "color", "strength", "order")


def read_layout_text(text: str) -> dict[str, Any]:
    """Read JSON or lines into the form of `Layout.to_dict`, without looking at the values yet.

    Raises:
        LayoutError: not JSON, or not a line of a layout.
    """
    check_text(text, "The layout")
    if not text.lstrip().startswith(("{", "[")):
        lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
        return {"regions": [_read_line(line, number) for number, line in lines if line and not line.startswith("#")]}
    try:
        data = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise LayoutError(f"The layout is not valid JSON: {error.msg} at {where}.") from None
    except RecursionError:
        raise LayoutError("The layout is not valid JSON: it is nested too deeply.") from None
    except LayoutError:
        raise
    except ValueError as error:  # Python's limit on the digits of one number
        raise LayoutError(f"The layout is not valid JSON: {error}.") from None
    return {"regions": data} if isinstance(data, list) else data


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data:
            raise LayoutError(f'The layout has the key "{key}" twice in one object; keep one of them.')
        data[key] = value
    return data


def _read_line(line: str, number: int) -> dict[str, Any]:
    head, *options = (part.strip() for part in line.split("|"))
    phrase, colon, place = head.rpartition(":")
    region: dict[str, Any] = {"phrase": (phrase if colon else head).strip()}
    if colon and (reference := re.fullmatch(r"mask\s+(\d+)", place.strip(), re.IGNORECASE)):
        region["mask"] = int(reference[1])
    elif colon and (shape := re.fullmatch(r"(ellipse|polygon)\s+(.+)", place.strip(), re.IGNORECASE)):
        region["mask"] = {shape[1].lower(): _read_shape_numbers(shape[2], number)}
    elif colon:
        region["box"] = _read_numbers(place, number)
    for option in options:
        key, equals, value = (part.strip() for part in option.partition("="))
        if not equals or not re.fullmatch(r"\w+", key):
            if "prompt" in region:
                raise LayoutError(f'Line {number} has two prompts: "{region["prompt"]}" and "{option}". Keep one.')
            region["prompt"] = option
        elif key not in LINE_OPTIONS:
            hint = nearest(key, LINE_OPTIONS)
            raise LayoutError(f'Line {number} has the unknown option "{key}".{hint} Known: {", ".join(LINE_OPTIONS)}.')
        else:
            region[key] = _read_option(key, value, number)
    return region


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
