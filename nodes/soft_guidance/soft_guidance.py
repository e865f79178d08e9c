"""Soft guidance in the graph: tokens of regions, and the node that applies them."""

from collections.abc import Sequence

from torch import Tensor

from ...core.comfy.types import Clip, ClipVisionOutput, Conditioning, Model, StyleModel
from ...core.compose_and_conquer.comfy.exemplars import Exemplars
from ...core.layout.layout import Layout
from ...core.soft_guidance.comfy.apply import apply_soft_guidance, words_for
from ...core.soft_guidance.comfy.regions import conditioning_tokens, phrase_regions, style_tokens
from ...core.soft_guidance.comfy.tokens import RegionTokens
from ...core.soft_guidance.soft_guidance import PUBLISHED, RULES, WEIGHT_AT_1
from ..api import Exemplars as ExemplarsSocket
from ..api import Layout as LayoutSocket
from ..api import RegionTokens as RegionSocket
from ..api import io
from ..inputs import NOT_CONNECTED, brought, category_of, linked, refuse

MOST = 1000.0  # of what attention is multiplied by: by then the text is not looked at any more


class StageRegionTokens(io.ComfyNode):
    """A prompt or a picture's style, and a mask -> tokens of a region."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageRegionTokens",
            display_name="Region Tokens",
            category=category_of(__name__),
            description="Gives a region a prompt, or the style of a picture, of its own for Soft Guidance. Chain "
            "several for several regions.",
            inputs=[
                io.Mask.Input(
                    "mask",
                    tooltip="Where the tokens are seen, with the picture's aspect ratio; from one half on a pixel is "
                    "inside. A batch gives each picture of the batch its own.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=MOST,
                    step=0.1,
                    tooltip="Times the attention that the tokens get in their region. Higher leaves less to the text, "
                    "lower more; 2 is as if each token stood there twice, 0 leaves the region out.",
                ),
                io.Boolean.Input(
                    "outside",
                    default=False,
                    tooltip="On: the region is where the mask is not, for a background. Off: where it is. Cells "
                    "that the mask's border runs through belong to the inside either way.",
                ),
                io.Boolean.Input(
                    "on_negative",
                    default=False,
                    tooltip="On: the negative prompt has the tokens too, as Compose and Conquer does with looks, so "
                    "CFG does not amplify them. Off: CFG amplifies them like the text, which makes them stronger.",
                ),
                io.Conditioning.Input(
                    "conditioning",
                    optional=True,
                    tooltip="The region's own prompt. Its tokens are seen inside the region, beside those of the "
                    "sampler's prompt. Either this or a style model is needed.",
                ),
                io.StyleModel.Input(
                    "style_model",
                    optional=True,
                    tooltip="Instead of a prompt: turns clip_vision_output into tokens. Must belong to the checkpoint, "
                    "as t2iadapter_style does to SD 1.x.",
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    optional=True,
                    tooltip="From CLIP Vision Encode, for the style model. More pictures give more tokens.",
                ),
                RegionSocket.Input("before", optional=True, tooltip="Other regions, to be joined with this one."),
            ],
            outputs=[RegionSocket.Output(display_name="regions", tooltip="For Soft Guidance.")],
        )

    @classmethod
    def validate_inputs(
        cls,
        mask: object,
        conditioning: object = NOT_CONNECTED,
        style_model: object = NOT_CONNECTED,
        clip_vision_output: object = NOT_CONNECTED,
    ) -> bool | str:
        """Refuse a region without tokens, or with tokens of two kinds, before anything runs."""
        given = linked(conditioning=conditioning, style_model=style_model, clip_vision_output=clip_vision_output)
        return _wrong_tokens(given) or True

    @classmethod
    def execute(
        cls,
        mask: Tensor,
        strength: float,
        outside: bool,
        on_negative: bool,
        conditioning: Conditioning | None = None,
        style_model: StyleModel | None = None,
        clip_vision_output: ClipVisionOutput | None = None,
        before: Sequence[RegionTokens] = (),
    ) -> io.NodeOutput:
        """Append to the chain."""
        given = brought(conditioning=conditioning, style_model=style_model, clip_vision_output=clip_vision_output)
        refuse(_wrong_tokens(given))
        if conditioning is None:
            tokens = style_tokens(style_model, clip_vision_output)
        else:
            tokens = conditioning_tokens(conditioning)
        mask = mask.reshape(-1, *mask.shape[-2:])
        return io.NodeOutput((*before, RegionTokens(tokens, mask, outside, strength, on_negative)))


def _wrong_tokens(given: set[str]) -> str | None:
    """What is wrong with the links of a region that are there."""
    style = given & {"style_model", "clip_vision_output"}
    if len(style) == 1:
        return "A style needs both style_model and clip_vision_output. Connect the other one too."
    if bool(style) == ("conditioning" in given):
        return "A region needs either a conditioning or a style_model with its picture. Connect one of the two."
    return None


class StageSoftGuidance(io.ComfyNode):
    """Model and prompts, with regions -> model and prompts that keep each region's tokens to it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node's inputs and outputs."""
        return io.Schema(
            node_id="StageSoftGuidance",
            display_name="Soft Guidance",
            category=category_of(__name__),
            description="Lets every region of the picture look at tokens of its own: a layout's phrases, any prompts, "
            "or looks of reference pictures. One evaluation for all regions.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="SD 1.x, SD 2.x, SDXL, or a transformer: Flux, SD 3, Chroma, Qwen-Image, Z-Image, Wan "
                    "and others.",
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip="Is seen from everywhere, so what it names can appear anywhere. With the whole prompt add "
                    "Attention Guidance; with the scene alone, such as 'a green meadow', nothing strays, but things "
                    "may be left out.",
                ),
                io.Conditioning.Input(
                    "negative",
                    tooltip="Gets the tokens of exemplars too, as published, so that CFG amplifies the text; and "
                    "those of Region Tokens with on_negative.",
                ),
                io.Clip.Input(
                    "clip", optional=True, tooltip="Text encoder of the same checkpoint; encodes the layout's phrases."
                ),
                LayoutSocket.Input(
                    "layout",
                    optional=True,
                    tooltip="Each region sees its own prompt, or its phrase, as a text of its own; where two overlap "
                    "the nearer has the place. A region's strength multiplies its share, 0 leaves it out. Needs clip.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=MOST / WEIGHT_AT_1,
                    step=0.05,
                    tooltip="Of the layout's phrases: how much attention they get in their regions; 1 is as "
                    "recommended. Higher binds things to their places more and leaves less of the scene there: at 0.1 "
                    "phrase and scene share, at 1 the phrase has nine tenths; 0 leaves the layout out.",
                ),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    default=PUBLISHED,
                    tooltip="Which cells of the coarse grids of attention are inside a mask. as published: those with "
                    "anything of it around their middle, so edges grow a little. area: those that lie in it at least "
                    "by half, so thin things get less.",
                ),
                io.Float.Input(
                    "hard_until",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="Transformers only: share of the run in which the layout's regions do not see each other's "
                    "picture either. Higher keeps things apart better but lets them fit together less; 0: they "
                    "always see each other.",
                ),
                ExemplarsSocket.Input(
                    "exemplars",
                    optional=True,
                    tooltip="Looks of a foreground and a background, from Exemplars. Needs mask. For depths too use "
                    "Depth Compose, which does this as well.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="For exemplars: 1 where the foreground is. Its look is seen inside only, the background's "
                    "outside only.",
                ),
                RegionSocket.Input(
                    "regions",
                    optional=True,
                    tooltip="More regions with prompts or styles of their own, from Region "
                    "Tokens. Where regions overlap, all of them are seen.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler; to be used with both prompts."),
                io.Conditioning.Output(display_name="positive", tooltip="For the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="For the sampler."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        model: object,
        clip: object = NOT_CONNECTED,
        layout: object = NOT_CONNECTED,
        exemplars: object = NOT_CONNECTED,
        mask: object = NOT_CONNECTED,
        regions: object = NOT_CONNECTED,
    ) -> bool | str:
        """Refuse what lacks its other half before anything runs."""
        given = linked(clip=clip, layout=layout, exemplars=exemplars, mask=mask, regions=regions)
        return _wrong_regions(given) or True

    @classmethod
    def execute(
        cls,
        model: Model,
        positive: Conditioning,
        negative: Conditioning,
        strength: float,
        rule: str,
        hard_until: float = 0.0,
        clip: Clip | None = None,
        layout: Layout | Sequence[Layout] | None = None,
        exemplars: Exemplars | None = None,
        mask: Tensor | None = None,
        regions: Sequence[RegionTokens] | None = None,
    ) -> io.NodeOutput:
        """Collect the regions and apply them."""
        refuse(_wrong_regions(brought(clip=clip, layout=layout, exemplars=exemplars, mask=mask, regions=regions)))
        found = list(regions or ())
        if exemplars is not None:
            found += exemplars.regions(mask.reshape(-1, *mask.shape[-2:]))
        if layout is not None:
            found += phrase_regions(clip, layout, WEIGHT_AT_1 * strength, hard_until=hard_until, words=words_for(model))
        return io.NodeOutput(*apply_soft_guidance(model, positive, negative, found, rule))


def _wrong_regions(given: set[str]) -> str | None:
    """What is wrong with the links to regions that are there."""
    if not given & {"layout", "exemplars", "regions"}:
        return "Soft Guidance has no regions. Connect a layout with clip, exemplars with mask, or regions."
    if "layout" in given and "clip" not in given:
        return "The layout's phrases have to be encoded. Connect the checkpoint's clip too."
    if ("exemplars" in given) != ("mask" in given):
        return "Exemplars need a mask that says where the foreground is, and a mask needs exemplars. Connect both."
    return None
