"""The node that splits a picture into foreground, background and mask, for editing and for training."""

from collections.abc import Sequence

from torch import Tensor

from ...core.comfy.progress import one_by_one, show_text
from ...core.comfy.sampling import Sampling
from ...core.comfy.types import Conditioning, Model, Vae
from ...core.drawing.pictures import colours_of
from ...core.layers.layered_image import Layer, LayeredImage, opaque_picture, to_layers
from ...core.text2layer.comfy.splitting import fill_background, save_split
from ...core.text2layer.split_quality import is_good, measure_mask, report
from ...core.text2layer.splitting import (
    DILATION,
    SplitError,
    checked_masks,
    cut_foreground,
    fill_until_good,
    hole_to_fill,
)
from ..api import Layers, io, ui
from ..inputs import NOT_CONNECTED, brought, category_of, linked, refuse, sampling_inputs

ALL, GOOD = "every picture", "good ones only"
CHECKPOINT = ("model", "vae", "positive")


class StageSplitLayers(io.ComfyNode):
    """Picture and mask -> foreground, inpainted background, mask, and how good they are."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageSplitLayers",
            display_name="Split Layers",
            category=category_of(__name__),
            description="Splits pictures into a foreground, a background that a checkpoint of yours fills in behind "
            "it, and the mask, as Text2Layer's training set is made (arXiv 2307.09781), and measures how well it went.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The pictures. More of a batch are inpainted at once and need more memory."
                ),
                io.Mask.Input(
                    "mask",
                    tooltip="1 on the object, from a segmenter or painted; one for each picture, or one for all. What "
                    "is above 0.1 is copied; softer edges blend more of the background in.",
                ),
                io.Int.Input(
                    "dilation",
                    default=DILATION,
                    min=0,
                    max=512,
                    step=2,
                    tooltip="Pixels around the object that are filled in too. Higher removes more of its rim and "
                    "shadow, and changes more of the background; below 8 some of the object may stay.",
                ),
                *sampling_inputs(
                    {
                        "seed": "Noise that the background is painted from. Another number gives another background.",
                        "steps": "Steps of the inpainting. Higher is finer and takes longer.",
                        "cfg": "How much the inpainting keeps away from the negative prompt. Higher is stricter. "
                        "Without a negative prompt it does nothing, as the prompt is empty.",
                        "sampler_name": "Sampler of the inpainting, as in KSampler; more exact ones take longer per "
                        "step.",
                        "scheduler": "How the noise levels are spread, as in KSampler; flow models often look better "
                        "with simple.",
                    },
                    cfg=4.0,
                ),
                io.Int.Input(
                    "tries",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="How often a background that fails a measure is painted again, from the next seed; the "
                    "best is kept. Higher fails less often and takes up to so many times as long.",
                ),
                io.Boolean.Input(
                    "clean_edges",
                    default=True,
                    tooltip="On: the background is taken out of the foreground's half-covered edge pixels, so that "
                    "they have no rim before another one. Off: pixels are copied as they are, as in the paper.",
                ),
                io.String.Input(
                    "folder",
                    default="",
                    placeholder="text2layer_data",
                    tooltip="Folder below ComfyUI's output folder that the split pictures are added to, for stage.py "
                    "train text2layer --data. Empty: nothing is saved. More pictures make better training.",
                ),
                io.Combo.Input(
                    "save",
                    options=[GOOD, ALL],
                    default=GOOD,
                    tooltip="Which pictures go into the folder: those that pass all measures, or every one.",
                ),
                io.String.Input(
                    "captions",
                    multiline=True,
                    default="",
                    tooltip="What the whole picture shows, for training: one line for each picture, or one for all. "
                    "More words teach the model more words.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Paints the background; any checkpoint, best an inpainting one. Needs vae and "
                    "positive too.",
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="The checkpoint's VAE; it decides how fine the filled part is."
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="An empty prompt, as in the paper, or words for the background; more words steer it more.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="What must not be painted, such as the object's name; see cfg. Not connected: none.",
                ),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="A background that another inpainter filled, of the pictures' size. Then no model is "
                    "needed and its pixels are taken as they are; more pictures need as many backgrounds, or one.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="foreground", tooltip="The object's pixels, black elsewhere; use it with the mask."
                ),
                io.Image.Output(display_name="background", tooltip="The picture without the object."),
                io.Mask.Output(
                    display_name="mask", tooltip="How opaque the object is, 1 on it, of the pictures' size."
                ),
                Layers.Output(
                    display_name="layers",
                    is_output_list=True,
                    tooltip="One stack of layers for each picture: for Composite Layers and Save Layers.",
                ),
                io.String.Output(display_name="report", tooltip="All measures with their limits, one per line."),
                io.Boolean.Output(display_name="good", tooltip="True where every picture passes every measure."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        image: object,
        model: object = NOT_CONNECTED,
        vae: object = NOT_CONNECTED,
        positive: object = NOT_CONNECTED,
        background: object = NOT_CONNECTED,
    ) -> bool | str:
        """Refuse a split without anything that fills the background before anything runs."""
        return _missing(linked(model=model, vae=vae, positive=positive, background=background)) or True

    @classmethod
    def execute(
        cls,
        image: Tensor,
        mask: Tensor,
        dilation: int,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        tries: int,
        clean_edges: bool,
        folder: str,
        save: str,
        captions: str,
        model: Model | None = None,
        vae: Vae | None = None,
        positive: Conditioning | None = None,
        negative: Conditioning | None = None,
        background: Tensor | None = None,
    ) -> io.NodeOutput:
        """Split, measure and save."""
        refuse(_missing(brought(model=model, vae=vae, positive=positive, background=background)))
        image = colours_of(image)
        masks, lines = checked_masks(mask, image), _captions(captions, len(image))
        given = None if background is None else _checked_background(background, image)

        def fill(attempt: int, which: Sequence[int]) -> Tensor:
            if given is not None:
                return given[which]
            own = sampling.later(attempt)
            some, hidden = image[which], masks[which]
            return fill_background(model, vae, positive, negative, some, hidden, dilation=dilation, sampling=own)

        sampling = Sampling(seed, steps, cfg, sampler_name, scheduler)
        holes = hole_to_fill(masks, dilation)
        behind, of_grounds = fill_until_good(image, masks, holes, fill, tries if given is None else 1)
        front = cut_foreground(image, masks, behind if clean_edges else None)
        of_masks = [measure_mask(*pair) for pair in one_by_one(list(zip(image, masks, strict=True)))]
        measures = [first + second for first, second in zip(of_masks, of_grounds, strict=True)]
        text = report(measures)
        kept = [index for index, each in enumerate(measures) if save == ALL or is_good(each)]
        if folder.strip() and kept:
            names = save_split(folder.strip(), front[kept], behind[kept], masks[kept], [lines[index] for index in kept])
            text += f"\nsaved {len(names)} of {len(image)} as {names[0]} to {names[-1]} in {folder.strip()}"
        show_text(cls.hidden.unique_id, text)
        layers = to_layers(LayeredImage(behind, [Layer(front, masks, "foreground")]))
        shown = {**ui.PreviewImage(behind, cls=cls).as_dict(), "text": (text,)}
        good = all(is_good(each) for each in measures)
        return io.NodeOutput(front, behind, masks, layers, text, good, ui=shown)


def _missing(given: set[str]) -> str | None:
    """A sentence about what would have to fill the background and is not there."""
    names = [name for name in CHECKPOINT if name not in given]
    if "background" in given or not names:
        return None
    verb = "is" if len(names) == 1 else "are"
    return (
        f"Something has to fill the background, but {' and '.join(names)} {verb} not connected. Connect model, vae and "
        "positive (an empty prompt) of a checkpoint, or a finished background."
    )


def _captions(text: str, number: int) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    if len(lines) not in (1, number):
        raise SplitError(f"captions has {len(lines)} lines for {number} pictures; expected one for each, or one line.")
    return lines * number if len(lines) == 1 else lines


def _checked_background(background: Tensor, image: Tensor) -> Tensor:
    if len(background) not in (1, len(image)) or background.shape[1:3] != image.shape[1:3]:
        found = f"{len(background)} of {background.shape[2]} x {background.shape[1]} pixels"
        raise SplitError(
            f"background has {found}, image has {len(image)} of {image.shape[2]} x {image.shape[1]}. Give both the "
            "same size, and as many backgrounds as pictures, or one."
        )
    return opaque_picture(background, "background").to(image).expand_as(image)
