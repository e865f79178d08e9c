"""Things with boxes as language models write them, made into regions: other names for keys, other kinds of boxes.

All boxes of one text count alike. What their numbers are is seen by the largest: up to 1 they are shares of the canvas,
up to 100 hundredths, up to the canvas' size pixels, up to 1000 thousandths; beside a size in the text they are its
pixels. Four numbers without names are two corners, unless in some box the second would not lie right of and below the
first; then all are a corner, a width and a height.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..region import EDITOR_KEYS, KEYS, CanvasError, LayoutError, describe

THINGS = (
    "regions",
    "objects",
    "elements",
    "things",
    "items",
    "entities",
    "boxes",
    "bounding_boxes",
    "layers",
    "layout",
)
NAMES = ("phrase", "name", "label", "object", "text", "title", "caption", "class", "category", "desc", "description")
PROMPTS = ("prompt", "description", "desc", "details")
ORDERS = ("order", "z", "z_index", "zIndex", "z_order", "layer")
BOXES = ("box", "bbox", "bounding_box", "boundingBox", "bounding box", "bbox_2d", "rect", "position", "coordinates")
TURNED = "box_2d"  # rows before columns, in thousandths
CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
CENTRES = (("cx", "cy", "w", "h"), ("cx", "cy", "width", "height"))
_NAMED = [
    (kind, names) for kind, every in (("corners", CORNERS), ("sides", SIDES), ("centre", CENTRES)) for names in every
]
SAID = {"prompt": ("caption", "description", "scene", "image_prompt"), "background": ("background_prompt", "setting")}
IGNORED = ("id", "confidence", "score")  # beside our own keys
OTHERS = ("annotations", "phrases", "gligen_phrases", "compositional_deconstruction")  # of programs that we know
SHARES, HUNDREDTHS, THOUSANDTHS = 1.0, 100.0, 1000.0
NO_SHARES = 10.0  # what is above is no share that leaves the canvas
SLACK = 0.01  # by which rounded numbers may leave the canvas


@dataclass(frozen=True)
class _Thing:
    """A thing: a region's keys but its box, and four numbers, which are corners, sides, centre or just four."""

    region: dict[str, Any]
    numbers: tuple[float, ...] = ()
    kind: str = ""
    is_percent: bool = False
    is_turned: bool = False


def is_layout(data: object) -> bool:
    """Whether JSON values are a layout of anyone's."""
    if isinstance(data, Mapping):
        if any(key in data for key in OTHERS) or _things_in(data) is not None:
            return True
        return any(is_layout(data[key]) for key in data if isinstance(data[key], Mapping | list) and len(data) == 1)
    if not isinstance(data, list) or not data:
        return False
    first = data[0]
    is_frame = isinstance(first, list) and bool(first) and isinstance(first[0], Mapping)
    return _is_thing(first) or (is_frame and _is_thing(first[0]))


def plain_layout(data: Mapping[str, Any], width: int, height: int) -> Mapping[str, Any]:
    """Make things with boxes of any kind into a layout's own keys; what is one already, or none, stays as it is.

    Args:
        data: JSON values.
        width: canvas, pixels, where the values do not say.
        height: canvas, pixels, where the values do not say.

    Raises:
        LayoutError: a thing without a name or a box.
        CanvasError: boxes that lie on no canvas by any reading.
    """
    data = _said(data)
    if len(data) == 1 and isinstance(inner := next(iter(data.values())), Mapping) and _things_in(data) is None:
        data = inner
    found = _things_in(data)
    if found is None:
        return data
    found = [_said(each) if isinstance(each, Mapping) else each for each in found]
    if "regions" in data and isinstance(data["regions"], list):
        data = data | {"regions": found}
    if set(data) <= {*SAID, "width", "height", "regions", "editor"} and all(map(_is_plain, found)):
        return data
    things = [_read_thing(each) for each in found]
    if not all(things):
        if "regions" in data:
            return data
        wrong = next(each for each, thing in zip(found, things, strict=True) if thing is None)
        raise LayoutError(
            f"The thing {describe(wrong)} of the JSON has no name and box that can be read. Expected "
            '{"phrase": "a dog", "box": [0.1, 0.3, 0.5, 0.8]}, with left, top, right and bottom in 0..1.'
        )
    read = _read_top(data)
    boxed = [thing for thing in things if thing.numbers]
    sizes = (read["width"], read["height"]) if {"width", "height"} <= read.keys() else None
    corners = iter(_corners(boxed, sizes, (width, height)))
    return read | {"regions": [thing.region | ({"box": next(corners)} if thing.numbers else {}) for thing in things]}


