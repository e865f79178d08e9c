"""Layouts out of other layouts."""

from ...core.layout.layout import Layout as LayoutValue
from ...core.layout.variations import MIRRORS, RegionEdit, edit_layout
from ..api import Layout, io
from ..inputs import category_of
from .layout import Layouts


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
