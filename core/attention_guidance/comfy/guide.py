"""Attention guidance inside any ComfyUI sampler: before each model call the sampler's state moves down an energy.

The guided prompt is the layout's own, embedded here: which of the sampler's prompts holds which phrase cannot be seen
in an embedding, and masks, areas and shares of the run on them are meant for painting. What else lies on the sampler's
prompt, such as ControlNets, LoRA hooks and SDXL's sizes, the guided evaluation has too.
"""

from collections.abc import Sequence

from torch import Tensor

from ...attention.comfy.families import UNET, Family, family_of
from ...comfy.runs import Run, around_runs, check_canvas, check_one_gpu, check_parts, warn_of_idle
from ...comfy.types import Clip, Model
from ...layout.layout import Layout, layouts_of, refuse_loras
from ..log import GuidanceLog
from ..settings import Guidance
from .guided_prompt import embed_prompts, find_words
from .run import WRAPPER, GuidedRun

GUIDANCE_LOG = GuidanceLog()
AS_PUBLISHED = Guidance()
OTHER_METHOD = "Use Layered Rendering, which works with every model"


def guide_attention(
    model: Model,
    clip: Clip,
    layout: Layout | Sequence[Layout],
    guidance: Guidance = AS_PUBLISHED,
    log: GuidanceLog = GUIDANCE_LOG,
) -> Model:
    """Give a clone of a model with which every sampler moves each phrase's attention into its region.

    Before each model call of the guided range the state that the sampler holds is changed in place: x <- x - step, as
    often as asked, and the call sees the result. With Euler this is the published loop of Chen et al. (arXiv
    2304.03373). Samplers that evaluate the model several times per step (heun, dpm_2, dpmpp_2s, dpmpp_sde and others)
    evaluate points besides their state; those are moved before their call too, which turns the slope that the sampler
    makes of them. uni_pc hands over a rescaled copy of its state: the prediction is made at the guided point, the state
    itself stays.

    Args:
        model: a U-Net with cross-attention, or a transformer of a class that `families` knows.
        clip: text encoder of the same checkpoint.
        layout: what shall be where; or one layout for each picture of the batch.
        guidance: how; at strength 0 or with no iterations the model is as it was.
        log: remembers the runs for reports.

    Raises:
        ValueError: a model without such attention, settings that cannot be meant, or a start that is not before end.
        LayoutError: a phrase that the prompt does not say, or a region that wears a LoRA.
    """
    energy = guidance.chosen_energy()
    layouts = [layout] if isinstance(layout, Layout) else list(layout)
    refuse_loras(layouts, "Attention Guidance")
    family = family_of(model, "Attention guidance", OTHER_METHOD)
    if family is UNET:
        guidance.check_grids()
    prompts = [guidance.prompt.strip() or each.prompt for each in layouts]
    words = [
        find_words(family, clip, each, text, energy.needs_all_words)
        for each, text in zip(layouts, prompts, strict=True)
    ]
    model = _unpaged(model)
    if guidance.strength == 0 or guidance.iterations == 0 or not any(each.targets for each in words):
        return model
    guided_prompts = embed_prompts(family, clip, prompts, words)

    def guide(run: Run) -> Tensor:
        _check_latents(run, layouts, family)
        layouts_of(layouts[0] if len(layouts) == 1 else layouts, len(run.noise))
        guided = GuidedRun(run, family, energy, guidance, guided_prompts)
        warn_of_idle(run, "Attention Guidance", "start_at and end_at", guided.first, guided.last)
        result = run.go(sampler=guided.around(run.sampler))
        log.keep(guided.name, guided.log, result)
        return result

    # Each of two guidance nodes in a row. The log finds a run by what the sampler gives in the end, which an edit that
    # holds on to its picture has changed.
    return around_runs(model, WRAPPER, guide, beside="add", outermost=True)


def _check_latents(run: Run, layouts: Sequence[Layout], family: Family) -> None:
    needs = "Attention guidance needs a latent of pictures" + ("" if family is UNET else " or of a video")
    check_parts(run, needs, OTHER_METHOD, videos=family is not UNET)
    check_one_gpu(run, "Attention guidance")
    for layout in layouts:
        check_canvas(run.noise, layout.height, layout.width)


def _unpaged(model: Model) -> Model:
    """A clone of a model whose weights stay where they are: newer ComfyUI pages them, which no way back can follow.

    Raises:
        ValueError: a loader that does not say how to load it otherwise.
    """
    is_dynamic = getattr(model, "is_dynamic", None)
    if is_dynamic is None or not is_dynamic():
        return model.clone()
    try:
        return model.clone(disable_dynamic=True)
    except RuntimeError as error:
        raise ValueError(
            "Attention guidance needs the model's gradient, which weights that are paged in and out do not give, and "
            "this model's loader does not say how to load it otherwise. Load it with one of ComfyUI's own loaders, or "
            f"start ComfyUI with --disable-dynamic-vram. (ComfyUI says: {error})"
        ) from error