def _said(data: Mapping[str, Any]) -> dict[str, Any]:
    """An object without its nulls, by which language models say that they say nothing."""
    return {key: value for key, value in data.items() if value is not None}


def _is_plain(thing: object) -> bool:
    """Whether it is a region of our own; what is wrong with it, its own errors say."""
    if not isinstance(thing, Mapping):
        return not isinstance(thing, list)
    if "phrase" not in thing or any(key in thing for key in (*IGNORED, *PROMPTS[1:])):
        return False
    box = thing.get("box")
    if box is None:
        return "mask" in thing or not any(key in thing for key in (*BOXES, TURNED))
    four = _four(box)
    is_written_so = isinstance(box, list) and all(type(each) in (int, float) for each in box)
    return four is None or (is_written_so and max(four[0]) <= NO_SHARES)


def _things_in(data: Mapping[str, Any]) -> list[Any] | None:
    """Things of an object: a list of them below one of the usual names, or names with boxes behind them."""
    for key in THINGS:
        value = data.get(key)
        if isinstance(value, list) and key != "layout":
            return value
        if isinstance(value, list | Mapping) and is_layout(value):
            return value if isinstance(value, list) else _named(value)
    return _named(data)


def _named(data: Mapping[str, Any]) -> list[Any] | None:
    """Things of an object in which each one's name stands before its box."""
    pairs = [[name, box] for name, box in data.items()]
    return pairs if pairs and all(_four(box) for _, box in pairs) and not _four(data) else None


def _is_thing(value: object) -> bool:
    if isinstance(value, Mapping):
        has_box = any(key in value for key in (*BOXES, TURNED, "mask")) or _four(value) is not None
        return "phrase" in value or (has_box and not _four(list(value.values())))
    return isinstance(value, list) and _read_thing(value) is not None


def _read_thing(value: object) -> _Thing | None:
    if isinstance(value, list) and value and isinstance(value[0], str):
        four = _four(value[1] if len(value) == 2 else value[1:])
        return _Thing({"phrase": value[0]}, *four) if four else None
    if not isinstance(value, Mapping):
        return None
    name = next((key for key in NAMES if isinstance(value.get(key), str) and value[key].strip()), None)
    if name is None:
        return None
    kept = {key: value[key] for key in (*KEYS, *EDITOR_KEYS, "color") if key in value and key not in ("box", "prompt")}
    if "phrase" in value:  # of our own keys an unknown one is an error
        known = (*BOXES, TURNED, *SIDES[0], *IGNORED, *PROMPTS)
        kept |= {key: value[key] for key in value if key not in known or key in kept}
    order = next((value[key] for key in ORDERS if type(value.get(key)) is int), None)
    prompt = next((value[key] for key in PROMPTS if key != name and isinstance(value.get(key), str)), "")
    region = kept | {"phrase": value[name]} | ({"order": order} if order is not None else {})
    region |= {"prompt": prompt} if prompt else {}
    if value.get("mask") is not None:
        return _Thing(region)
    if (turned := _four(value.get(TURNED))) is not None:
        return _Thing(region, turned[0], turned[1], turned[2], True)
    four = next((four for key in BOXES if (four := _four(value.get(key)))), None) or _four(value)
    return _Thing(region, *four) if four else None


def _four(value: object) -> tuple[tuple[float, ...], str, bool] | None:
    """Four numbers, what they are and whether they are percentages; None for anything else."""
    kind = "four"
    if isinstance(value, str):
        value = re.split(r"[\s,;]+", value.strip("[]() "))
    if isinstance(value, Mapping):
        kind, names = next((known for known in _NAMED if all(name in value for name in known[1])), (kind, ()))
        value = [value[name] for name in names]
    if isinstance(value, list) and len(value) == 2 and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        value, kind = [*value[0], *value[1]], "corners"
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [_number(each) for each in value]
    if any(number is None for number in numbers):
        return None
    return tuple(numbers), kind, any(isinstance(each, str) and "%" in each for each in value)


