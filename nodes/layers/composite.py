"""Layers in the graph: laid over each other, moved and changed."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...core.drawing.pictures import check_finite
from ...core.layers.arrangement import Shadow, arrange, read_arrangements
from ...core.layers.layered_image import LayeredImage, LayeredImageError, from_layers, to_layers
from ...core.layers.stacking import Picture, stack_pictures
from ..api import Layers, io
from ..inputs import NOT_CONNECTED, brought, category_of, linked, refusal, refuse

SLOTS = (1, 2, 3, 4)
SHOWS, HIDES = "1 shows the picture", "1 hides it, as from Load Image"
SHADOW = Shadow()


def layered_outputs() -> list[Any]:
    """Outputs of every node that gives a finished layered picture; `layered_values` gives their values."""
    return [
        io.Image.Output(display_name="image", tooltip="All visible layers over the background."),
        io.Mask.Output(
            display_name="mask", tooltip="How much of each pixel the visible layers cover together, 0 to 1."
        ),
        Layers.Output(
            display_name="layers",
            is_output_list=True,
            tooltip="One stack of layers for each picture, the background lowest: for Save Layers, another Composite "
            "Layers and ComfyUI's own layer editor. Masks in it are 1 where a layer is transparent.",
        ),
        io.Image.Output(
            display_name="pictures",
            tooltip="The layers without the background as a batch, farthest first, colour only.",
        ),
        io.Mask.Output(display_name="masks", tooltip="How opaque each of these pictures is, 0 to 1, as a batch."),
    ]


def layered_values(image: LayeredImage) -> tuple[Any, ...]:
    """Values of `layered_outputs`."""
    # Of a picture without layers, one that is transparent all over: an empty batch stops other nodes.
    pictures = [each.colour for each in image.layers] or [torch.zeros_like(image.background)]
    masks = [each.alpha for each in image.layers] or [torch.zeros_like(image.background[..., 0])]
    composite = check_finite(image.composite(), "The layered picture", "Connect pictures and masks that show something")
    return composite, image.alpha(), to_layers(image), torch.cat(pictures), torch.cat(masks)


class StageComposite(io.ComfyNode):
    """Layers, or a background and pictures -> one picture, and the layers as they were arranged."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageComposite",
            display_name="Composite Layers",
            category=category_of(__name__),
            description="Lays layers over a background, exactly I = m F + (1 - m) B in painter's order, after moving, "
            "scaling, fading, reordering and hiding them and giving them soft shadows.",
            inputs=[
                io.String.Input(
                    "arrange",
                    multiline=True,
                    dynamic_prompts=False,
                    default="",
                    placeholder="dog | right=0.1 | down=-0.05 | scale=1.5 | shadow=0.5",
                    tooltip="One line for each layer to change: its name or number (1 is the farthest), and behind "
                    "each | one of right=, down= (shares of the canvas; higher moves it farther), scale= (higher is "
                    "larger), turn= (degrees clockwise), opacity= (lower shows more of what is behind), order= (a "
                    "higher number than another layer's brings it in front of that), shadow= (its own strength), "
                    "name=, flip, flip upside down, hidden, shown. Empty: the layers as they are.",
                ),
                io.Float.Input(
                    "shadow",
                    default=SHADOW.strength,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Strength of the soft shadow that every layer throws on what is below it. Higher is "
                    "darker, 1 is black; at 0 only layers with a shadow= of their own throw one.",
                ),
                io.Float.Input(
                    "shadow_right",
                    default=SHADOW.right,
                    min=-1.0,
                    max=1.0,
                    step=0.005,
                    tooltip="How far shadows lie to the right, in shares of the canvas' shorter side. Higher moves the "
                    "light to the left, below 0 shadows lie to the left.",
                ),
                io.Float.Input(
                    "shadow_down",
                    default=SHADOW.down,
                    min=-1.0,
                    max=1.0,
                    step=0.005,
                    tooltip="How far shadows lie below, in shares of the canvas' shorter side. Higher lifts the things "
                    "off the ground, below 0 shadows lie above.",
                ),
                io.Float.Input(
                    "shadow_blur",
                    default=SHADOW.blur,
                    min=0.0,
                    max=0.25,
                    step=0.005,
                    tooltip="How soft a shadow's edge is, in shares of the canvas' shorter side. Higher is softer and "
                    "fainter; 0 is as sharp as the layer.",
                ),
                io.Combo.Input(
                    "mask_means",
                    options=[SHOWS, HIDES],
                    default=SHOWS,
                    tooltip="What a mask_1 to mask_4 says. Masks of segmenters, layouts and our nodes show where they "
                    "are 1; those of Load Image hide there. Layers that come in by the layers input know it.",
                ),
                Layers.Input(
                    "layers",
                    optional=True,
                    tooltip="Layers from Layers Decode, Layer by Layer, Load Layers, another Composite Layers or "
                    "ComfyUI's layer editor. They lie below the pictures.",
                ),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="What lies below everything, instead of the layers' own background. Not connected: the "
                    "layers' own, or white. Its size is the canvas where no layers are connected.",
                ),
                *(each for number in SLOTS for each in _slot(number)),
            ],
            outputs=layered_outputs(),
        )

    @classmethod
    def validate_inputs(
        cls,
        arrange: str | None,
        layers: object = NOT_CONNECTED,
        background: object = NOT_CONNECTED,
        picture_1: object = NOT_CONNECTED,
        picture_2: object = NOT_CONNECTED,
        picture_3: object = NOT_CONNECTED,
        picture_4: object = NOT_CONNECTED,
        mask_1: object = NOT_CONNECTED,
        mask_2: object = NOT_CONNECTED,
        mask_3: object = NOT_CONNECTED,
        mask_4: object = NOT_CONNECTED,
    ) -> bool | str:
        """Refuse lines that cannot be meant, and a mask without its picture, before anything runs."""
        given = linked(layers=layers, background=background)
        given |= linked(picture_1=picture_1, picture_2=picture_2, picture_3=picture_3, picture_4=picture_4)
        given |= linked(mask_1=mask_1, mask_2=mask_2, mask_3=mask_3, mask_4=mask_4)
        return _wrong_links(given) or refusal(partial(read_arrangements, arrange or ""), LayeredImageError) or True

    @classmethod
    def execute(
        cls,
        arrange: str,
        shadow: float,
        shadow_right: float,
        shadow_down: float,
        shadow_blur: float,
        mask_means: str,
        layers: Mapping[str, Any] | None = None,
        background: Tensor | None = None,
        **slots: Tensor | None,
    ) -> io.NodeOutput:
        """Stack, arrange and composite."""
        refuse(_wrong_links(brought(layers=layers, background=background, **slots)))
        pictures = []
        for number in SLOTS:
            image, mask = slots.get(f"picture_{number}"), slots.get(f"mask_{number}")
            if image is not None:
                mask = 1 - mask if mask is not None and mask_means == HIDES else mask
                pictures.append(Picture(f"picture_{number}", f"picture {number}", image, mask))
        stack = stack_pictures(None if layers is None else from_layers(layers), background, pictures)
        arranged = _arranged(stack, arrange, Shadow(shadow, shadow_right, shadow_down, shadow_blur))
        return io.NodeOutput(*layered_values(arranged))


def _wrong_links(given: set[str]) -> str | None:
    """What is wrong with the links that are there."""
    if not any(not name.startswith("mask_") for name in given):
        return "Nothing is connected. Connect layers, a background or a picture."
    for number in SLOTS:
        if f"mask_{number}" in given and f"picture_{number}" not in given:
            return f"mask_{number} has no picture. Connect picture_{number} too, or disconnect the mask."
    return None


def _arranged(stack: LayeredImage, text: str, shadow: Shadow) -> LayeredImage:
    return arrange(stack, read_arrangements(text), shadow)


def _slot(number: int) -> tuple[Any, Any]:
    return (
        io.Image.Input(
            f"picture_{number}",
            optional=True,
            tooltip="A picture that becomes a layer in front of the lower numbers, in its own size and in the middle "
            f"of the canvas; arrange moves it, as 'picture {number}'. A fourth channel is its opacity.",
        ),
        io.Mask.Input(
            f"mask_{number}",
            optional=True,
            tooltip=f"Where picture_{number} is seen (see mask_means), times its own fourth channel. Higher values "
            "make it more opaque. Without either it is opaque all over.",
        ),
    )
