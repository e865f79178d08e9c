"""Layered rendering in the graph."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from ...core.comfy.types import Clip, Conditioning, Model, Vae
from ...core.layered_rendering.comfy.render import render_in_layers
from ...core.layered_rendering.comfy.settings import MODES, PAPER, LayerSettings, Rendering
from ...core.layered_rendering.parts import DEFAULT_MARGIN
from ...core.layered_rendering.vision_guidance import AS_SEEN, DEFAULT_T0, EVERY_STEP, LAMBDA_AT_1, PUBLISHED_TOP_K
from ...core.layout.layout import Layout
from ..api import LayerSettings as SettingsSocket
from ..api import Layout as LayoutSocket
from ..api import io
from ..inputs import advanced, category_of, refusal
from .vision_guidance import chosen_guidance, chosen_vector, guidance_inputs, source_input

# LRDiff's script tells the background's layer the things' names as its negative prompt.
DEFAULT_BACKGROUND_NEGATIVE = "{phrases}"
MOST = 17.0  # of a strength: far beyond what any picture bears


class StageLayeredRendering(io.ComfyNode):
    """Model and prompts -> model and prompts that paint a layout layer by layer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageLayeredRendering",
            display_name="Layered Rendering",
            category=category_of(__name__),
            description="Paints each region of a layout with its own prompt in the first part of the run, then the "
            "whole picture with yours (LRDiff, arXiv 2311.18435). Works with every sampler.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="Model to sample with. Use this node's model output in the sampler."),
                io.Clip.Input("clip", tooltip="Text encoder of the same checkpoint; reads the regions' own prompts."),
                LayoutSocket.Input(
                    "layout", tooltip="What is where. More regions make the first part of the run slower."
                ),
                io.Conditioning.Input("positive", tooltip="Prompt of the whole picture, without mask or area."),
                io.Conditioning.Input("negative", tooltip="Negative prompt of every layer, without mask or area."),
                io.Float.Input(
                    "end_at",
                    default=DEFAULT_T0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the run in which the layers are painted. Higher keeps things closer to their "
                    "places, but seams may stay; lower blends better, but things may wander. 0 switches the node off.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-MOST,
                    max=MOST,
                    step=0.05,
                    tooltip="Vision guidance of the regions by their vectors, see source; 1 is as recommended, for "
                    "every source. Higher pushes each thing harder into its region, too high spoils its colours; 0 "
                    "only uses the masks; below 0 pushes the opposite way.",
                ),
                source_input(),
                io.String.Input(
                    "layer_prompt",
                    default="{phrase}",
                    tooltip="Prompt of a region that has no longer prompt of its own; may hold {phrase}, {background} "
                    "and {prompt}. More words about the surroundings make layers fit together better, fewer keep "
                    "other things out of them.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The checkpoint's VAE; only needed where a region has a colour or reference picture. It "
                    "turns them into vectors of the model.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=PAPER,
                    optional=True,
                    tooltip="paper: all layers share one latent, joined at every step; things fit together and vision "
                    "guidance decides how firmly they keep their places. trajectories: each layer is painted alone and "
                    "they are put together once at end_at, as in the authors' script; each thing is sure to be there, "
                    "but seams are harder. The script has end_at 0.31.",
                ),
                io.String.Input(
                    "background_negative",
                    default=DEFAULT_BACKGROUND_NEGATIVE,
                    optional=True,
                    tooltip="Negative prompt of the background's layer; may hold {phrases}, {background} and "
                    "{prompt}. More words keep more things out of the background; empty uses the negative prompt.",
                ),
                io.Boolean.Input(
                    "crop",
                    default=False,
                    optional=True,
                    tooltip="On: each region's layer is evaluated only on its surroundings, those of about one size "
                    "together, which is faster for small regions on a large canvas, but a layer then knows nothing of "
                    "the rest. Mode paper only.",
                ),
                advanced(
                    io.Int.Input(
                        "crop_margin",
                        default=DEFAULT_MARGIN,
                        min=0,
                        max=256,
                        optional=True,
                        tooltip="Latent cells around a region that a cropped layer sees at least; rounded up to sides "
                        "of 4 cells or more. Higher lets the layer see more of its surroundings and takes longer; "
                        "lower is faster, but without the surroundings things come out in other places and sizes than "
                        "asked.",
                    )
                ),
                *guidance_inputs(),
                io.Image.Input(
                    "references",
                    optional=True,
                    tooltip="For reference and auto: one picture for each region, in painter's order, as one batch, "
                    "such as Layout Canvas gives. Brighter or more colourful pictures push harder.",
                ),
                SettingsSocket.Input(
                    "layers",
                    optional=True,
                    tooltip="From Layer Settings: prompts, LoRA hooks, ControlNets and CFG of single layers.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler."),
                io.Conditioning.Output(display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="For the sampler."),
            ],
        )

    @classmethod
    def validate_inputs(cls, source: str | None, vector: str | None = "") -> bool | str:
        """Refuse a bad vector before anything runs."""
        if vector is None or source is None:
            return True
        return refusal(partial(chosen_vector, source, vector)) or True

    @classmethod
    def execute(
        cls,
        model: Model,
        clip: Clip,
        layout: Layout | Sequence[Layout],
        positive: Conditioning,
        negative: Conditioning,
        end_at: float,
        strength: float,
        source: str,
        layer_prompt: str,
        vae: Vae | None = None,
        mode: str = PAPER,
        background_negative: str = DEFAULT_BACKGROUND_NEGATIVE,
        crop: bool = False,
        crop_margin: int = DEFAULT_MARGIN,
        top_k: int = PUBLISHED_TOP_K,
        inside: float = 1.0,
        outside: float = 1.0,
        inject: str = EVERY_STEP,
        vector: str = "",
        reading: str = AS_SEEN,
        references: Tensor | None = None,
        layers: tuple[LayerSettings, ...] = (),
    ) -> io.NodeOutput:
        """Prepare model and prompts."""
        how = {"top_k": top_k, "inside": inside, "outside": outside, "inject": inject, "reading": reading}
        rendering = Rendering(
            end_at,
            LAMBDA_AT_1 * strength,
            layer_prompt,
            mode,
            chosen_guidance(source, vector, references, **how),
            background_negative,
            crop=crop_margin if crop else None,
            settings=layers,
        )
        return io.NodeOutput(*render_in_layers(model, clip, vae, layout, positive, negative, rendering))