def _number(value: object) -> float | None:
    if type(value) in (int, float):
        return float(value) if abs(value) < 1e9 else None
    text = value.strip().removesuffix("px").removesuffix("%").strip() if isinstance(value, str) else ""
    return float(text) if re.fullmatch(r"-?(\d+\.?\d*|\.\d+)", text) and len(text) < 20 else None


def _read_top(data: Mapping[str, Any]) -> dict[str, Any]:
    """Canvas, prompt and background of an object."""
    read = {key: data[key] for key in ("width", "height", "prompt", "background") if key in data}
    for key in ("canvas", "size", "image_size"):
        size = data.get(key)
        if isinstance(size, Mapping):
            read |= {side: size[side] for side in ("width", "height") if side in size}
        elif isinstance(size, list) and len(size) == 2:
            read |= {"width": size[0], "height": size[1]}
    for key, others in SAID.items():
        if not isinstance(read.get(key, ""), str):
            del read[key]
        said = next((data[other] for other in others if isinstance(data.get(other), str)), None)
        if said and not read.get(key):
            read[key] = said
    return read


def _corners(things: Sequence[_Thing], said: tuple[Any, Any] | None, canvas: tuple[int, int]) -> list[list[float]]:
    """Corners of all boxes in shares of the canvas."""
    numbers = [(x, y, a, b) for thing in things for x, y, a, b in [_straight(thing)]]
    # A box without an area is neither.
    are_sides = any(x > a or y > b for (x, y, a, b), thing in zip(numbers, things, strict=True) if thing.kind == "four")
    read = [_as_corners(four, thing.kind, are_sides) for four, thing in zip(numbers, things, strict=True)]
    along = [max((corner for box in read for corner in box[axis::2]), default=0.0) for axis in (0, 1)]
    largest = max(along)
    if all(type(side) is int for side in said or ()) and said and largest > NO_SHARES and _fit(along, said):
        units: Sequence[float] = said
    elif any(thing.is_percent for thing in things):
        units = (HUNDREDTHS, HUNDREDTHS)
    elif any(thing.is_turned for thing in things) and largest > SHARES:
        units = (THOUSANDTHS, THOUSANDTHS)
    elif largest <= NO_SHARES:
        units = (SHARES, SHARES)
    elif said is None and largest <= HUNDREDTHS:
        units = (HUNDREDTHS, HUNDREDTHS)
    elif said is None and _fit(along, canvas):
        units = canvas
    elif largest <= THOUSANDTHS * (1 + SLACK):
        units = (THOUSANDTHS, THOUSANDTHS)
    else:
        far = "x".join(f"{side:g}" for side in along)
        size = "x".join(describe(side) for side in said or canvas)
        raise CanvasError(
            f"The boxes reach to {far}, which leaves the canvas of {size} pixels. Give the canvas their size, or ask "
            "for boxes in shares from 0 to 1."
        )
    return [[_on_canvas(edge / units[k % 2]) for k, edge in enumerate(box)] for box in read]


def _straight(thing: _Thing) -> tuple[float, ...]:
    y0, x0, y1, x1 = thing.numbers
    return (x0, y0, x1, y1) if thing.is_turned else thing.numbers


def _as_corners(four: tuple[float, ...], kind: str, are_sides: bool) -> tuple[float, ...]:
    x, y, a, b = four
    if kind == "sides" or (kind == "four" and are_sides):
        return x, y, x + a, y + b
    return (x - a / 2, y - b / 2, x + a / 2, y + b / 2) if kind == "centre" else four


def _fit(along: Sequence[float], sides: Sequence[int]) -> bool:
    return all(far <= side * (1 + SLACK) for far, side in zip(along, sides, strict=True))


def _on_canvas(share: float) -> float:
    share = round(share, 6)
    near = min(max(share, 0.0), 1.0)
    return near if abs(near - share) <= SLACK else share
