"""Layouts of other programs: COCO, GLIGEN, Ideogram 4's JSON prompt, beside our own JSON and ComfyUI's boxes.

COCO keeps pictures, annotations and categories apart; a box is x, y, width and height in pixels, a mask one or more
polygons or runs. GLIGEN has one list of phrases and one of boxes x0, y0, x1, y1 in 0..1. Neither has an order, so
larger things may be laid behind smaller ones. Ideogram 4's prompt has elements with boxes, farthest first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .boxes import read_bounding_boxes
from .layout import Layout
from .reading import layout_from_data, parse_layout
from .region import MOST_MASK_PIXELS, CanvasError, LayoutError, describe
from .run_length import has_inside, is_run_length
from .text import plain_text, read_json, read_layout_text
from .words.described import is_sentences, layout_of_sentences
from .words.loose_boxes import NAMES, plain_layout

PHRASES, PLACES = ("phrases", "gligen_phrases"), ("boxes", "locations", "gligen_boxes")
SLACK = 1.0  # pixels by which a COCO box may leave its picture; some sets round outwards
COMPOSITION = "compositional_deconstruction"  # the part of Ideogram 4's prompt that says what is where
STYLE = ("aesthetics", "lighting", "photo", "medium", "art_style")
OF_COMFYUI = ("metadata", "palette", "color_palette", "desc")  # beside a box of its nodes
FORMATS = (
    "Stagecraft's own layouts, COCO annotations, GLIGEN's phrases and boxes, Ideogram 4's JSON prompt, and ComfyUI's "
    "boxes and elements"
)


def import_layout(
    text: str,
    *,
    picture: str = "",
    width: int = 512,
    height: int = 512,
    prompt: str = "",
    background: str = "",
    largest_behind: bool = True,
    outlines: bool = True,
    masks: Sequence[Tensor] | None = None,
    boxes: object = None,
) -> Layout:
    """Build a layout from lines, from English sentences or from JSON of any program that we know.

    Of JSON is seen by its keys whose it is. What sentences say of prompt and background counts where none is given.

    Args:
        text: lines, sentences, or JSON, which also may be a language model's answer.
        picture: COCO only: file name or id of the picture; "" is the first.
        width: canvas, pixels, where the text does not say.
        height: canvas, pixels, where the text does not say.
        prompt: global prompt where the text does not say.
        background: background prompt where the text does not say.
        largest_behind: lay larger things behind smaller ones where the text has no order.
        outlines: COCO only: take them; False takes the boxes.
        masks: connected ones, see `parse_layout`.
        boxes: connected ones, see `parse_layout`.

    Raises:
        LayoutError: what is wrong and what to change.
    """
    given = {"width": width, "height": height, "prompt": prompt, "background": background}
    text = plain_text(text)
    if boxes is None and not masks and is_sentences(text):
        said = layout_of_sentences(text, width, height)
        return layout_from_data(said | {key: value for key, value in given.items() if value != ""})
    data = read_json(text, has_masks=bool(masks))
    if data is None:
        return parse_layout(text, **given, masks=masks, boxes=boxes)
    if "annotations" in data:
        layout = layout_from_data(given | _read_coco(data, picture, outlines), masks, boxes)
    elif any(key in data for key in PHRASES):
        layout = layout_from_data(given | plain_layout(_read_gligen(data), width, height), masks, boxes)
    elif COMPOSITION in data:
        return layout_from_data(given | _read_json_prompt(data, width, height), masks, boxes)
    elif _are_boxes(written := data["regions"] if set(data) == {"regions"} else data):
        if boxes is not None:
            raise LayoutError("There are boxes in the JSON, and others are connected. Take one of them away.")
        return layout_from_data(given, masks, written)
    elif not data and boxes is None:
        raise LayoutError(f"The JSON is empty. Known are {FORMATS}.")
    else:
        plain = plain_layout(data, width, height)
        said = {key: value for key, value in plain.items() if value != "" or key not in given}
        return layout_from_data(given | said, masks, boxes)
    return layout.largest_first() if largest_behind else layout


def read_pasted(text: str, width: int, height: int) -> tuple[Layout, bool]:
    """Read a text that was pasted onto a canvas of so many pixels.

    Returns:
        The layout, and whether it is a whole one, with a prompt, a background or a canvas of its own, so that it takes
        the place of what is drawn; else its regions join that.

    Raises:
        LayoutError: what is wrong and what to change.
    """
    layout = import_layout(text, width=width, height=height)
    plain = plain_text(text)
    data = None if is_sentences(plain) else read_json(plain)
    is_whole = data is not None and any(data.get(key) for key in ("prompt", "background", "width"))
    return layout, is_whole and not any(key in data for key in PHRASES)


def check_layout(text: str) -> None:
    """Refuse a text that is no layout, whatever the canvas, and whichever picture of a COCO file is meant.

    Args:
        text: as `import_layout` reads it without connected masks and boxes.

    Raises:
        LayoutError: what is wrong and what to change.
    """
    if not is_sentences(text) and "annotations" in read_layout_text(text):
        return
    try:
        import_layout(text)
    except CanvasError:
        if {"width", "height"} <= read_layout_text(text).keys():
            raise


def _are_boxes(data: object) -> bool:
    """Whether this is one of ComfyUI's boxes or elements, or a list or frames of them, and not our regions."""
    if isinstance(data, list):
        # Frames of boxes; a list that begins with a name is a thing of a language model's.
        is_frame = bool(data) and isinstance(data[0], list) and not (data[0] and isinstance(data[0][0], str))
        return bool(data) and (is_frame or _are_boxes(data[0]))
    if not isinstance(data, Mapping) or "phrase" in data:
        return False
    if isinstance(frames := data.get("boxes"), list) and frames:
        return _are_boxes(frames)
    if not any(key in data for key in ("bbox", "x", "boxes")):
        return False
    # What has a name beside its box, and nothing that ComfyUI's own have, a language model wrote.
    is_own = any(key in data for key in OF_COMFYUI) or data.get("type") in ("obj", "text")
    return is_own or not any(key in data for key in NAMES)


