"""Layouts in and out of the graph."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ...core.comfy.pictures import reference_times
from ...core.comfy.progress import one_by_one
from ...core.layout.layout import Layout as LayoutValue
from ...core.layout.layout import layouts_of
from ...core.layout.other_programs import check_layout, import_layout
from ...core.layout.preview import draw_layout
from ...core.layout.region import LayoutError
from ...core.layout.text import read_layout_text
from ...core.layout.writing import write_bounding_boxes, write_json_prompt
from ..api import BoundingBox, BoundingBoxes, Layout, io, ui
from ..inputs import NOT_CONNECTED, advanced, category_of, refusal

Layouts: TypeAlias = LayoutValue | tuple[LayoutValue, ...]  # what a socket brings: one, or one for each picture

EXAMPLE = "a dog: 0.05 0.35 0.45 0.9\na cat: 0.55 0.35 0.95 0.9"
FINEST_MASK = 4096  # pixels along the longer side of a mask that is given out
MOST_VALUES = 2**26  # of all masks that a layout gives out, 256 MB; with more of them each is coarser


def layout_outputs() -> list[Any]:
    """Outputs of every node that makes one layout; `layout_values` gives their values."""
    return [
        Layout.Output(display_name="layout", tooltip="For every Stagecraft node."),
        io.String.Output(display_name="prompt", tooltip="The prompt of the whole picture."),
        io.Mask.Output(display_name="masks", tooltip="What is seen of each thing, farthest first, as a batch."),
        BoundingBox.Output(display_name="boxes", tooltip="Each thing's box in pixels, farthest first."),
        io.Int.Output(display_name="width", tooltip="Canvas width, for the empty latent."),
        io.Int.Output(display_name="height", tooltip="Canvas height, for the empty latent."),
    ]


def layout_values(built: LayoutValue) -> tuple[Any, ...]:
    """Values of `layout_outputs`."""
    boxes = write_bounding_boxes(built)
    return built, built.prompt, visible_regions(built), boxes, built.width, built.height


def visible_regions(built: LayoutValue) -> Tensor:
    """What is seen of each region, (n h w) of the canvas; of a very large canvas at a whole part of its size."""
    values = built.height * built.width * len(built.regions)
    coarser = math.ceil(max(max(built.height, built.width) / FINEST_MASK, math.sqrt(values / MOST_VALUES)))
    return built.visible_masks(math.ceil(built.height / coarser), math.ceil(built.width / coarser), one_by_one)[1:]


class LayoutText:
    """What nodes share that read a layout from their input `layout`; stands before `io.ComfyNode` among the bases."""

    @staticmethod
    def checked(text: str | None, read: Callable[[str], object]) -> bool | str:
        """Answer of `validate_inputs`: True, or why the text cannot be read; a connected one is None until it runs."""
        return (None if text is None else refusal(partial(read, text), LayoutError)) or True

    @classmethod
    def fingerprint_inputs(cls, **inputs: object) -> tuple[int, ...]:
        """Run again when a reference picture's file has changed."""
        text = inputs.get("layout")
        return reference_times(text if isinstance(text, str) else None)


