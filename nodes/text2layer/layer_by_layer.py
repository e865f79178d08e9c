"""Pictures in layers in the graph: a background, and a layer for each thing, painted one after another."""

from collections.abc import Mapping, Sequence
from functools import partial

from ...core.comfy.sampling import Sampling
from ...core.comfy.types import Clip, Model
from ...core.layers.layered_image import from_layers
from ...core.layout.layout import Layout as LayoutValue
from ...core.layout.layout import layouts_of
from ...core.text2layer.comfy.layer_by_layer import LAYER_PROMPT, MARGIN, paint_layers
from ...core.text2layer.comfy.vae import LayeredVae
from ...core.text2layer.prompts import layout_of_prompt, split_prompt
from ..api import LayeredVAE, Layers, Layout, io
from ..inputs import NOT_CONNECTED, brought, category_of, linked, refusal, refuse, sampling_inputs
from ..layers.composite import layered_outputs, layered_values

EXAMPLE = "a dog, a balloon and an apple on a green meadow"


class StageLayerByLayer(io.ComfyNode):
    """Prompt or layout -> a layer for each thing, and a background."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayerByLayer",
            display_name="Layer by Layer",
            category=category_of(__name__),
            description="Paints a picture as a background and a layer for each thing, each with the others below it in "
            "view. Goes on from layers that there are, or paints one of them anew and keeps the others.",
            inputs=[
                io.Model.Input("model", tooltip="From Load Text2Layer. LoRAs and patches of its checkpoint may apply."),
                LayeredVAE.Input("layered_vae", tooltip="From the same Load Text2Layer."),
                io.Clip.Input("clip", tooltip="Text encoder of the checkpoint that the Text2Layer file belongs to."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default=EXAMPLE,
                    dynamic_prompts=True,
                    tooltip="What stands in the picture, farthest first: one line, taken apart at commas and "
                    '"and", or one line for each layer. More things, more layers and more time.',
                ),
                io.String.Input(
                    "background",
                    default="",
                    tooltip='Words for the place, such as "on a green meadow". Empty: the end of a prompt of one line. '
                    "Not read where a layout is connected.",
                ),
                *sampling_inputs(
                    {
                        "seed": "Of the lowest layer's noise; each layer above takes the next number. The same number "
                        "gives the same layers.",
                        "steps": "Of each layer. Higher is slower and finer, lower is faster and rougher.",
                        "cfg": "How strongly each layer follows its prompt. Higher makes a missing thing appear, too "
                        "high makes colours harsh; 1 is fastest and follows it least.",
                        "sampler_name": "As in KSampler, for every layer.",
                        "scheduler": "As in KSampler, for every layer.",
                    }
                ),
                io.Int.Input(
                    "width",
                    default=256,
                    min=16,
                    max=16384,
                    step=8,
                    tooltip="Pixels. Larger than the file was trained for brings doubled things. Not read where a "
                    "layout or layers are connected, which have a size of their own.",
                ),
                io.Int.Input(
                    "height", default=256, min=16, max=16384, step=8, tooltip="Pixels. Higher and lower as width."
                ),
                io.String.Input(
                    "negative",
                    default="",
                    multiline=True,
                    tooltip="What no layer should show. More words push harder away from them.",
                ),
                Layout.Input(
                    "layout",
                    optional=True,
                    tooltip="In place of prompt and background: a layer for each region, painted only there, in "
                    "painter's order. Not connected: things find a place by themselves.",
                ),
                Layers.Input(
                    "layers",
                    optional=True,
                    tooltip="A picture to go on from: new layers come on top, or one is replaced, and all others stay "
                    "as they are to the last bit. Not connected: the first run paints a background too.",
                ),
                io.Int.Input(
                    "replace",
                    default=0,
                    min=0,
                    max=64,
                    optional=True,
                    tooltip="0: put new layers on top. 1 and up: paint this layer of the connected ones anew, counted "
                    "from the farthest above the background; the prompt then names one thing.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.05,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Only with replace: how much of the old layer is painted over. Lower keeps more of its "
                    "shape and place; 1 forgets it.",
                ),
                io.Int.Input(
                    "margin",
                    default=MARGIN,
                    min=0,
                    max=256,
                    optional=True,
                    tooltip="Pixels by which a layout's regions are grown before their layers are kept inside. Higher "
                    "gives outlines and shadows more room, lower holds the place more exactly.",
                ),
                io.String.Input(
                    "layer_prompt",
                    default=LAYER_PROMPT,
                    optional=True,
                    tooltip="Prompt of a layer; may hold {phrase}, {background} and {prompt}, which is the whole "
                    "picture's. More words about the others bring them into this layer too, fewer fit it less to its "
                    "surroundings.",
                ),
            ],
            outputs=[
                *layered_outputs(),
                io.Image.Output(display_name="background", tooltip="Complete, also behind the layers."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        prompt: str | None,
        replace: int | None = 0,
        denoise: float | None = 1.0,
        layout: object = NOT_CONNECTED,
        layers: object = NOT_CONNECTED,
    ) -> bool | str:
        """Refuse what cannot be meant before anything runs; connected values are checked when they run."""
        is_read = prompt is not None and layout is NOT_CONNECTED
        wrong_prompt = refusal(partial(split_prompt, prompt)) if is_read else None
        return wrong_prompt or _wrong_links(linked(layers=layers), replace, denoise) or True

    @classmethod
    def execute(
        cls,
        model: Model,
        layered_vae: LayeredVae,
        clip: Clip,
        prompt: str,
        background: str,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        width: int,
        height: int,
        negative: str,
        layout: LayoutValue | Sequence[LayoutValue] | None = None,
        layers: Mapping[str, object] | None = None,
        replace: int = 0,
        denoise: float = 1.0,
        margin: int = MARGIN,
        layer_prompt: str = LAYER_PROMPT,
    ) -> io.NodeOutput:
        """Paint them."""
        refuse(_wrong_links(brought(layers=layers), replace, denoise))
        if layout is None:
            asked = layout_of_prompt(prompt, background, width, height)
        else:
            (asked,) = layouts_of(layout, 1)
        image = paint_layers(
            model,
            layered_vae,
            clip,
            asked,
            Sampling(seed, steps, cfg, sampler_name, scheduler, denoise),
            negative=negative,
            layer_prompt=layer_prompt,
            margin=margin,
            below=None if layers is None else from_layers(layers),
            replaced=replace,
        )
        return io.NodeOutput(*layered_values(image), image.background)


def _wrong_links(given: set[str], replace: int | None, denoise: float | None) -> str | None:
    """What is wrong with a repainting of layers; a number is None where it is not known yet."""
    if replace and "layers" not in given:
        return f"replace is {replace}, but no layers are connected. Connect them, or set replace to 0."
    if replace == 0 and denoise is not None and denoise < 1:
        return f"denoise is {denoise:g}, but replace is 0, so there is nothing to keep. Set denoise to 1."
    return None
