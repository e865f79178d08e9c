"""Edits of a given picture inside any ComfyUI sampler (LRDiff, arXiv 2311.18435; its editing as reconstructed).

The sampler gets the picture's latent and works as always. Around its run the picture is inverted over the run's own
noise levels, the part that may change starts from fresh or inverted noise, and at every model call the rest is put on
the inverted trajectory and its prediction replaced by the picture. What is painted is layered rendering.

Everything that a run needs travels on the conditioning; the model carries one function without state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ...attention.comfy.maps import encoded
from ...comfy.captions import embed_captions
from ...comfy.entries import prepared_by
from ...comfy.types import Clip, Conditioning, Model, Vae
from ...drawing.pictures import check_finite, colours_of
from ...layered_rendering.comfy.render import NARROWING, during, like_given, render_in_layers
from ...layered_rendering.comfy.settings import Rendering
from ...layered_rendering.vision_guidance import VisionGuidance
from ...layout.layout import Layout
from ...layout.masks import resample_by_area
from ..edits import Edit, EditError, EditPlan, plan_edits
from .entry import EditEntry, SourceEntry
from .run import follow_edits

# reconstructed: what a thing's layer is told. Within its region the picture goes on around it, so it should know of it.
LAYER_PROMPT = "{phrase} {background}"
# reconstructed: no source says how wide an edit's edge is; two latent cells of the usual autoencoders cross it softly.
DEFAULT_EDGE = 16
# One implicit step costs what an explicit one does and brings the picture back far more exactly (see `invert`).
DEFAULT_REFINEMENTS = 1


@dataclass(frozen=True)
class Editing:
    """How edits are painted.

    Attributes:
        t0: share of the run in layers.
        strength: of vision guidance.
        background: what lies behind things, for the layer that fills gaps.
        source_prompt: prompt of the given picture, for its inversion.
        edge: pixels over which an edit fades into the picture.
        refinements: of the inversion, see `invert`.
        guidance: where vision guidance comes from.
    """

    t0: float
    strength: float
    background: str = ""
    source_prompt: str = ""
    edge: int = DEFAULT_EDGE
    refinements: int = DEFAULT_REFINEMENTS
    guidance: VisionGuidance = field(default_factory=VisionGuidance)


def edit_picture(
    model: Model,
    clip: Clip,
    vae: Vae,
    picture: Tensor,
    edits: Sequence[Edit],
    positive: Conditioning,
    negative: Conditioning,
    editing: Editing,
) -> tuple[Model, Conditioning, Conditioning, Tensor, Tensor]:
    """Prepare a model, its prompts and a latent so that any sampler paints the edits and leaves the rest as it is.

    Until t0 the things to be painted are rendered in layers with vision guidance, and the gaps that others leave with
    the background's prompt; from t0 on the given prompts rule.

    Args:
        model: to sample with.
        clip: encodes the things' names, the background and the source prompt.
        vae: encodes the picture and the things' colours.
        picture: (b h w 3) in 0..1; all of a batch are edited alike.
        edits: in order; without any, and with none that does anything, model and prompts come back as they are.
        positive: prompt of the finished picture.
        negative: negative prompt.
        editing: how they are painted.

    Returns:
        Model, positive, negative, the picture's latent with moved things at their new places, and where the result
        may differ from it: (1 h w), 1 inside, soft edges.

    Raises:
        EditError: edits that do not fit the picture.
        ValueError: prompts that are edited or layered already.
    """
    picture = check_finite(colours_of(picture), "The picture to edit", "Connect one that shows something", EditError)
    plan = _cropped(plan_edits(picture, edits, editing.edge), vae.vae_encode_crop_pixels)
    latent = encoded(model, vae, plan.picture)
    if not plan.free.any():
        return model, positive, negative, latent, plan.free[None]
    for name, prompt in (("positive", positive), ("negative", negative)):
        if node := prepared_by(prompt):
            raise EditError(
                f"The {name} prompt comes from another {node}. Chain the edits (before) and use one Edit "
                "Picture in Layers."
                if node == EditEntry.NODE
                else f"The {name} prompt comes from {node}, so it cannot be edited with. Connect the prompt's own "
                "CONDITIONING, before any layered rendering: Edit Picture in Layers paints its things in layers by "
                "itself."
            )
    if any(key in options for _, options in [*positive, *negative] for key in NARROWING):
        raise EditError(
            "A prompt already has a place on the canvas, so it cannot be edited with. Connect the prompt's own "
            "CONDITIONING, before any mask, area or layered rendering."
        )
    model = follow_edits(model)  # before the layers, so that its checks speak first
    if plan.regions:
        layout, rendering = _layers_of(plan, editing)
        model, positive, negative = render_in_layers(model, clip, vae, layout, positive, negative, rendering)
    elif editing.t0 > 0:
        positive = _early_then(clip, editing.background, positive, editing.t0)
        if plan.gone:
            negative = _early_then(clip, ", ".join(plan.gone), negative, editing.t0)
    source = _source_entries(clip, plan, editing)
    return model, positive + source, negative, latent, plan.free[None]


def _layers_of(plan: EditPlan, editing: Editing) -> tuple[Layout, Rendering]:
    """What is painted until t0, and how."""
    height, width = plan.free.shape
    layout = Layout(width, height, prompt="", background=editing.background, regions=plan.regions)
    # Where something goes away, neither it nor anything else that is painted shall appear.
    unwanted = dict.fromkeys([*plan.gone, *(region.phrase for region in plan.regions)]) if plan.gone else ()
    rendering = Rendering(
        editing.t0,
        editing.strength,
        layer_prompt=LAYER_PROMPT,
        guidance=editing.guidance,
        background_negative=", ".join(unwanted),
    )
    return layout, rendering


def _early_then(clip: Clip, early: str, late: Conditioning, t0: float) -> Conditioning:
    """A caption until t0 and a prompt from there on; a step that lies exactly there gets the mean of both."""
    captions = like_given(during(late, 0.0, t0), embed_captions(clip, [early]))
    return during(captions, 0.0, t0) + [
        [text, {**options, "start_percent": max(t0, options.get("start_percent", 0.0))}] for text, options in late
    ]


def _source_entries(clip: Clip, plan: EditPlan, editing: Editing) -> Conditioning:
    """The source prompt, in which a run finds the edits; it rules no step of its own."""
    on_all = SourceEntry().to_options() | {"start_percent": 1.0}
    source = [[text, options | on_all] for text, options in embed_captions(clip, [editing.source_prompt])]
    edits = EditEntry(plan.free, plan.keep, int(plan.keeps_noise), editing.refinements)
    source[0][1].update(edits.to_options())
    return source


def _cropped(plan: EditPlan, crop: Callable[[Tensor], Tensor]) -> EditPlan:
    """Crop a plan to whole latent cells as the VAE does it: (b h w c) -> (b h' w' c)."""
    height, width = plan.free.shape
    picture = crop(plan.picture)
    if picture.shape[1:3] == (height, width):
        return plan

    def crop_mask(mask: Tensor) -> Tensor:
        return crop(resample_by_area(mask, height, width)[None, ..., None])[0, ..., 0]

    masks = [region.mask_on(height, width) for region in plan.regions]
    regions = [
        replace(region, mask=crop_mask(mask), box=None) for region, mask in zip(plan.regions, masks, strict=True)
    ]
    return replace(plan, picture=picture, free=crop_mask(plan.free), keep=crop_mask(plan.keep), regions=tuple(regions))
