"""Stage two of TCIG in ComfyUI: an ordinary sampler paints a noised draft, region by region as much as it needs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import comfy.sample
import comfy.utils
import torch
from torch import Tensor

from ...comfy.device import on_device
from ...comfy.progress import progress
from ...comfy.runs import PICTURES, VIDEOS
from ...comfy.sampling import Sampling
from ...comfy.types import Callback, Conditioning, Model, Options, Vae
from ...drawing.pictures import PAINTED_NAN, check_finite, colours_of
from ...layout.layout import Layout
from ...layout.masks import resample_by_area
from ...scores.layout_score import require_shape_of_canvas
from ...segmentation.segmenter import Segmenter
from ..refinement import Denoising, Plan, plan_refinement
from ..segmentation_loss import make_terms, region_overlaps

DENOISE_MASK = "denoise_mask_function"  # ComfyUI's name of the option


@dataclass(frozen=True)
class Run:
    """All drafts as one run, for a sampler of the user's behind `hold_until_due` or ComfyUI's Differential Diffusion.

    Attributes:
        latent: (b c h w), or (b c 1 h w) of a model with frames: the drafts.
        mask: (b 1 h w) of the latent's size, the share of the run that each place takes part in.
        sigmas: noise levels of as many steps as the draft with the most of them takes.
    """

    latent: Tensor
    mask: Tensor
    sigmas: Tensor


@dataclass(frozen=True)
class Refined:
    """What became of drafts.

    Attributes:
        images: (b h w 3).
        changes: (b h w), where pictures were free to change, and for what share of their steps; without a map of
            changes 1 everywhere, or 0 for a draft that stayed as it is.
        before: mask IoU of every draft's regions, painter's order.
        after: the same of the finished pictures.
        shares: of the run that each picture took part in.
        again: the same as one run for a sampler outside.
    """

    images: Tensor
    changes: Tensor
    before: list[dict[int, float]]
    after: list[dict[int, float]]
    shares: list[float]
    again: Run


def refine(
    model: Model,
    vae: Vae,
    positive: Conditioning,
    negative: Conditioning,
    images: Tensor,
    layouts: Sequence[Layout],
    segmenters: Sequence[Segmenter],
    denoising: Denoising,
    sampling: Sampling,
    upscale: float = 1.0,
) -> Refined:
    """Paint drafts again by img2img, from a noise level that follows from how well each draft's masks fit.

    Args:
        model: any that ComfyUI samples pictures with.
        vae: the model's.
        positive: prompt of the picture.
        negative: negative prompt.
        images: (b h w c) drafts in 0..1.
        layouts: one per draft.
        segmenters: judge the fit, each of the regions that it knows.
        denoising: how fits become noise.
        sampling: of a whole run, of which each draft takes its share.
        upscale: pictures are enlarged by this before they are noised.

    Raises:
        SegmenterError: a phrase that no segmenter knows.
        LayoutError: a region of which nothing can be seen, or a draft that has not the shape of its layout's canvas.
        ValueError: a VAE whose latents are not those of pictures, or NaN in a draft or in what was painted.
    """
    check_finite(images, "The draft", "Connect a picture that shows something")
    for layout in layouts:
        require_shape_of_canvas(*images.shape[1:3], layout)
    drafts = colours_of(images).cpu().clamp(0, 1)
    before = _measure(layouts, segmenters, drafts)
    sized = _sized(drafts, vae, upscale)
    for layout in layouts:  # what is too small to be found at the finished size is refused before anything is painted
        make_terms(layout, segmenters, [1.0] * len(segmenters), *sized.shape[1:3])
    plans = [
        plan_refinement(layout, fit, denoising, sampling.steps, *sized.shape[1:3])
        for layout, fit in zip(layouts, before, strict=True)
    ]
    again = _as_one_run(model, vae, sized, plans, sampling)
    # One after the other, so that a picture's noise does not depend on which others are painted.
    noise = comfy.sample.prepare_noise(again.latent, sampling.seed, list(range(len(sized))))
    finished, runs = [], sum(plan.steps > 0 for plan in plans)
    for index, (plan, picture) in enumerate(zip(plans, sized, strict=True)):
        if plan.steps == 0:
            finished.append(picture)
            continue
        each = slice(index, index + 1)
        show = progress(model, sum(other.steps > 0 for other in plans[:index]), runs)
        finished.append(_paint(model, vae, positive, negative, again.latent[each], noise[each], plan, sampling, show))
    after = _measure(layouts, segmenters, finished)
    changes = [_change(plan, *sized.shape[1:3]) for plan in plans]
    shares = [plan.steps / sampling.steps for plan in plans]
    return Refined(torch.stack(finished), torch.stack(changes), before, after, shares, again)


def _as_one_run(model: Model, vae: Vae, drafts: Tensor, plans: Sequence[Plan], sampling: Sampling) -> Run:
    """What a sampler outside needs to paint the drafts (b h w 3) by their plans."""
    latent = torch.cat([vae.encode(draft[None]) for draft in drafts])
    if latent.ndim not in (PICTURES, VIDEOS):
        raise ValueError(
            f"The VAE gives latents of shape {tuple(latent.shape)}; expected batch, channels, height and width, or "
            "frames besides, since drafts are pictures. Choose a checkpoint of pictures."
        )
    most = max(plan.steps for plan in plans)
    changes = [_change(plan, *drafts.shape[1:3]) * plan.steps / max(most, 1) for plan in plans]
    mask = resample_by_area(torch.stack(changes), *latent.shape[-2:])[:, None]
    return Run(latent, mask, sampling.sigmas(model, most))


def _change(plan: Plan, height: int, width: int) -> Tensor:
    return torch.full((height, width), float(plan.steps > 0)) if plan.change is None else plan.change


def _paint(
    model: Model,
    vae: Vae,
    positive: Conditioning,
    negative: Conditioning,
    latent: Tensor,
    noise: Tensor,
    plan: Plan,
    sampling: Sampling,
    show: Callback,
) -> Tensor:
    """One picture (h w 3) from its draft's latent (1 c h w), or (1 c 1 h w) of a model with frames."""
    latent = comfy.sample.fix_empty_latent_channels(model, latent)
    mask = None
    if plan.change is not None:
        model = hold_until_due(model)
        mask = resample_by_area(plan.change[None], *latent.shape[-2:])[:, None]
    first = sampling.steps - plan.steps
    samples = sampling.sample(
        model, positive, negative, latent, noise=noise, mask=mask, start_step=first, callback=show
    )
    picture = vae.decode(samples)
    check_finite(picture, "What the model painted", PAINTED_NAN, batched=False)
    return picture.reshape(-1, *picture.shape[-3:])[0].float().cpu().clamp(0, 1)


