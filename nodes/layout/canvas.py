"""The layout canvas in the graph; its widget is in web/."""

import json
from zlib import crc32

from torch import Tensor

from ...core.comfy.pictures import check_references, load_references
from ...core.layout.canvas import canvas_warnings, check_canvas, offered_layout, read_canvas, shape_warning
from ...core.layout.layout import Layout as LayoutValue
from ...core.layout.preview import draw_layout, fit_picture, fit_within, preview_size
from ...core.layout.writing import reference_batch, write_bounding_boxes, write_elements, write_layers
from ..api import Array, Bbox, BoundingBox, BoundingBoxes, Layers, Layout, Segs, io, ui
from ..inputs import NOT_CONNECTED, category_of
from .layout import Layouts, LayoutText, visible_regions

EXAMPLE = json.dumps(
    {
        "width": 512,
        "height": 512,
        "prompt": "",
        "background": "",
        "regions": [
            {"phrase": "a dog", "box": [0.0625, 0.34375, 0.46875, 0.90625], "prompt": "", "strength": 1.0, "order": 0},
            {"phrase": "a cat", "box": [0.53125, 0.34375, 0.9375, 0.90625], "prompt": "", "strength": 1.0, "order": 1},
        ],
    }
)


class StageLayoutCanvas(LayoutText, io.ComfyNode):
    """Boxes and masks drawn in the editor -> layout."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayoutCanvas",
            display_name="Layout Canvas",
            category=category_of(__name__),
            description="Draw where things go: boxes and brushed masks with names, prompts, strengths and an order.",
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "layout",
                    multiline=True,
                    dynamic_prompts=False,
                    default=EXAMPLE,
                    placeholder="a layout's JSON",
                    tooltip="The drawing as one JSON text: canvas, prompt, background and regions, each with its box "
                    "or mask. A larger region gives its thing more room, a higher order brings it nearer, a higher "
                    "strength asks for it more. The lines of the Layout node work too.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Picture to draw over; it is shown in the editor after a run and lies under the preview. "
                    "It does not change the layout. More pictures give more previews.",
                ),
                Layout.Input(
                    "start",
                    optional=True,
                    tooltip="Layout to start from: it is used, canvas and prompt included, as long as the canvas has "
                    "no region that is shown, and the editor offers to take it over. More of its regions change "
                    "nothing once you have drawn one.",
                ),
                io.MultiType.Input(
                    "boxes",
                    [BoundingBox, BoundingBoxes, Array, Layers, io.String, io.Mask, Segs, Bbox],
                    optional=True,
                    tooltip="What a detector, a segmenter or another editor found: boxes, elements, layers, a batch of "
                    "masks, or SEGS, to start from, in front of start. They fill the regions without a place in order; "
                    "without any region they are the layout, on the canvas of image if that is connected, and the "
                    "editor shows them to be taken over. More of them need as many regions without a place; softer "
                    "masks stay soft.",
                ),
            ],
            outputs=[
                Layout.Output(display_name="layout", tooltip="For every Stagecraft node."),
                io.String.Output(display_name="prompt", tooltip="The prompt of the whole picture."),
                io.Int.Output(display_name="width", tooltip="Canvas width, for the empty latent."),
                io.Int.Output(display_name="height", tooltip="Canvas height, for the empty latent."),
                io.Image.Output(display_name="preview", tooltip="The layout drawn over the image or an empty canvas."),
                io.Mask.Output(display_name="masks", tooltip="What is seen of each thing, farthest first, as a batch."),
                BoundingBox.Output(display_name="boxes", tooltip="Each thing's box in pixels, farthest first."),
                Array.Output(display_name="elements", tooltip="Each thing as an element on a grid of 0 to 1000."),
                Layers.Output(
                    display_name="layers",
                    tooltip="Each thing as a layer: its reference picture in its place, else its colour.",
                ),
                io.Image.Output(
                    display_name="references",
                    tooltip="One picture for each thing, farthest first, for Layered Rendering: its reference, else "
                    "its colour, else grey.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        layout: str | None,
        start: object = NOT_CONNECTED,
        boxes: object = NOT_CONNECTED,
    ) -> bool | str:
        """Refuse a bad drawing before anything runs."""
        is_connected = any(each is not NOT_CONNECTED for each in (start, boxes))

        def read(text: str) -> None:
            known = check_canvas(text, is_connected)
            if known is not None:
                check_references(known)

        return cls.checked(layout, read)

    @classmethod
    def execute(
        cls,
        layout: str,
        image: Tensor | None = None,
        start: Layouts | None = None,
        boxes: object = None,
    ) -> io.NodeOutput:
        """Build the layout, draw it, and tell the editor what came in."""
        size = None if image is None else (image.shape[2], image.shape[1])
        built = read_canvas(layout, start, boxes, size)
        pictures = load_references(built)
        warnings, shown, ground = canvas_warnings(built), {}, None
        if image is not None:
            ground = fit_picture(image, *preview_size(built))
            warnings += shape_warning(built, *image.shape[1:3])
            shown["stage_image"] = ui.PreviewImage(fit_within(image[:1])).as_dict()["images"]
        if start is not None or boxes is not None:
            offered = offered_layout(start, boxes, (built.width, built.height), size)
            shown["stage_start"] = [] if offered is None else [json.dumps(offered.to_dict())]
        return io.NodeOutput(
            built,
            built.prompt,
            built.width,
            built.height,
            draw_layout(built, ground),
            visible_regions(built),
            write_bounding_boxes(built),
            write_elements(built),
            write_layers(built, pictures),
            reference_batch(built, pictures),
            ui=shown | {"stage_warnings": warnings, "stage_ran": [_ran(layout, built)]},
        )


def _ran(text: str, built: LayoutValue) -> dict[str, int | str]:
    """What was drawn when the run was queued, so that the editor knows what later results are of."""
    return {"text": crc32(text.encode()), "layout": built.fingerprint()}
