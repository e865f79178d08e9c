"""Stage one of TCIG in the graph: the draft that follows a layout."""

import math
from collections.abc import Sequence

from torch import Tensor

from ...core.clip.comfy.folder import FolderClip
from ...core.comfy.progress import show_text
from ...core.layout.layout import Layout as LayoutValue
from ...core.layout.layout import layouts_of
from ...core.segmentation.segmenter import Segmenter
from ...core.tcig.comfy.draft import draft_pictures
from ...core.tcig.cut_outs import NUMBER, CutOuts
from ...core.tcig.draft import (
    CLIP_WEIGHT,
    FEW_ITERATIONS,
    LEARNING_RATE,
    SEGMENTER_NOISE,
    START_WEIGHT,
    DraftSettings,
)
from ...core.tcig.optimisation import DraftError
from ...core.tcig.prompts import read_prompts
from ...core.tcig.starts import COLOURS, PICTURE, STARTS, Start
from ...core.tcig.vqgan import VQGAN as VQGANValue
from ..api import VQGAN, Clip, Layout, Segmenters, io
from ..inputs import NOT_CONNECTED, brought, category_of, linked, refuse, sampling_inputs


class StageTCIGDraft(io.ComfyNode):
    """Layout and models -> a draft with everything in its place."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageTCIGDraft",
            display_name="TCIG Draft",
            category=category_of(__name__),
            description="Drafts a picture whose things lie where the layout says (TCIG, stage one): a VQGAN's codes "
            "are optimised until CLIP reads the prompt and segmenters see the layout. For stage two, TCIG Refine.",
            inputs=[
                Layout.Input(
                    "layout",
                    tooltip="What lies where. Each region's phrase has to name something that a segmenter knows; a "
                    "higher strength of a region makes its place count more. A batch of layouts gives a batch.",
                ),
                VQGAN.Input("vqgan", tooltip="From Load VQGAN: paints."),
                Clip.Input("clip", tooltip="From Load CLIP Folder: judges whether the draft looks like the prompt."),
                Segmenters.Input(
                    "segmenter",
                    tooltip="From Load Segmenter, one or several in a chain: judge what lies where. Several hold a "
                    "draft back from pleasing one and not the eye; each looks at the regions that it knows.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="For CLIP: text, text:weight or text:weight:stop, several between bars, such as "
                    '"a dog and a cat | blurry:-0.5". Higher weights pull more, negative ones push away; nothing is '
                    "pulled nearer than stop. Empty: the layout's prompt.",
                ),
                io.Int.Input(
                    "iterations",
                    default=FEW_ITERATIONS,
                    min=1,
                    max=10000,
                    tooltip="Steps of the optimisation. More fit the layout better and take longer; after some "
                    "hundreds little changes.",
                ),
                io.Int.Input(
                    "size",
                    default=256,
                    min=16,
                    max=2048,
                    step=8,
                    tooltip="Pixels of the draft's longer side; the canvas gives the shape. Larger shows more detail "
                    "and takes longer, with the square of it.",
                ),
                *sampling_inputs(
                    {
                        "seed": "Of random codes and of what CLIP sees. The next picture of a batch has the next seed.",
                    }
                ),
                io.Combo.Input(
                    "start",
                    options=list(STARTS),
                    default=COLOURS,
                    tooltip="flat colours: regions in their colours, on the image or on grey; calm and soon in place. "
                    "random codes: every seed another, restless draft. picture: the image, changed as far as it has "
                    "to.",
                ),
                io.Float.Input(
                    "clip_weight",
                    default=CLIP_WEIGHT,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    tooltip="How much the prompt counts. Higher looks more like it and fits the layout less; 0 leaves "
                    "CLIP out.",
                ),
                io.String.Input(
                    "segmenter_weights",
                    default="1.0",
                    tooltip="How much the layout counts: a number for all segmenters, or one for each. Higher fits "
                    "the layout better and looks less like the prompt; 0 leaves the segmenter out and only measures "
                    "with it.",
                ),
                io.Boolean.Input(
                    "balance",
                    default=True,
                    tooltip="On: weights compare the forces on the codes, so 1 is as strong as CLIP at 1 whatever the "
                    "models. Off: weights multiply the losses themselves, as TCIG writes them.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=LEARNING_RATE,
                    min=0.001,
                    max=2.0,
                    step=0.01,
                    tooltip="How far each step goes. Higher fits sooner and becomes restless, lower needs more "
                    "iterations.",
                ),
                io.Int.Input(
                    "cut_outs",
                    default=NUMBER,
                    min=1,
                    max=256,
                    tooltip="Distorted views of the draft that CLIP judges in each step. More make steps calmer and "
                    "longer; fewer let it please CLIP and not the eye.",
                ),
                io.Int.Input(
                    "patience",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Ends a draft early when so many iterations are in the mean no better than as many before. "
                    "Higher waits longer; 0 never ends early.",
                ),
                io.Float.Input(
                    "segmenter_noise",
                    default=SEGMENTER_NOISE,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="Noise on what segmenters see, another one in each step. Higher makes things plainer to "
                    "the eye and fits a little less; 0 lets patterns grow that only the segmenter sees.",
                ),
                io.Float.Input(
                    "start_weight",
                    default=START_WEIGHT,
                    min=0.0,
                    max=100.0,
                    step=0.05,
                    optional=True,
                    tooltip="How much the draft is held to its start outside of the regions. Higher leaves calm what "
                    "the layout does not ask for; 0 lets everything drift, and CLIP may see things everywhere. With "
                    "random codes it does not count.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="What flat colours lie on, such as the empty place painted by your checkpoint; where start "
                    "is picture, what to begin with. Stretched to the draft's size. One for all layouts of a batch, or "
                    "one for each.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="The draft: everything in its place, not yet pretty. For TCIG Refine."
                ),
                io.Float.Output(
                    display_name="mask_iou",
                    tooltip="Mean overlap of found and asked masks over all regions, 0 (nothing in place) to 1.",
                ),
                io.String.Output(display_name="report", tooltip="Each region's overlap, and how the run went."),
                io.Image.Output(display_name="loss_curve", tooltip="How each loss fell, one plot per picture."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(
        cls,
        prompt: str | None,
        iterations: int | None,
        start: str | None,
        clip_weight: float | None,
        segmenter_weights: str | None,
        learning_rate: float | None,
        segmenter_noise: float | None = None,
        start_weight: float | None = None,
        image: object = NOT_CONNECTED,
    ) -> bool | str:
        """Refuse what cannot be meant before anything runs; connected values are checked when they run."""
        try:
            if prompt is not None and prompt.strip():
                read_prompts(prompt)
            weights = [] if segmenter_weights is None else read_weights(segmenter_weights)
        except ValueError as error:
            return str(error)
        if clip_weight == 0 and weights and not any(weights):
            return "clip_weight and all segmenter_weights are 0, so there is nothing to draw for. Set one above 0."
        if iterations is not None and iterations < 1:
            return f"iterations is {iterations}; expected 1 or more."
        if clip_weight is not None and not 0 <= clip_weight < math.inf:
            return f"clip_weight is {clip_weight}; expected a finite number, 0 or more."
        for name, amount in (("segmenter_noise", segmenter_noise), ("start_weight", start_weight)):
            if amount is not None and not 0 <= amount < math.inf:
                return f"{name} is {amount}; expected a finite number, 0 or more."
        if learning_rate is not None and not 0 < learning_rate < math.inf:
            return f"learning_rate is {learning_rate}; expected a finite number above 0 such as {LEARNING_RATE}."
        if start is not None and start not in STARTS:
            return f'There is no start "{start}"; expected one of: {"; ".join(STARTS)}. Choose one.'
        return _wrong_links(linked(image=image), start) or True

    @classmethod
    def execute(
        cls,
        layout: LayoutValue | Sequence[LayoutValue],
        vqgan: VQGANValue,
        clip: FolderClip,
        segmenter: tuple[Segmenter, ...],
        prompt: str,
        size: int,
        seed: int,
        start: str,
        segmenter_weights: str,
        balance: bool,
        cut_outs: int,
        segmenter_noise: float = SEGMENTER_NOISE,
        start_weight: float = START_WEIGHT,
        image: Tensor | None = None,
        **settings: object,
    ) -> io.NodeOutput:
        """Draft."""
        refuse(_wrong_links(brought(image=image), start))
        weights, prompts = read_weights(segmenter_weights), read_prompts(prompt) if prompt.strip() else ()
        layouts = layouts_of(layout, 1 if isinstance(layout, LayoutValue) else len(layout))
        settings = DraftSettings(
            balanced=balance,
            cut_outs=CutOuts(cut_outs),
            segmenter_noise=segmenter_noise,
            start_weight=start_weight,
            **settings,
        )
        begin = Start(start, image)
        models = vqgan, clip.guide, segmenter
        found = draft_pictures(layouts, *models, weights, prompts, begin, settings, size=size, seed=seed)
        show_text(cls.hidden.unique_id, found.text)
        return io.NodeOutput(found.images, found.mean_overlap(), found.text, found.plots)


def _wrong_links(given: set[str], start: str | None) -> str | None:
    """What is wrong with the picture to start from; the start is None where it is not known yet."""
    if start == PICTURE and "image" not in given:
        return 'The start "picture" needs an image, and none is connected. Connect one, or choose another start.'
    return None


def read_weights(text: str) -> list[float]:
    """Read numbers between commas or spaces.

    Raises:
        DraftError: none, or something else.
    """
    try:
        weights = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        weights = []
    if not weights or not all(0 <= weight < math.inf for weight in weights):
        raise DraftError(f'segmenter_weights is "{text}"; expected finite numbers, 0 or more, such as 1.0 or 1.0, 0.5.')
    return weights
