"""Text2Layer in the graph: its files, and latents that are a foreground, a background and the mask between them."""

from collections.abc import Mapping

from einops import rearrange
from torch import Tensor

from ...core.layers.layered_image import Layer, LayeredImage, to_layers
from ...core.text2layer.comfy.model import TEXT2LAYER_FILES, load_text2layer
from ...core.text2layer.comfy.vae import LayeredVae
from ..api import LayeredVAE, Layers, io
from ..inputs import FileLoader, category_of


class StageText2LayerLoader(FileLoader, io.ComfyNode):
    """File -> a model that paints layers, and the VAE of its latents."""

    FILES, FILE_INPUT = TEXT2LAYER_FILES, "text2layer_name"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageText2LayerLoader",
            display_name="Load Text2Layer",
            category=category_of(__name__),
            description="Loads a model that paints foreground, background and the mask between them at once "
            "(Text2Layer, arXiv 2307.09781). Prompts are encoded by the checkpoint that it was trained from.",
            inputs=[
                cls.file_input(
                    tooltip="File in models/text2layer. It goes with the text encoder of one checkpoint: "
                    "sticker_world_text2layer with the embedded one, your own with the one you trained it from.",
                )
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="For KSampler, whose result goes to Layers Decode, or Layer by Layer."
                ),
                LayeredVAE.Output(
                    display_name="layered_vae", tooltip="For Layers Decode, Layers Encode and Layer by Layer."
                ),
            ],
        )

    @classmethod
    def execute(cls, text2layer_name: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(*load_text2layer(text2layer_name))


class StageLayersDecode(io.ComfyNode):
    """Latent -> foreground, background, mask and their composite."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayersDecode",
            display_name="Layers Decode",
            category=category_of(__name__),
            description="Turns latents that a Text2Layer model has painted into layers, as VAE Decode turns others "
            "into pictures.",
            inputs=[
                io.Latent.Input("samples", tooltip="From a sampler that runs the model of Load Text2Layer."),
                LayeredVAE.Input("layered_vae", tooltip="From the same Load Text2Layer as the model."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="foreground",
                    tooltip="With alpha as its fourth channel; colours are straight, not multiplied by it.",
                ),
                io.Image.Output(display_name="background", tooltip="Complete, also behind the foreground."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="1 where the foreground is opaque. Invert it for Join Image with Alpha, which takes 1 as "
                    "transparent.",
                ),
                io.Image.Output(
                    display_name="composite", tooltip="mask x foreground + (1 - mask) x background, to the last bit."
                ),
                Layers.Output(
                    display_name="layers",
                    is_output_list=True,
                    tooltip="A stack of layers for each picture: for Composite Layers, Save Layers, Layer by Layer, "
                    "and the layered-image editor of newer ComfyUI.",
                ),
            ],
        )

    @classmethod
    def execute(cls, samples: Mapping[str, Tensor], layered_vae: LayeredVae) -> io.NodeOutput:
        """Decode them."""
        found = layered_vae.decode(samples["samples"])
        foreground, background, mask = (
            rearrange(x, "b c h w -> b h w c") for x in (found.foreground, found.background, found.mask)
        )
        layer = Layer(foreground, mask[..., 0], "foreground")
        image = LayeredImage(background, [layer])
        return io.NodeOutput(layer.rgba(), background, layer.alpha, image.composite(), to_layers(image))


class StageLayersEncode(io.ComfyNode):
    """Foreground, background and mask -> latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayersEncode",
            display_name="Layers Encode",
            category=category_of(__name__),
            description="Turns two layers into a latent of a Text2Layer model, to paint over them with a denoise below "
            "1, or with Set Latent Noise Mask.",
            inputs=[
                io.Image.Input(
                    "foreground",
                    tooltip="The thing in front; a fourth channel is its alpha. Colours are straight, and do not "
                    "matter where it is transparent.",
                ),
                io.Image.Input(
                    "background", tooltip="All that lies behind, complete. As many pixels as the foreground."
                ),
                LayeredVAE.Input("layered_vae", tooltip="From the Load Text2Layer whose model paints on."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 where the foreground is opaque. Not connected: the foreground's alpha, or opaque all "
                    "over. Load Image's own mask is the other way round: invert it.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="samples", tooltip="For KSampler with the same file's model.")],
        )

    @classmethod
    def execute(
        cls,
        foreground: Tensor,
        background: Tensor,
        layered_vae: LayeredVae,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """Encode them."""
        return io.NodeOutput({"samples": layered_vae.encode_pictures(foreground, background, mask)})
