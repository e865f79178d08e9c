"""Attention guidance inside any ComfyUI sampler: before each model call the sampler's state moves down an energy.

The guided prompt is the layout's own, embedded here: which of the sampler's prompts holds which phrase cannot be seen
in an embedding, and masks, areas and shares of the run on them are meant for painting. What else lies on the sampler's
prompt, such as ControlNets, LoRA hooks and SDXL's sizes, the guided evaluation has too.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...attention.comfy.recording import has_cross_attention
from ...clip.comfy.words import positions_of_phrases, token_count, word_positions
from ...comfy.captions import embed_captions
from ...comfy.runs import Run, around_runs, check_canvas, check_one_gpu, check_parts
from ...comfy.types import Clip, Model
from ...layout.layout import Layout, layouts_of
from ..log import GuidanceLog
from ..published import Energy
from ..settings import Guidance
from ..target import Target
from .run import WRAPPER, GuidedRun, Words

FINE = 256  # cells along the longer side of a target's mask; grids of attention have at most 128
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
        model: a U-Net with cross-attention.
        clip: text encoder of the same checkpoint.
        layout: what shall be where; or one layout for each picture of the batch.
        guidance: how; at strength 0 or with no iterations the model is as it was.
        log: remembers the runs for reports.

    Raises:
        ValueError: a model without such attention, settings that cannot be meant, or a start that is not before end.
        LayoutError: a phrase that the prompt does not say.
    """
    energy = guidance.chosen_energy()
    layouts = [layout] if isinstance(layout, Layout) else list(layout)
    _check(model)
    prompts = [guidance.prompt.strip() or each.prompt for each in layouts]
    words = [_words(clip, each, text, energy) for each, text in zip(layouts, prompts, strict=True)]
    model = model.clone(disable_dynamic=True) if _is_dynamic(model) else model.clone()
    if guidance.strength == 0 or guidance.iterations == 0 or not any(each.targets for each in words):
        return model
    embedded = embed_captions(clip, prompts)

    def guide(run: Run) -> Tensor:
        _check_latents(run, layouts)
        layouts_of(layouts[0] if len(layouts) == 1 else layouts, len(run.noise))
        guided = GuidedRun(run, energy, guidance, words, embedded)
        result = run.go(sampler=guided.around(run.sampler))
        log.keep(guided.name, guided.log, result)
        return result

    return around_runs(model, WRAPPER, guide, beside="add")  # each of two guidance nodes in a row


def _words(clip: Clip, layout: Layout, prompt: str, energy: Energy) -> Words:
    """Find the phrases of a layout's regions; those with strength 0 are left out, those of one phrase are one thing."""
    regions = [region for region in layout.sorted_regions() if region.strength != 0]
    remedy = ", or give the region another name that the prompt has"
    found = positions_of_phrases(clip, prompt, [region.phrase for region in regions], remedy)
    recorded = word_positions(clip, prompt) if energy.needs_all_words else []
    recorded = sorted({position for each in [*found, recorded] for position in each})
    columns = {position: column for column, position in enumerate(recorded)}
    # At the canvas' size, or what is enough of it: finer than any grid of attention.
    side = max(layout.height, layout.width)
    height, width = (max(1, round(FINE * length / side)) for length in (layout.height, layout.width))
    targets: dict[tuple[int, ...], Target] = {}
    for region, each in zip(regions, found, strict=True):
        own = tuple(columns[position] for position in each)
        mask, weight = region.mask_on(height, width), region.strength
        if own in targets:
            # One energy for each box would draw the same attention out of the others.
            mask, weight = torch.maximum(mask, targets[own].mask), max(weight, targets[own].weight)
        targets[own] = Target(own, mask, weight)
    return Words(torch.tensor(recorded, dtype=torch.int64), token_count(clip, prompt), tuple(targets.values()))


def _check(model: Model) -> None:
    if not has_cross_attention(model):
        name = type(model.get_model_object("diffusion_model")).__name__
        raise ValueError(
            "Attention guidance reads the cross-attention of a U-Net (SD 1.x, SD 2.x, SDXL); this model is "
            f"{name}, which mixes text and picture otherwise. {OTHER_METHOD}."
        )


def _check_latents(run: Run, layouts: Sequence[Layout]) -> None:
    check_parts(run, "Attention guidance needs a latent of pictures", OTHER_METHOD, videos=False)
    check_one_gpu(run, "Attention guidance")
    for layout in layouts:
        check_canvas(run.noise, layout.height, layout.width)


def _is_dynamic(model: Model) -> bool:
    """Whether newer ComfyUI pages this model's weights, which a backward pass cannot follow."""
    is_dynamic = getattr(model, "is_dynamic", None)
    return bool(is_dynamic is not None and is_dynamic())
