"""Compose and Conquer in the graph: a foreground composed in front of a background."""

from torch import Tensor

from ...core.comfy.types import Conditioning, Model
from ...core.compose_and_conquer.comfy.compose import Looks, compose_depth
from ...core.compose_and_conquer.comfy.exemplars import Exemplars as ExemplarsValue
from ...core.compose_and_conquer.comfy.files import CnC as CnCValue
from ...core.compose_and_conquer.depth_maps import Depths
from ...core.soft_guidance.soft_guidance import PUBLISHED, RULES
from ..api import CnC, Exemplars, io
from ..inputs import category_of, refusal


class StageDepthCompose(io.ComfyNode):
    """Depths, looks and a mask of foreground and background -> model and prompts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageDepthCompose",
            display_name="Depth Compose",
            category=category_of(__name__),
            description="Composes a foreground in front of a background (Compose and Conquer): each has a depth map, "
            "and a look from a reference picture that stays in its own place.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input(
                    "model", tooltip="Checkpoint that the CnC file was trained for: the embedded one, or any SD 1.5."
                ),
                io.Conditioning.Input("positive", tooltip="Says what is painted, foreground and background."),
                io.Conditioning.Input(
                    "negative", tooltip="Gets the same depths and looks, as published, so that CFG amplifies the text."
                ),
                CnC.Input("cnc", tooltip="From Load CnC: which fusers read the depths and made the looks."),
                io.Image.Input(
                    "foreground_depth",
                    optional=True,
                    tooltip="Depth of what is in front, near is bright, black around it; Depth Pair makes it. Not "
                    "connected: a black map, so the foreground is left to the prompt.",
                ),
                io.Image.Input(
                    "background_depth",
                    optional=True,
                    tooltip="Depth of all the rest, with what the foreground hides. Whichever map comes in here is "
                    "covered by the other. Not connected: a black map.",
                ),
                Exemplars.Input(
                    "exemplars",
                    optional=True,
                    tooltip="From Exemplars, made with the same CnC file: looks of foreground and background. Not "
                    "connected: the prompt alone says how things look.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 where the foreground is: its look stays inside, the background's outside. Not "
                    "connected: looks mix. Only together with exemplars.",
                ),
                io.Float.Input(
                    "foreground_depth_strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Times the foreground's depth, cut off at 1. Higher brings it nearer and flattens what is "
                    "near already, lower takes it away; 0 is a black map.",
                ),
                io.Float.Input(
                    "background_depth_strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Times the background's depth, cut off at 1. Higher brings it nearer, lower takes it away; "
                    "0 is a black map.",
                ),
                io.Float.Input(
                    "residual_scale",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Times what the depths add to the model, like a ControlNet's strength. Higher holds shapes "
                    "harder, too high breaks the picture; 0 leaves the depths out.",
                ),
                io.Float.Input(
                    "start_at",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the run before which depths add nothing. Higher leaves the rough arrangement to "
                    "the noise. Looks count from the beginning.",
                ),
                io.Float.Input(
                    "end_at",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of the run after which depths add nothing. Lower leaves details to the prompt "
                    "and is faster; must be above start_at.",
                ),
                io.Combo.Input(
                    "mask_rule",
                    options=list(RULES),
                    default=PUBLISHED,
                    optional=True,
                    tooltip="How the mask becomes cells of attention. as published: a cell is foreground where the "
                    "mask touches its middle. area: where it covers at least half of it.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler."),
                io.Conditioning.Output(display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="For the sampler."),
            ],
        )

    @classmethod
    def validate_inputs(cls, start_at: float | None, end_at: float | None) -> bool | str:
        """Refuse a range without a step before anything runs; connected values are checked when they run."""
        if start_at is None or end_at is None:
            return True
        return refusal(Depths(start_at=start_at, end_at=end_at).check_range) or True

    @classmethod
    def execute(
        cls,
        model: Model,
        positive: Conditioning,
        negative: Conditioning,
        cnc: CnCValue,
        foreground_depth_strength: float,
        background_depth_strength: float,
        residual_scale: float,
        start_at: float,
        end_at: float,
        foreground_depth: Tensor | None = None,
        background_depth: Tensor | None = None,
        exemplars: ExemplarsValue | None = None,
        mask: Tensor | None = None,
        mask_rule: str = PUBLISHED,
    ) -> io.NodeOutput:
        """Prepare model and prompts."""
        strengths = (foreground_depth_strength, background_depth_strength)
        depths = Depths(foreground_depth, background_depth, *strengths, residual_scale, start_at, end_at)
        looks = Looks(exemplars, mask, mask_rule)
        return io.NodeOutput(*compose_depth(model, positive, negative, cnc, depths, looks))