class StageLayout(LayoutText, io.ComfyNode):
    """Lines, sentences, JSON, masks and boxes -> layout."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayout",
            display_name="Layout",
            category=category_of(__name__),
            description="Says what is where: one line per thing with its box, or with a connected mask or box; a plain "
            "sentence such as 'a dog left of a cat, under a tree'; or JSON: our own, a language model's answer, COCO, "
            "GLIGEN, Ideogram 4 or ComfyUI's boxes.",
            inputs=[
                io.String.Input(
                    "layout",
                    multiline=True,
                    dynamic_prompts=False,
                    default=EXAMPLE,
                    placeholder="a dog: 0.1 0.3 0.5 0.8 | a fluffy brown dog | colour=brown",
                    tooltip="One thing per line, farthest first: its name, a colon, and its box as left, top, right "
                    "and bottom in 0..1 of the canvas; also 'ellipse' and such a box, or 'polygon' and corners x y x y "
                    "x y. 'a dog: mask 1' takes a connected mask, 'a dog' alone the next connected mask or box. Behind "
                    "a | may stand a longer prompt, colour=red, strength=1.5, order=2 or lora=name:0.8, a LoRA that "
                    "this thing alone wears in Layered Rendering. A larger box gives the thing more room, a higher "
                    "order brings it nearer, a higher number behind lora= shows more of its look, 0 none. Without a "
                    "colon, a | or numbers, and with no mask or box connected, it is an English sentence: 'a dog left "
                    "of a cat, a big tree behind them'. "
                    "What begins with { or [ is JSON; a language model's answer may have words and fences around it.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    tooltip="Prompt of the whole picture. Empty: that of the layout before, else the names and the "
                    "background, joined. A JSON layout's own prompt wins.",
                ),
                io.String.Input(
                    "background",
                    default="",
                    tooltip="What is behind all things, such as 'on a green meadow'. Empty: that of the layout before, "
                    "else nothing is said about it, and its layer is painted without a prompt. A JSON layout's own "
                    "background wins.",
                ),
                _side("width", "wider", "narrower"),
                _side("height", "taller", "flatter"),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="One mask or a batch of them, with the canvas' aspect ratio, 1 inside, farthest first, "
                    "counted from 1. Without 'mask 1' in the layout, one for each line in order. Higher values make a "
                    "region more opaque, lower ones let what is behind it through. More masks need more lines.",
                ),
                io.MultiType.Input(
                    "boxes",
                    [BoundingBox, BoundingBoxes],
                    optional=True,
                    tooltip="Boxes in pixels from a box editor or a detector, for the lines without a place, in order. "
                    "If the layout is empty, the boxes' own names are used. More boxes need more lines.",
                ),
                Layout.Input(
                    "before",
                    optional=True,
                    tooltip="Layout behind these things, from another layout node; its canvas counts. Chain several "
                    "for masks of different sizes. More regions make layered runs slower.",
                ),
                *map(advanced, _json_inputs()),
            ],
            outputs=layout_outputs(),
        )

    @classmethod
    def validate_inputs(
        cls, layout: str | None, masks: object = NOT_CONNECTED, boxes: object = NOT_CONNECTED
    ) -> bool | str:
        """Refuse a bad text before anything runs; what depends on other inputs is checked when it runs."""
        if masks is NOT_CONNECTED and boxes is NOT_CONNECTED:
            return cls.checked(layout, check_layout)
        return cls.checked(layout, partial(read_layout_text, has_masks=masks is not NOT_CONNECTED))

    @classmethod
    def execute(
        cls,
        layout: str,
        prompt: str,
        background: str,
        width: int,
        height: int,
        masks: Tensor | None = None,
        before: Layouts | None = None,
        **given: object,
    ) -> io.NodeOutput:
        """Build the layout."""
        if before is not None and not isinstance(before, LayoutValue):
            raise LayoutError(f"{len(before)} layouts are connected to before; expected one, without Layout Batch.")
        said = {"prompt": prompt, "background": background}
        if before is not None:
            width, height = before.width, before.height
            said = {key: text if text.strip() else getattr(before, key) for key, text in said.items()}
        elif masks is not None:
            width, height = width or masks.shape[-1], height or masks.shape[-2]
        single = None if masks is None else list(masks.reshape(-1, *masks.shape[-2:]))
        built = import_layout(layout, width=width, height=height, **said, masks=single, **given)
        if before is not None:
            built = replace(built.in_front_of(before), prompt=built.prompt, background=built.background)
        return io.NodeOutput(*layout_values(built))


def _side(name: str, larger: str, smaller: str) -> io.Int.Input:
    return io.Int.Input(
        name,
        default=512,
        min=0,
        max=16384,
        step=8,
        tooltip=f"Canvas {name} in pixels; must have the latent's shape. Larger makes the same boxes {larger} in "
        f"pixels, smaller makes them {smaller}. 0: the masks' own. A JSON layout's own {name} wins, and that of the "
        "layout before.",
    )


def _json_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "picture",
            default="",
            optional=True,
            tooltip="COCO's JSON only: file name or id of the picture whose annotations are meant. Empty: the first.",
        ),
        io.Boolean.Input(
            "largest_behind",
            default=True,
            optional=True,
            tooltip="COCO's and GLIGEN's JSON only, which have no order. On: larger things lie behind smaller ones. "
            "Off: later ones lie in front.",
        ),
        io.Boolean.Input(
            "outlines",
            default=True,
            optional=True,
            tooltip="COCO's JSON only. On: its outlines become masks, so things fill exactly their shapes. Off: only "
            "boxes are used, which leave the model more freedom.",
        ),
    ]


class StageLayoutPreview(io.ComfyNode):
    """Layout -> picture of its boxes and masks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayoutPreview",
            display_name="Layout Preview",
            category=category_of(__name__),
            description="Draws a layout's boxes and masks in painter's order with their numbers and names, and gives "
            "it as Ideogram 4's JSON prompt.",
            is_output_node=True,
            inputs=[
                Layout.Input("layout", tooltip="What to draw; higher orders are drawn over lower ones."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Pictures to draw on, with the canvas' aspect ratio. More pictures give more drawings; "
                    "none gives one drawing on an empty canvas.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The drawing, at least 512 pixels on each side."),
                io.String.Output(
                    display_name="json_prompt",
                    tooltip="Prompt and boxes of the (first) layout as Ideogram 4's JSON, for the CLIP Text Encode of "
                    "that model.",
                ),
            ],
        )

    @classmethod
    def execute(cls, layout: Layouts, image: Tensor | None = None) -> io.NodeOutput:
        """Draw."""
        count = 1 if isinstance(layout, LayoutValue) else len(layout)
        layouts = layouts_of(layout, count if image is None else len(image))
        if image is None or count == 1:
            drawn = torch.cat([draw_layout(each, image) for each in layouts[:count]])
        else:
            pictures = image.split(1)
            drawn = torch.cat([draw_layout(*pair) for pair in zip(layouts, pictures, strict=True)])
        return io.NodeOutput(drawn, write_json_prompt(layouts[0]), ui=ui.PreviewImage(drawn, cls=cls))


class StageLayoutBatch(io.ComfyNode):
    """Layouts -> one layout for each picture of a batch."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayoutBatch",
            display_name="Layout Batch",
            category=category_of(__name__),
            description="Joins layouts, so that every picture of a batch has its own. Chain several for more.",
            inputs=[
                Layout.Input("first", tooltip="Layout of the first picture, or a batch of layouts for the first ones."),
                Layout.Input("second", tooltip="Layout of the next picture, or a batch of layouts; same canvas size."),
            ],
            outputs=[
                Layout.Output(display_name="layout", tooltip="One layout for each picture of the latent's batch.")
            ],
        )

    @classmethod
    def execute(cls, first: Layouts, second: Layouts) -> io.NodeOutput:
        """Join them."""
        joined = [(each,) if isinstance(each, LayoutValue) else tuple(each) for each in (first, second)]
        return io.NodeOutput(joined[0] + joined[1])
