"""How well pictures follow a layout."""

import json

import torch
from torch import Tensor

from ...core.comfy.device import on_device
from ...core.comfy.progress import one_by_one, show_text
from ...core.drawing.pictures import of_picture
from ...core.layout.layout import layouts_of
from ...core.scores.layout_score import report, report_text
from ...core.scores.overlay import score_and_draw
from ...core.segmentation.joint import join_segmenters
from ...core.segmentation.segmenter import Segmenter
from ..api import Layout, Segmenters, io, ui
from ..inputs import category_of
from ..layout.layout import Layouts


class StageLayoutScore(io.ComfyNode):
    """Pictures and a layout -> numbers and a drawing of what was found."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayoutScore",
            display_name="Layout Score",
            category=category_of(__name__),
            description="Measures with a segmenter whether each thing of a layout is in its place, and draws what was "
            "found (solid) beside what was asked for (dashed).",
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="Pictures painted for this layout, with the canvas' aspect ratio. More pictures give means "
                    "over all of them, which vary less, and a drawing of each.",
                ),
                Layout.Input("layout", tooltip="What was asked for; its names must be known to the segmenter."),
                Segmenters.Input(
                    "segmenter",
                    tooltip="Looks for the things, from Load Segmenter. It decides which can be found. More of them in "
                    "a chain know more things and take longer; where several know a thing, their findings are "
                    "averaged.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="overlay", tooltip="Found against asked, one drawing per picture."),
                io.Float.Output(
                    display_name="box_iou",
                    tooltip="Mean overlap of found and asked boxes, 0 (nothing in place) to 1 (everything exactly).",
                ),
                io.String.Output(display_name="json", tooltip="All numbers as JSON: means, then every region."),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, layout: Layouts, segmenter: tuple[Segmenter, ...]) -> io.NodeOutput:
        """Score and draw every picture."""
        judge = join_segmenters(segmenter)
        pairs = one_by_one(list(zip(image, layouts_of(layout, len(image)), strict=True)))
        scores, overlays = [], []
        with on_device([each.network for each in segmenter]):
            for number, (picture, each) in enumerate(pairs, 1):
                with of_picture(number, len(image)):
                    score, overlay = score_and_draw(picture, each, judge)
                scores.append(score)
                overlays.append(overlay)
        overlay, numbers, text = torch.stack(overlays), report(scores), report_text(scores)
        show_text(cls.hidden.unique_id, text)
        shown = {**ui.PreviewImage(overlay, cls=cls).as_dict(), "text": (text,)}
        return io.NodeOutput(overlay, numbers["box_iou"], json.dumps(numbers), ui=shown)
