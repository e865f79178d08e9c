"""Attention guidance inside any ComfyUI sampler: before each model call the sampler's state moves down an energy.

The guided prompt is the layout's own, embedded here: which of the sampler's prompts holds which phrase cannot be seen
in an embedding, and masks, areas and shares of the run on them are meant for painting. What else lies on the sampler's
prompt, such as ControlNets, LoRA hooks and SDXL's sizes, the guided evaluation has too.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...attention.comfy.recording import has_cross_attention
from ...attention.sites import PLACES, SHARES
from ...clip.comfy.words import phrase_positions, token_count, word_positions
from ...comfy.captions import embed_captions
from ...comfy.runs import Run, around_runs, check_canvas, check_one_gpu, check_parts
from ...layout.layout import Layout, layouts_of
from ..energies import DEFAULT_ETA
from ..log import GuidanceLog
from ..published import CHEN, Energy, named_energy
from ..step import RULES
from ..target import Target
from .run import WRAPPER, GuidedRun, Settings, Words

FINE = 256  # cells along the longer side of a target's mask; grids of attention have at most 128
GUIDANCE_LOG = GuidanceLog()
OTHER_METHOD = "Use Layered Rendering, which works with every model"


def guide_attention(
    model: Any,  # noqa: ANN401 - ComfyUI's ModelPatcher
    clip: Any,  # noqa: ANN401 - ComfyUI's CLIP
    layout: Layout | Sequence[Layout],
    *,
    energy: str = CHEN,
    strength: float = 1.0,
    iterations: int | None = None,
    start: float = 0.0,
    end: float | None = None,
    threshold: float | None = None,
    step_rule: str | None = None,
    sites: str | None = None,
    eta: float = DEFAULT_ETA,
    checkpointing: bool = False,
    prompt: str = "",
    log: GuidanceLog = GUIDANCE_LOG,
) -> Any:  # noqa: ANN401
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
        energy: one of `energies.ENERGIES`.
        strength: times the published factor of the energy, times each region's own strength; 0 leaves the model as it
            is.
        iterations: steps per model call at most; None: as published for the energy.
        start: share of the run in 0..1, as ComfyUI counts it, before which nothing is guided.
        end: after which nothing is guided; None: as published.
        threshold: energy at which steps stop, of the energy without any factor; None: as published.
        step_rule: one of `guidance_step.RULES`; None: as published.
        sites: where maps are read, one of `attention_sites.PLACES`; None: as published.
        eta: weight of SALI's regulariser.
        checkpointing: less memory, more time.
        prompt: in which the phrases are looked for; "" means the layout's.
        log: remembers the runs for reports.

    Raises:
        ValueError: a model without such attention, settings that cannot be meant, or a start that is not before end.
        LayoutError: a phrase that the prompt does not say.
    """
    check_settings(energy, sites=sites, start=start, end=end)
    chosen = named_energy(energy, eta)
    chosen = chosen if sites is None else replace(chosen, sites=sites)
    layouts = [layout] if isinstance(layout, Layout) else list(layout)
    settings = Settings(
        energy=chosen,
        name=energy,
        strength=strength,
        iterations=iterations,
        start=start,
        end=chosen.end if end is None else end,
        threshold=chosen.threshold if threshold is None else threshold,
        step_rule=chosen.rule if step_rule is None else step_rule,
        checkpointing=checkpointing,
    )
    _check(model, settings)
    prompts = [prompt.strip() or each.prompt for each in layouts]
    words = [_words(clip, each, text, chosen) for each, text in zip(layouts, prompts, strict=True)]
    model = model.clone(disable_dynamic=True) if _is_dynamic(model) else model.clone()
    if strength == 0 or iterations == 0 or not any(each.targets for each in words):
        return model
    embedded = embed_captions(clip, prompts)

    def guide(run: Run) -> Tensor:
        _check_latents(run, layouts)
        layouts_of(layouts[0] if len(layouts) == 1 else layouts, len(run.noise))
        guided = GuidedRun(run.guider, settings, words, embedded)
        result = run.go(sampler=guided.around(run.sampler))
        log.keep(guided.name, guided.log, result)
        return result

    return around_runs(model, WRAPPER, guide, beside="add")  # each of two guidance nodes in a row


def _words(clip: Any, layout: Layout, prompt: str, energy: Energy) -> Words:  # noqa: ANN401
    """Find the phrases of a layout's regions; those with strength 0 are left out, those of one phrase are one thing."""
    regions = [region for region in layout.sorted_regions() if region.strength != 0]
    remedy = ", or give the region another name that the prompt has"
    found = [phrase_positions(clip, prompt, region.phrase, remedy) for region in regions]
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


def check_settings(energy: str, *, sites: str | None, start: float, end: float | None) -> None:
    """Refuse settings of `guide_attention` that do not go together; they mean what they mean there.

    Raises:
        ValueError: an unknown energy or choice of attentions, one that the energy cannot read, or a range without a
            step.
    """
    chosen = named_energy(energy)
    sites = chosen.sites if sites is None else sites
    if sites not in PLACES:
        raise ValueError(f'There is no choice of attentions "{sites}"; known: {", ".join(PLACES)}.')
    if chosen.needs_all_words and sites not in SHARES:
        raise ValueError(
            f'The energy "{energy}" averages maps of one size, but "{sites}" has several. Choose {" or ".join(SHARES)}.'
        )
    last, whose = (chosen.end, f'the published end of "{energy}"') if end is None else (end, "end")
    if start >= last:
        raise ValueError(
            f"start is {start:g}, but {whose} is {last:.3g}, so nothing would be guided. Lower start, or set end to "
            "more than that."
        )


def _check(model: Any, settings: Settings) -> None:  # noqa: ANN401
    if settings.step_rule not in RULES:
        raise ValueError(f'There is no step rule "{settings.step_rule}"; known: {", ".join(RULES)}.')
    if not has_cross_attention(model):
        name = type(model.get_model_object("diffusion_model")).__name__
        raise ValueError(
            "Attention guidance reads the cross-attention of a U-Net (SD 1.x, SD 2.x, SDXL); this model is "
            f"{name}, which mixes text and picture otherwise. {OTHER_METHOD}."
        )
    sampling = model.get_model_object("model_sampling")
    one, zero = torch.ones(1), torch.zeros(1)
    # A flow model's state loses signal as it gains noise, so a level of noise says something else there.
    if float(sampling.noise_scaling(one / 2, zero, one)) != 1.0:
        raise ValueError(
            "Attention guidance knows noise levels as SD 1.x, SD 2.x and SDXL have them; this model is sampled as a "
            f"flow. {OTHER_METHOD}."
        )


def _check_latents(run: Run, layouts: Sequence[Layout]) -> None:
    check_parts(run, "Attention guidance needs a latent of pictures", OTHER_METHOD, videos=False)
    check_one_gpu(run, "Attention guidance")
    for layout in layouts:
        check_canvas(run.noise, layout.height, layout.width)


def _is_dynamic(model: Any) -> bool:  # noqa: ANN401
    """Whether newer ComfyUI pages this model's weights, which a backward pass cannot follow."""
    is_dynamic = getattr(model, "is_dynamic", None)
    return bool(is_dynamic is not None and is_dynamic())
