"""Segmentation models in the graph, and layouts that they read out of pictures."""

import logging

import torch
from torch import Tensor

from ...core.comfy.device import on_device
from ...core.comfy.progress import one_by_one, show_text
from ...core.drawing.plates import enlarged
from ...core.layout.layout import Layout as LayoutValue
from ...core.layout.preview import draw_layout
from ...core.segmentation.comfy import SEGMENTER_FOLDERS, load_segmenter
from ...core.segmentation.joint import join_segmenters
from ...core.segmentation.layout_from_picture import Reading, read_layouts, read_phrases
from ...core.segmentation.segmenter import Segmenter
from ..api import Layout, Segmenters, io, ui
from ..inputs import FileLoader, category_of
from ..layout.layout import visible_regions

FOLDER_TIP = (
    "Folder under models/segmenters in the Hugging Face layout, with config.json and safetensors: a semantic model "
    "(SegFormer and others), Mask2Former, MaskFormer, or CLIPSeg. The model decides which things can be found: "
    "sticker_world knows the embedded checkpoint's things, CLIPSeg takes any phrase."
)


class StageSegmenterLoader(FileLoader, io.ComfyNode):
    """Name of a folder -> segmenter, beside others."""

    FILES, FILE_INPUT = SEGMENTER_FOLDERS, "folder"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageSegmenterLoader",
            display_name="Load Segmenter",
            category=category_of(__name__),
            description="Loads a segmentation model from a local folder. Chain several: each looks for what it knows.",
            inputs=[
                cls.file_input(FOLDER_TIP),
                Segmenters.Input(
                    "others",
                    optional=True,
                    tooltip="Segmenters that work together with this one, from another Load Segmenter. More of them "
                    "know more things and make each other harder to deceive, but every step takes longer.",
                ),
            ],
            outputs=[Segmenters.Output(display_name="segmenter", tooltip="For every node that has a segmenter.")],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        """Refuse a folder that is gone before anything runs; a connected name is checked when it runs."""
        return super().validate_inputs(folder)

    @classmethod
    def execute(cls, folder: str, others: tuple[Segmenter, ...] = ()) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput((*(others or ()), load_segmenter(folder)))


class StageSegment(io.ComfyNode):
    """Picture -> what is in it, as masks and as a layout that can be edited."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageSegment",
            display_name="Picture to Layout",
            category=category_of(__name__),
            description="Reads the layout out of a picture: a named region with its mask for everything that the "
            "segmenter finds, larger things behind smaller ones.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The picture to read. More pictures in the batch give a layout each and take longer.",
                ),
                Segmenters.Input("segmenter", tooltip="From Load Segmenter; several look for what each of them knows."),
                io.String.Input(
                    "classes",
                    multiline=True,
                    dynamic_prompts=False,
                    default="",
                    placeholder="a dog\nan apple",
                    tooltip="What to look for, one thing per line or with commas between; a region is called as it is "
                    "written here. More lines find more. Empty: all classes of the segmenter; CLIPSeg has none, so it "
                    "needs lines.",
                ),
                io.Float.Input(
                    "least_area",
                    default=0.01,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    round=False,
                    tooltip="Share of the picture that a region covers at least. Higher leaves specks and small things "
                    "out; lower lets them in; 0 keeps every pixel.",
                ),
                io.Float.Input(
                    "least_confidence",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Mean probability that a region has at least. Higher keeps only what the segmenter is sure "
                    "of; lower also takes guesses.",
                ),
                io.Boolean.Input(
                    "single_pieces",
                    default=True,
                    tooltip="On: every connected piece is a region, so two dogs are two. Off: one region for each "
                    "name, with all its pieces.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    tooltip="Prompt of the whole picture, for the layout. Longer says more; empty: the names and the "
                    "background, joined.",
                ),
                io.String.Input(
                    "background",
                    default="",
                    tooltip="What is behind all things, such as 'on a green meadow', for the layout. Longer says more; "
                    "empty: its layer has no prompt.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="masks",
                    tooltip="What is seen of each thing, largest first, as a batch; of several pictures one after the "
                    "other.",
                ),
                Layout.Output(
                    display_name="layout",
                    tooltip="For every Stagecraft node; of several pictures a batch of layouts, "
                    "without those in which nothing is found.",
                ),
                io.String.Output(display_name="phrases", tooltip="The names of the masks, one per line."),
                io.Image.Output(display_name="preview", tooltip="The layout drawn on each picture."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        segmenter: tuple[Segmenter, ...],
        classes: str,
        least_area: float,
        least_confidence: float,
        single_pieces: bool,
        prompt: str,
        background: str,
    ) -> io.NodeOutput:
        """Read every picture."""
        judge = join_segmenters(segmenter)
        reading = Reading(
            phrases=read_phrases(classes),
            least_area=least_area,
            least_confidence=least_confidence,
            single_pieces=single_pieces,
            prompt=prompt,
            background=background,
        )
        with on_device([each.network for each in segmenter]):
            found, lost = read_layouts(one_by_one(image), len(image), judge, reading)
        layouts = [each for each in found if each is not None]
        drawn = torch.cat([_drawn(*pair) for pair in zip(found, image, strict=True)])
        masks = torch.cat([visible_regions(each) for each in layouts])
        phrases = "\n".join(region.phrase for each in layouts for region in each.sorted_regions())
        for each in lost:
            logging.warning("Stagecraft: Picture to Layout leaves out a picture. %s", each)
        text = "\n".join([phrases, *(f"left out: {each}" for each in lost)])
        show_text(cls.hidden.unique_id, text)
        shown = {**ui.PreviewImage(drawn, cls=cls).as_dict(), "text": (text,)}
        # Of several pictures always a batch: one layout alone would be taken for all of them.
        value = layouts[0] if len(image) == 1 else tuple(layouts)
        return io.NodeOutput(masks, value, phrases, drawn, ui=shown)


def _drawn(layout: LayoutValue | None, picture: Tensor) -> Tensor:
    """A picture (h w c) with its layout drawn on it, or as it is: (1 h' w' 3)."""
    return enlarged(picture.nan_to_num())[None] if layout is None else draw_layout(layout, picture[None])
