"""The node that prepares a run which edits a given picture."""

from torch import Tensor

from ...core.comfy.progress import executing_node, warn_on_node
from ...core.comfy.types import Clip, Conditioning, Model, Vae
from ...core.editing.comfy.edit import DEFAULT_EDGE, DEFAULT_REFINEMENTS, Editing, edit_picture
from ...core.editing.edits import Edit
from ...core.layered_rendering.vision_guidance import (
    AUTO,
    COLOUR,
    DEFAULT_T0,
    DYNAMIC,
    LAMBDA_AT_1,
    VisionGuidance,
)
from ..api import io
from ..inputs import advanced, category_of
from ..layered_rendering.layered_rendering import MOST
from .edits import Edits

# What needs nothing but the things that are put down.
SOURCES = (AUTO, COLOUR, DYNAMIC)


class StageEditPicture(io.ComfyNode):
    """Picture and edits -> model, prompts and latent for the sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageEditPicture",
            display_name="Edit Picture in Layers",
            category=category_of(__name__),
            description="Prepares a run that paints edits into a given picture and leaves the rest of it as it is "
            "(LRDiff, arXiv 2311.18435; editing as reconstructed). Works with every sampler at denoise 1.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="Model to sample with. Use this node's model output in the sampler."),
                io.Clip.Input("clip", tooltip="Text encoder of the same checkpoint; reads the things' names."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE; encodes the picture and the things' colours."),
                io.Image.Input(
                    "image",
                    tooltip="The picture to edit. More pictures in the batch are edited alike; larger ones take "
                    "longer, and need a model that paints pictures of this size.",
                ),
                io.Conditioning.Input("positive", tooltip="Prompt of the finished picture, without mask or area."),
                io.Conditioning.Input("negative", tooltip="Negative prompt, without mask or area."),
                io.String.Input(
                    "background",
                    default="",
                    tooltip="What lies behind the things, such as 'on a green meadow'. More words say more of what is "
                    "painted where something goes away; empty leaves it to the model.",
                ),
                io.String.Input(
                    "source_prompt",
                    default="",
                    multiline=True,
                    tooltip="Prompt of the given picture, for its inversion. The closer it describes the picture, the "
                    "better the model knows its surroundings; empty works too.",
                ),
                io.Float.Input(
                    "end_at",
                    default=DEFAULT_T0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the run in which things are painted by their own prompts. Higher keeps them "
                    "closer to their places and removed ones away, but seams may stay; lower blends better; at 0 the "
                    "prompt of the finished picture paints alone.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-MOST,
                    max=MOST,
                    step=0.05,
                    tooltip="Vision guidance of things by their vectors, see source; 1 is as recommended. Higher "
                    "pushes them harder into their places, too high spoils colours; 0 uses the places only; below "
                    "0 pushes the opposite way.",
                ),
                io.Int.Input(
                    "edge",
                    default=DEFAULT_EDGE,
                    min=0,
                    max=512,
                    tooltip="Pixels around an edit over which it fades into the picture, and half of it inside a moved "
                    "thing's outline. Higher hides seams better but changes more of the picture; 0 cuts hard.",
                ),
                io.Int.Input(
                    "refinements",
                    default=DEFAULT_REFINEMENTS,
                    min=0,
                    max=10,
                    tooltip="Corrections of every inversion step. Higher follows the picture more exactly, at one "
                    "model call for each step and correction; 1 costs no more than 0, the plain inversion.",
                ),
                advanced(
                    io.Combo.Input(
                        "source",
                        options=list(SOURCES),
                        default=AUTO,
                        optional=True,
                        tooltip="What calls a thing into its place, as in Layered Rendering. auto: its reference "
                        "picture, else its colour, else dynamic where a U-Net can. colour: its colour, where it has "
                        "one. dynamic: for all things the mean noise where the name is looked at most in the first "
                        "step.",
                    )
                ),
                Edits.Input(
                    "edits",
                    optional=True,
                    tooltip="What to do, from the edit nodes. More edits take longer. Without any, model and prompts "
                    "pass through and the sampler paints a whole new picture.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler."),
                io.Conditioning.Output(display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="For the sampler."),
                io.Latent.Output(display_name="latent", tooltip="For the sampler, with denoise 1."),
                io.Mask.Output(display_name="mask", tooltip="Where the result may differ from the picture."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        model: Model,
        clip: Clip,
        vae: Vae,
        positive: Conditioning,
        negative: Conditioning,
        background: str,
        source_prompt: str,
        end_at: float,
        strength: float,
        edge: int,
        refinements: int,
        source: str = COLOUR,
        edits: tuple[Edit, ...] | None = None,
    ) -> io.NodeOutput:
        """Prepare the run."""
        editing = Editing(
            end_at, LAMBDA_AT_1 * strength, background, source_prompt, edge, refinements, VisionGuidance(source)
        )
        *prepared, latent, mask = edit_picture(model, clip, vae, image, edits or (), positive, negative, editing)
        if not mask.any():
            warn_on_node(
                executing_node(),
                "No edit changes anything (none is connected, or what they move stays where it is), so model and "
                "prompts are as they came in: a sampler with denoise 1 paints a new picture.",
            )
        return io.NodeOutput(*prepared, {"samples": latent}, mask)