def hold_until_due(model: Model) -> Model:
    """Give a clone whose runs let a pixel go once they have come down to its share of the run in the denoise mask.

    It is what ComfyUI's Differential Diffusion does, but that a share of 0 is never let go, not even at the last step.
    A function that is on the model already decides first.
    """
    clone = model.clone()
    earlier = clone.model_options.get(DENOISE_MASK)

    def due(sigma: Tensor, denoise_mask: Tensor, extra_options: Options, **rest: object) -> Tensor:
        if earlier is not None:
            denoise_mask = earlier(sigma, denoise_mask, extra_options=extra_options, **rest)
        sampling, levels = extra_options["model"].inner_model.model_sampling, extra_options["sigmas"].to(sigma)
        last = torch.maximum(levels[-1], torch.as_tensor(sampling.sigma_min).to(levels))
        first, end, now = (sampling.timestep(level).to(sigma) for level in (levels[0], last, sigma[0]))
        left = (now - end) / (first - end).clamp(min=torch.finfo(sigma.dtype).tiny)
        return ((denoise_mask >= left) & (denoise_mask > 0)).to(denoise_mask.dtype)

    clone.set_model_denoise_mask_function(due)
    return clone


def _measure(
    layouts: Sequence[Layout], segmenters: Sequence[Segmenter], pictures: Iterable[Tensor]
) -> list[dict[int, float]]:
    """Mask IoU of every region of pictures (h w 3), each with a layout of its own."""
    found = []
    with on_device([segmenter.network for segmenter in segmenters]):
        for layout, picture in zip(layouts, pictures, strict=True):
            terms = make_terms(layout, segmenters, [1.0] * len(segmenters), *picture.shape[:2])
            found.append(region_overlaps(terms, picture.movedim(-1, 0)[None]))
    return found


def _sized(drafts: Tensor, vae: Vae, upscale: float) -> Tensor:
    """Drafts (b h w 3) enlarged, at the nearest size that the VAE takes without cropping."""
    cell = vae.spacial_compression_encode()
    height, width = (max(cell, round(side * upscale / cell) * cell) for side in drafts.shape[1:3])
    if (height, width) == tuple(drafts.shape[1:3]):
        return drafts
    enlarged = comfy.utils.common_upscale(drafts.movedim(-1, 1), width, height, "lanczos", "disabled")
    return enlarged.movedim(1, -1).clamp(0, 1)
