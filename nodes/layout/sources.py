"""Layouts out of masks, out of JSON of other programs, and out of other layouts."""

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from ...core.layout.layout import Layout as LayoutValue
from ...core.layout.other_programs import import_layout
from ...core.layout.reading import parse_layout
from ...core.layout.region import LayoutError
from ...core.layout.text import read_layout_text
from ...core.layout.variations import MIRRORS, RegionEdit, edit_layout
from ..api import Layout, io
from ..inputs import category_of
from .layout import Layouts, LayoutText, layout_outputs, layout_values


def _canvas_inputs(default: int, least: int, extra: str) -> list[Any]:
    tip = "Canvas {0} in pixels. Larger makes the same layout {1} in pixels, smaller makes it {2}. " + extra
    return [
        io.Int.Input(
            "width", default=default, min=least, max=16384, step=8, tooltip=tip.format("width", "wider", "narrower")
        ),
        io.Int.Input(
            "height", default=default, min=least, max=16384, step=8, tooltip=tip.format("height", "taller", "flatter")
        ),
    ]


def _prompt_inputs() -> list[Any]:
    return [
        io.String.Input(
            "prompt",
            multiline=True,
            default="",
            tooltip="Prompt of the whole picture. Longer says more; empty: the names and the background, joined.",
        ),
        io.String.Input(
            "background",
            default="",
            tooltip="What is behind all things, such as 'on a green meadow'. Empty: its layer has no prompt.",
        ),
    ]


