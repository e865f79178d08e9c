"""What the layout canvas means: the text of its widget, a layout to start from, and boxes of other nodes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .boxes import canvas_of_boxes, read_bounding_boxes
from .layout import Layout
from .masks import is_same_aspect
from .reading import layout_from_data
from .region import LayoutError
from .text import read_layout_text

DEFAULT_SIDE = 512  # pixels of a canvas whose text does not say
CELL = 8  # pixels of a latent cell of the usual checkpoints


def read_canvas(
    text: str, start: Layout | None = None, boxes: object = None, picture: tuple[int, int] | None = None
) -> Layout:
    """Build the layout that a canvas stands for.

    The widget's own regions count. Those of them without a place take the connected boxes, in order. Where the widget
    has no region that is shown, the layout to start from and the connected boxes are the layout.

    Args:
        text: the widget's JSON or lines.
        start: a connected layout.
        boxes: connected boxes, elements, layers, masks or SEGS in any of their shapes.
        picture: width and height of the connected picture, which boxes without a canvas of their own are found in.

    Raises:
        LayoutError: what is wrong and what to change.
    """
    data = _with_canvas(text)
    regions = _shown(data)
    if regions or (start is None and boxes is None):
        return layout_from_data(data, boxes=boxes if any(map(_has_no_place, regions)) else None)
    offered = offered_layout(start, boxes, (data["width"], data["height"]), picture)
    if offered is None:
        raise LayoutError("Nothing is drawn, and the connected boxes are none. Draw a region.")
    said = {key: data[key] for key in ("prompt", "background") if isinstance(data.get(key), str) and data[key].strip()}
    return replace(offered, **said)


def offered_layout(
    start: Layout | None,
    boxes: object,
    canvas: tuple[int, int],
    picture: tuple[int, int] | None = None,
) -> Layout | None:
    """Put a connected layout and connected boxes together; the boxes lie in front, and those without a name get one.

    Args:
        start: a connected layout or None; its canvas, prompt and background count.
        boxes: connected boxes in any of their shapes, or None.
        canvas: width and height in pixels where neither says.
        picture: of the connected picture, if any; it is the canvas of boxes that do not say one.

    Returns:
        The layout, or None where nothing came in.

    Raises:
        LayoutError: boxes that cannot be read, or several layouts.
    """
    if start is not None and not isinstance(start, Layout):
        raise LayoutError(f"{len(start)} layouts are connected to start; expected one, without Layout Batch.")
    if start is not None:
        width, height = start.width, start.height
    else:
        width, height = canvas_of_boxes(boxes, *canvas) or (canvas if boxes is None else picture or canvas)
    read = read_bounding_boxes(boxes, width, height) if boxes is not None else []
    if not read:
        return start
    named = [{"phrase": f"thing {k}"} | box for k, box in enumerate(read, 1)]
    drawn = layout_from_data({"width": width, "height": height, "regions": named})
    return drawn if start is None else drawn.in_front_of(start)


def check_canvas(text: str, is_connected: bool) -> Layout | None:
    """Check a canvas before the run, as far as it is known then.

    Args:
        text: the widget's JSON or lines.
        is_connected: whether a layout or boxes are connected, whose values are not known yet.

    Returns:
        The layout where it is known.

    Raises:
        LayoutError: what is wrong and what to change.
    """
    data = _with_canvas(text)
    regions = _shown(data)
    if not is_connected or (regions and not any(map(_has_no_place, regions))):
        return layout_from_data(data)
    return None


def canvas_warnings(layout: Layout) -> list[str]:
    """Say in plain sentences what some nodes will refuse or cannot do with a layout that is right in itself."""
    warnings = []
    prompt = _plain(layout.prompt)
    for phrase in dict.fromkeys(region.phrase for region in layout.regions):
        if _plain(phrase) not in prompt:
            warnings.append(
                f'"{phrase}" is not in the prompt. Layered Rendering and Layout Score do not need it there; methods '
                "that follow the attention to its words do. Write it into the prompt, or leave the prompt empty."
            )
    names = [_plain(region.phrase) for region in layout.regions]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        numbers = " and ".join(str(k) for k, other in enumerate(names, 1) if other == name)
        warnings.append(
            f'Regions {numbers} are all called "{name}". Layer Settings and Edit Layout change all of them by this '
            "name; give them different names or use their numbers there."
        )
    return warnings + _seen_warnings(layout)


def shape_warning(layout: Layout, height: int, width: int) -> list[str]:
    """Say that a connected picture has not the canvas' shape, if so."""
    if is_same_aspect(height, width, layout.height, layout.width):
        return []
    return [
        f"The connected image has {width} x {height} pixels, which is not the shape of the canvas ({layout.width} x "
        f"{layout.height}). It is shown whole, with bars; give the canvas its size to use all of it."
    ]


def _seen_warnings(layout: Layout) -> list[str]:
    rows, columns = max(1, layout.height // CELL), max(1, layout.width // CELL)
    own = layout.masks(rows, columns)
    warnings, open_to_view = [], own.new_ones(rows, columns)
    for region, mask in reversed(list(zip(layout.sorted_regions(), own, strict=True))):
        # Less than one cell, up to rounding: the same bound that Layered Rendering has.
        if float((mask * open_to_view).sum()) < 0.999:
            reason = "is hidden by nearer regions" if float(mask.sum()) >= 0.999 else "is smaller than a latent cell"
            warnings.append(
                f'The region "{region.phrase}" {reason} ({CELL} x {CELL} pixels). Layered Rendering will refuse it: '
                "make it larger, move it, or bring it nearer."
            )
        open_to_view = open_to_view * (1 - mask)
    return warnings


def _with_canvas(text: str) -> dict[str, Any]:
    return {"width": DEFAULT_SIDE, "height": DEFAULT_SIDE} | read_layout_text(text)


def _shown(data: Mapping[str, Any]) -> list[Any]:
    """The regions that are not hidden, still unread; what is no list is left to the reader to refuse."""
    regions = data.get("regions", [])
    if not isinstance(regions, list):
        return [regions]
    return [region for region in regions if not (isinstance(region, Mapping) and region.get("hidden") is True)]


def _has_no_place(region: object) -> bool:
    return isinstance(region, Mapping) and region.get("box") is None and region.get("mask") is None


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
