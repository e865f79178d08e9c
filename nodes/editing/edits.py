"""Edits of a given picture in the graph: one node for each kind of edit. Edit Picture in Layers does them."""

from collections.abc import Sequence

from torch import Tensor

from ...core.editing import edits as editing
from ...core.editing.edits import Edit, EditError
from ...core.layout.layout import Layout as LayoutValue
from ..api import Layout, io
from ..inputs import category_of

Edits = io.Custom("STAGE_EDITS")

BOX, OUTLINE = "box", "outline"

BEFORE_TIP = (
    "Edits to do before this one, from another edit node. A longer chain changes more of the picture in one run, and "
    "every painted thing makes the first part of the run slower."
)
OUTPUT_TIP = "For the edits input of Edit Picture in Layers, or the before input of the next edit."
MASK_TIP = (
    "Where {} in the picture is, 1 inside, with the picture's shape; all of the thing and little else. A larger mask "
    "changes more of the picture, one that is too small leaves parts of the thing."
)


def _before() -> Edits.Input:
    return Edits.Input("before", optional=True, tooltip=BEFORE_TIP)


def _edits_output() -> Edits.Output:
    return Edits.Output(display_name="edits", tooltip=OUTPUT_TIP)


def _chain(before: tuple[Edit, ...] | None, *edits: Edit) -> io.NodeOutput:
    return io.NodeOutput((*(before or ()), *edits))


class StageEditInsert(io.ComfyNode):
    """Layout -> edits that paint its things into a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageEditInsert",
            display_name="Insert Objects",
            category=category_of(__name__),
            description="Paints every thing of a layout into a given picture, each in its place.",
            inputs=[
                Layout.Input(
                    "layout",
                    tooltip="What to paint and where, on a canvas of the picture's shape. Larger boxes change more of "
                    "the picture; a colour gives the thing vision guidance. Its prompt and background are not used.",
                ),
                _before(),
            ],
            outputs=[_edits_output()],
        )

    @classmethod
    def execute(
        cls, layout: LayoutValue | Sequence[LayoutValue], before: tuple[Edit, ...] | None = None
    ) -> io.NodeOutput:
        """Add an edit for each region."""
        if not isinstance(layout, LayoutValue):
            raise EditError(
                f"Insert Objects got {len(layout)} layouts; expected one for all pictures of the batch. Connect Layout "
                "without Layout Batch."
            )
        return _chain(before, *(editing.insert(region) for region in layout.sorted_regions()))


class StageEditReplace(io.ComfyNode):
    """Mask and name -> an edit that paints another thing there."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageEditReplace",
            display_name="Replace Object",
            category=category_of(__name__),
            description="Paints another thing in the place of one that is in a given picture.",
            inputs=[
                io.Mask.Input("mask", tooltip=MASK_TIP.format("the old thing")),
                io.String.Input(
                    "phrase",
                    default="a dog",
                    tooltip="What the new thing is, as the prompt of the finished picture calls it.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="Longer prompt for the new thing alone. More words say more of its looks; empty takes the "
                    "phrase and the background.",
                ),
                io.String.Input(
                    "colour",
                    default="",
                    tooltip="The new thing's main colour, such as red or #a1be72, for vision guidance: it is pushed "
                    "into its place. Empty: no guidance, unless Edit Picture in Layers's source says otherwise.",
                ),
                io.Combo.Input(
                    "shape",
                    options=[BOX, OUTLINE],
                    default=BOX,
                    tooltip="box: the new thing may fill the box around the mask, with an outline of its own. outline: "
                    "it stays inside the mask and takes the old thing's outline.",
                ),
                io.Float.Input(
                    "keep",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of the old thing's inverted noise is kept. Higher keeps more of its pose, size "
                    "and colours, at 1 it may not change at all, and needs a deterministic sampler such as euler; "
                    "lower lets the new thing look as it likes; 0 starts from fresh noise.",
                ),
                _before(),
            ],
            outputs=[_edits_output()],
        )

    @classmethod
    def execute(
        cls,
        mask: Tensor,
        phrase: str,
        prompt: str,
        colour: str,
        shape: str,
        keep: float,
        before: tuple[Edit, ...] | None = None,
    ) -> io.NodeOutput:
        """Add the edit."""
        new = editing.replace(mask, phrase, whole_box=shape == BOX, keep=keep, prompt=prompt, colour=colour)
        return _chain(before, new)


class StageEditRemove(io.ComfyNode):
    """Mask and name -> an edit that paints what lies behind."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageEditRemove",
            display_name="Remove Object",
            category=category_of(__name__),
            description="Takes a thing out of a given picture and paints what lies behind it.",
            inputs=[
                io.Mask.Input("mask", tooltip=MASK_TIP.format("the thing that goes away")),
                io.String.Input(
                    "name",
                    default="",
                    tooltip="What goes away, such as 'a cat'; becomes the negative prompt of its place in the first "
                    "part of the run. More words keep more things away from there; empty says nothing.",
                ),
                _before(),
            ],
            outputs=[_edits_output()],
        )

    @classmethod
    def execute(cls, mask: Tensor, name: str, before: tuple[Edit, ...] | None = None) -> io.NodeOutput:
        """Add the edit."""
        return _chain(before, editing.remove(mask, name))


class StageEditMove(io.ComfyNode):
    """Mask and distance -> an edit that moves a thing."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""

        def distance(name: str, positive: str, negative: str) -> io.Float.Input:
            return io.Float.Input(
                name,
                default=0.0,
                min=-1.0,
                max=1.0,
                step=0.01,
                tooltip=f"How far to move, in shares of the picture: higher goes further {positive}, below 0 "
                f"{negative}, 0 stays. What leaves the picture is cut off.",
            )

        return io.Schema(
            node_id="StageEditMove",
            display_name="Move Object",
            category=category_of(__name__),
            description="Moves a thing within a given picture: it keeps its looks, only its outline is painted anew, "
            "and what lies behind its old place is painted.",
            inputs=[
                io.Mask.Input("mask", tooltip=MASK_TIP.format("the thing")),
                io.String.Input(
                    "name",
                    default="",
                    tooltip="What moves, such as 'a cat': wanted around its new place, not wanted at its old one. More "
                    "words describe it more closely; empty says nothing.",
                ),
                distance("right", "right", "left"),
                distance("down", "down", "up"),
                _before(),
            ],
            outputs=[_edits_output()],
        )

    @classmethod
    def execute(
        cls, mask: Tensor, name: str, right: float, down: float, before: tuple[Edit, ...] | None = None
    ) -> io.NodeOutput:
        """Add the edit."""
        return _chain(before, editing.move(mask, name, right, down))