def _read_gligen(data: Mapping[str, Any]) -> dict[str, Any]:
    phrases = next(data[key] for key in PHRASES if key in data)
    boxes = next((data[key] for key in PLACES if key in data), None)
    if not isinstance(phrases, list) or not isinstance(boxes, list):
        raise LayoutError(
            f'The phrases come with the boxes {describe(boxes)}; expected "boxes" or "locations", a list with '
            "x0, y0, x1, y1 in 0..1 for each phrase."
        )
    if len(phrases) != len(boxes):
        raise LayoutError(f"There are {len(phrases)} phrases for {len(boxes)} boxes; expected as many of both.")
    known = {key: data[key] for key in ("width", "height", "prompt") if data.get(key)}
    regions = [{"phrase": phrase, "box": box} for phrase, box in zip(phrases, boxes, strict=True)]
    return known | {"regions": regions}


def _read_json_prompt(data: Mapping[str, Any], width: int, height: int) -> dict[str, Any]:
    """Read Ideogram 4's prompt: an element of text is called by its words, and the style's words join the prompt."""
    composition = data[COMPOSITION]
    elements = composition.get("elements") if isinstance(composition, Mapping) else None
    if not isinstance(elements, list) or not all(isinstance(each, Mapping) for each in elements):
        raise LayoutError(
            f'The JSON prompt has the elements {describe(elements)}; expected a list in "{COMPOSITION}", each with '
            '"desc" and "bbox": [ymin, xmin, ymax, xmax] from 0 to 1000.'
        )
    for each in elements:
        if "bbox" not in each:
            raise LayoutError(
                f"The element {describe(each.get('desc') or each.get('text'))} of the JSON prompt has no place. Give "
                'it a "bbox": [ymin, xmin, ymax, xmax] from 0 to 1000, or take it out.'
            )
    style = data.get("style_description")
    style = style if isinstance(style, Mapping) else {}
    said = [data.get("high_level_description"), *(style.get(key) for key in STYLE)]
    texts = {
        "prompt": ", ".join(each.strip().rstrip(".") for each in said if isinstance(each, str) and each.strip()),
        "background": composition.get("background"),
    }
    known = {key: text for key, text in texts.items() if isinstance(text, str) and text.strip()}
    return known | {"regions": read_bounding_boxes(elements, width, height)}