class StageLayoutFromMasks(io.ComfyNode):
    """Masks and names -> layout."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayoutFromMasks",
            display_name="Layout From Masks",
            category=category_of(__name__),
            description="One region for each mask of a batch, named line by line. Chain several for more masks.",
            inputs=[
                io.Mask.Input(
                    "masks",
                    tooltip="One mask or a batch of them, 1 inside, farthest first. Higher values make a region more "
                    "opaque, lower ones let what is behind it through. More masks need more lines.",
                ),
                io.String.Input(
                    "phrases",
                    multiline=True,
                    dynamic_prompts=False,
                    default="a dog",
                    placeholder="a dog | a fluffy brown dog | colour=brown",
                    tooltip="The name of each mask's thing, one per line in the masks' order. Behind a | may stand a "
                    "longer prompt, colour=red, strength=1.5 or order=2; a higher order brings it nearer.",
                ),
                *_prompt_inputs(),
                *_canvas_inputs(0, 0, "0: the masks' own size."),
                Layout.Input(
                    "before",
                    optional=True,
                    tooltip="Layout behind these regions, from another layout node; its canvas counts, and its prompt "
                    "and background where this node has none. More regions make layered runs slower.",
                ),
            ],
            outputs=layout_outputs(),
        )

    @classmethod
    def validate_inputs(cls, phrases: str | None) -> bool | str:
        """Refuse lines that cannot be meant before anything runs."""

        def read(text: str) -> None:
            if not read_layout_text(text, only_names=True).get("regions"):
                raise LayoutError("phrases is empty. Write a name per line, one for each mask.")

        return LayoutText.checked(phrases, read)

    @classmethod
    def execute(
        cls,
        masks: Tensor,
        phrases: str,
        prompt: str,
        background: str,
        width: int,
        height: int,
        before: Layouts | None = None,
    ) -> io.NodeOutput:
        """Build the layout."""
        if before is not None and not isinstance(before, LayoutValue):
            raise LayoutError(f"{len(before)} layouts are connected to before; expected one, without Layout Batch.")
        single = list(masks.reshape(-1, *masks.shape[-2:]))
        size = {"width": width or masks.shape[-1], "height": height or masks.shape[-2]}
        if before is not None:
            size = {"width": before.width, "height": before.height}
        built = parse_layout(phrases, **size, prompt=prompt, background=background, masks=single, only_names=True)
        if before is not None:
            built = built.in_front_of(before)
            said = {"prompt": prompt, "background": background}
            built = replace(built, **{key: value for key, value in said.items() if value.strip()})
        return io.NodeOutput(*layout_values(built))


class StageLayoutFromJSON(LayoutText, io.ComfyNode):
    """JSON of any known program -> layout."""

    TEXT = "json"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayoutFromJSON",
            display_name="Layout From JSON",
            category=category_of(__name__),
            description="Reads layouts, COCO annotations, GLIGEN's phrases and boxes, Ideogram 4's JSON prompt, and "
            "ComfyUI's own boxes.",
            inputs=[
                io.String.Input(
                    "json",
                    multiline=True,
                    dynamic_prompts=False,
                    default="",
                    placeholder='{"phrases": ["a dog"], "boxes": [[0.1, 0.3, 0.5, 0.9]]}',
                    tooltip="The JSON; which program it is from is seen by its keys. More things make layered runs "
                    "slower; at most 64 are possible.",
                ),
                io.String.Input(
                    "picture",
                    default="",
                    tooltip="COCO only: file name or id of the picture whose annotations are meant. Empty: the first.",
                ),
                *_prompt_inputs(),
                *_canvas_inputs(512, 16, "Only used where the JSON has no size of its own."),
                io.Boolean.Input(
                    "largest_behind",
                    default=True,
                    tooltip="On: larger things lie behind smaller ones, for COCO and GLIGEN, which have no order. Off: "
                    "later ones lie in front.",
                ),
                io.Boolean.Input(
                    "outlines",
                    default=True,
                    tooltip="On: COCO's outlines become masks, so things fill exactly their shapes. Off: only boxes "
                    "are used, which leave the model more freedom.",
                ),
            ],
            outputs=layout_outputs(),
        )

    @classmethod
    def validate_inputs(
        cls,
        json: str | None,
        picture: str | None,
        prompt: str | None,
        background: str | None,
        width: int | None,
        height: int | None,
        outlines: bool | None,
    ) -> bool | str:
        """Refuse what cannot be read before anything runs, unless part of it is connected."""
        if any(value is None for value in (json, picture, prompt, background, width, height, outlines)):
            return True
        canvas = {"width": width, "height": height, "prompt": prompt, "background": background}
        return cls.checked(json, partial(import_layout, picture=picture, masks=outlines, **canvas))

    @classmethod
    def execute(
        cls,
        json: str,
        picture: str,
        prompt: str,
        background: str,
        width: int,
        height: int,
        largest_behind: bool,
        outlines: bool,
    ) -> io.NodeOutput:
        """Build the layout."""
        canvas = {"width": width, "height": height, "prompt": prompt, "background": background}
        built = import_layout(json, picture=picture, largest_behind=largest_behind, masks=outlines, **canvas)
        return io.NodeOutput(*layout_values(built))


class StageLayoutEdit(io.ComfyNode):
    """Layout -> layout with one region moved, scaled, mirrored or asked for differently."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayoutEdit",
            display_name="Edit Layout",
            category=category_of(__name__),
            description="Moves, scales, mirrors or restyles one region of a layout, or all; join the results with "
            "Layout Batch for variations.",
            inputs=[
                Layout.Input("layout", tooltip="The layout, or a batch of layouts; every one of them is changed."),
                io.String.Input(
                    "region",
                    default="",
                    tooltip="Name of the region, or its number in the list from 1 on. Empty: all regions.",
                ),
                io.Float.Input(
                    "right",
                    default=0.0,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Move by this share of the canvas' width. Higher moves farther to the right, below 0 to "
                    "the left. What leaves the canvas is cut off.",
                ),
                io.Float.Input(
                    "down",
                    default=0.0,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Move by this share of the canvas' height. Higher moves farther down, below 0 up.",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.05,
                    max=20.0,
                    step=0.05,
                    tooltip="Size about the region's own middle. Higher makes it larger, below 1 smaller.",
                ),
                io.Combo.Input(
                    "mirror",
                    options=list(MIRRORS),
                    default=MIRRORS[0],
                    tooltip="Mirror a mask in itself (a box stays as it is), or its place on the canvas as well.",
                ),
                io.Int.Input(
                    "nearer",
                    default=0,
                    min=-100,
                    max=100,
                    tooltip="Added to the painter's order. Higher brings the region to the front, below 0 to the back.",
                ),
                io.Float.Input(
                    "stronger",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Multiplies the region's strength. Higher asks for it more, 0 switches methods off for it.",
                ),
                io.String.Input(
                    "phrase",
                    default="",
                    tooltip="New name, which also replaces the old one in the prompt. Empty: stays.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="New longer prompt of the region's own layer. Longer says more of its looks; empty: stays.",
                ),
                io.String.Input(
                    "colour",
                    default="",
                    tooltip="New colour for vision guidance, such as red or #ff8800; none takes it away. Empty: stays.",
                ),
            ],
            outputs=[Layout.Output(display_name="layout", tooltip="The changed layout, or batch of layouts.")],
        )

    @classmethod
    def execute(cls, layout: Layouts, region: str, **changes: float | str) -> io.NodeOutput:
        """Change it."""
        edit = RegionEdit(**changes)
        if isinstance(layout, LayoutValue):
            return io.NodeOutput(edit_layout(layout, region, edit))
        return io.NodeOutput(tuple(edit_layout(each, region, edit) for each in layout))