def _read_coco(data: Mapping[str, Any], picture: str, masks: bool) -> dict[str, Any]:
    image = _coco_image(data, picture)
    name = describe(image.get("file_name", image.get("id")))
    sides = image.get("width"), image.get("height")
    if not all(type(side) is int and side > 0 for side in sides):
        raise LayoutError(
            f"The COCO picture {name} has the size {describe(sides)}; expected width and height in pixels."
        )
    annotations = data["annotations"]
    if not isinstance(annotations, list) or not all(isinstance(each, Mapping) for each in annotations):
        raise LayoutError(f"The COCO annotations are {describe(annotations)}; expected a list of objects.")
    own = [each for each in annotations if "id" not in image or each.get("image_id") == image["id"]]
    things = [each for each in own if "bbox" in each or "segmentation" in each]
    captions = [each["caption"] for each in own if isinstance(each.get("caption"), str)]
    if not things:
        raise LayoutError(f"The COCO picture {name} has no annotation with a box or an outline.")
    categories = data.get("categories", [])
    categories = categories if isinstance(categories, list) else []
    names = {each.get("id"): each.get("name") for each in categories if isinstance(each, Mapping)}
    regions = [_coco_region(each, names, *sides, masks) for each in things]
    read = {"width": sides[0], "height": sides[1], "regions": regions}
    return read | ({"prompt": captions[0].strip()} if captions else {})


def _coco_image(data: Mapping[str, Any], picture: str) -> Mapping[str, Any]:
    images = data.get("images")
    if not isinstance(images, list) or not images or not all(isinstance(image, Mapping) for image in images):
        raise LayoutError(f'The COCO file has the "images" {describe(images)}; expected a list with their sizes.')
    if not picture.strip():
        return images[0]
    for image in images:
        if picture.strip() in (str(image.get("id")), image.get("file_name")):
            return image
    known = ", ".join(str(image.get("file_name", image.get("id"))) for image in images[:3])
    raise LayoutError(
        f"The COCO file has no picture {describe(picture)}; it has {len(images)}, such as {describe(known)[1:-1]}."
    )


def _coco_region(
    data: Mapping[str, Any], names: Mapping[Any, Any], width: int, height: int, masks: bool
) -> dict[str, Any]:
    category = data.get("category_id")
    phrase = data.get("phrase") or data.get("category_name") or (names.get(category) if _is_key(category) else None)
    if not isinstance(phrase, str):
        raise LayoutError(f'A COCO annotation has the category {describe(category)}, which "categories" does not name.')
    region: dict[str, Any] = {"phrase": phrase}
    outline, box = data.get("segmentation"), data.get("bbox")
    if outline and (masks or not box):
        mask = _coco_mask(outline, width, height, f'The COCO outline of "{phrase}"')
        region |= {} if mask is None else {"mask": mask}
    if box:
        region["box"] = _coco_box(box, width, height, phrase)
    if len(region) == 1:
        raise LayoutError(f'The COCO annotation of "{phrase}" has neither a box nor an outline with an inside.')
    return region


def _is_key(value: object) -> bool:
    return isinstance(value, int | str)


def _coco_box(box: object, width: int, height: int, phrase: str) -> list[float]:
    if not isinstance(box, list) or len(box) != 4 or not all(type(side) in (int, float) for side in box):
        raise LayoutError(f'The COCO box of "{phrase}" is {describe(box)}; expected x, y, width and height in pixels.')
    x, y, wide, high = box
    corners = [x / width, y / height, (x + wide) / width, (y + high) / height]
    sides = (width, height) * 2
    return [
        min(max(value, 0.0), 1.0) if -SLACK <= value * side <= side + SLACK else value
        for value, side in zip(corners, sides, strict=True)
    ]


def _coco_mask(outline: object, width: int, height: int, name: str) -> Mapping[str, Any] | None:
    """A COCO outline as a layout's JSON has it: runs stay runs, None without an inside; polygons count in 0..1."""
    if is_run_length(outline):
        try:
            return outline if has_inside(outline, MOST_MASK_PIXELS) else None
        except ValueError as error:
            raise LayoutError(f"{name} cannot be read: {error}.") from None
    if not isinstance(outline, list) or not all(isinstance(polygon, list) for polygon in outline):
        raise LayoutError(f"{name} is {describe(outline)}; expected a list of polygons, or runs.")
    if not all(type(value) in (int, float) for polygon in outline for value in polygon):
        raise LayoutError(f"{name} is {describe(outline)}; expected polygons of numbers x, y, x, y in pixels.")
    sides = (width, height)
    return {"polygons": [[min(max(v / sides[k % 2], 0.0), 1.0) for k, v in enumerate(polygon)] for polygon in outline]}
