"""Stage one of TCIG in ComfyUI: progress with a live preview, and what is said about the drafts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import comfy.model_management
import comfy.utils
import latent_preview
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...clip.clip_guide import CLIPGuide
from ...comfy.device import on_device
from ...drawing.pictures import check_finite, colours_of
from ...drawing.plots import plot_losses
from ...layout.layout import Layout
from ...layout.region import LayoutError
from ...segmentation.segmenter import Segmenter
from ...weights.differentiable import normal_copy
from ..cut_outs import NUMBER, CutOuts
from ..draft import DraftError, DraftResult, OnStep, draft
from ..prompts import WeightedPrompt
from ..segmentation_loss import make_terms, overlap_text, region_overlaps
from ..starts import (
    COLOURS,
    NOISE,
    STARTS,
    flat_colours,
    outside_regions,
    picture_start,
    random_start,
    whole_cells,
)
from ..vqgan import VQGAN

PREVIEW_EVERY = 5  # iterations
SEEDS = 2**64
# What a decoder's backward pass keeps, for each pixel and channel at full size: 4 GiB for the published f16 at 512 x
# 512 pixels, whose finest level has 128 channels.
DRAFT_BYTES = 128


@dataclass(frozen=True)
class Drafts:
    """What came out.

    Attributes:
        images: (b h w 3) in 0..1, with the canvas' aspect ratio, on the CPU.
        plots: (b h' w' 3), the losses.
        overlaps: mask IoU of every picture's regions, by their places in painter's order.
        text: all of it for a person.
    """

    images: Tensor
    plots: Tensor
    overlaps: list[dict[int, float]]
    text: str

    def mean_overlap(self) -> float:
        """Mean mask IoU over all regions of all pictures."""
        found = [iou for each in self.overlaps for iou in each.values()]
        return sum(found) / len(found)


@torch.inference_mode(False)  # what is made here is differentiated through
@torch.no_grad()
def draft_pictures(
    layouts: Sequence[Layout],
    vqgan: VQGAN,
    guide: CLIPGuide,
    segmenters: Sequence[Segmenter],
    weights: Sequence[float],
    prompts: Sequence[WeightedPrompt],
    *,
    size: int,
    seed: int,
    iterations: int,
    start: str,
    start_weight: float = 0.0,
    cut_outs: int = NUMBER,
    image: Tensor | None = None,
    **settings: object,
) -> Drafts:
    """Draft a picture for every layout, each with a seed of its own.

    Args:
        layouts: of one canvas.
        vqgan: paints.
        guide: reads the prompts.
        segmenters: see the layouts' regions.
        weights: one for each segmenter, or one for all of them.
        prompts: empty: each layout's own prompt.
        size: pixels of the longer side.
        seed: of the first picture; the others have the ones behind it.
        iterations: of each picture.
        start: "random codes", "flat colours" or "picture".
        start_weight: see `draft`; random codes are nothing to hold to, so with them it does not count.
        cut_outs: number of them for each picture.
        image: (b h w c), where a picture is the start, or what lies behind flat colours; one for each layout, or one
            for all.
        settings: see `draft`.

    Raises:
        ValueError: what is missing, or does not fit.
    """
    if len({(layout.height, layout.width) for layout in layouts}) != 1:
        raise LayoutError("The layouts of one batch have different canvases. Give all of them the same size.")
    height, width = whole_cells(layouts[0], size, vqgan.factor)
    weights = _one_for_each(weights, segmenters)
    # Whatever cannot be meant is refused before anything is loaded.
    terms = [make_terms(layout, segmenters, weights, height, width) for layout in layouts]
    starts = _starts(start, layouts, image, height, width)
    pictures: list[Tensor] = []
    results: list[DraftResult] = []
    overlaps: list[dict[int, float]] = []
    networks = [vqgan.network, guide.network, *(segmenter.network for segmenter in segmenters)]
    show = _progress(len(layouts), iterations)
    working = DRAFT_BYTES * vqgan.network.config.block_out_channels[0] * height * width
    with on_device(networks, working) as device:
        for index, (layout, own, begin) in enumerate(zip(layouts, terms, starts, strict=True)):
            number = (seed + index) % SEEDS
            if begin is None:
                latent = random_start(vqgan, height, width, number)
            else:
                latent = picture_start(vqgan, begin.to(device), height, width)
            texts = prompts or (WeightedPrompt(layout.prompt),)
            result = draft(
                vqgan, latent, guide, texts, own, seed=number, iterations=iterations, cut_outs=CutOuts(cut_outs),
                start_weight=0.0 if start == NOISE else start_weight,
                start_map=outside_regions(layout, height, width, vqgan.factor), on_step=show(index), **settings,
            )  # fmt: skip
            picture = _fitted(result.picture, layout, size)
            overlaps.append(region_overlaps(own, result.picture))
            pictures.append(rearrange(picture, "1 c h w -> h w c").float().cpu())
            results.append(result)
    titles = [f"picture {index}" if len(layouts) > 1 else "losses" for index in range(1, len(layouts) + 1)]
    plots = [plot_losses(result.losses, title) for result, title in zip(results, titles, strict=True)]
    said = [_text(*each) for each in zip(layouts, results, overlaps, strict=True)]
    if len(said) > 1:
        said = [f"{title}: {each}" for title, each in zip(titles, said, strict=True)]
    return Drafts(torch.stack(pictures), torch.stack(plots), overlaps, "\n".join(said))


def _starts(
    start: str, layouts: Sequence[Layout], image: Tensor | None, height: int, width: int
) -> list[Tensor | None]:
    """A picture (1 3 h w) to begin with for each layout, or None for random codes."""
    if start not in STARTS:
        raise DraftError(f'There is no start "{start}"; expected one of: {"; ".join(STARTS)}. Choose one.')
    if start == NOISE:
        return [None] * len(layouts)
    pictures = _pictures(image, layouts)
    if start == COLOURS:
        return [flat_colours(layout, height, width, own) for layout, own in zip(layouts, pictures, strict=True)]
    if image is None:
        raise DraftError('The start "picture" needs an image, and none is connected. Connect one, or choose another.')
    return pictures


def _pictures(image: Tensor | None, layouts: Sequence[Layout]) -> list[Tensor | None]:
    """The picture (1 3 h w) of each layout, where there is any."""
    if image is None:
        return [None] * len(layouts)
    if len(image) not in (1, len(layouts)):
        raise DraftError(f"There are {len(image)} images for {len(layouts)} layouts. Give as many, or one for all.")
    check_finite(image, "The image to start from", "Make it again", DraftError)
    pixels = rearrange(colours_of(normal_copy(image)), "b h w c -> b c h w")
    pixels = pixels.clamp(0, 1)
    return [pixels[index % len(pixels)][None] for index in range(len(layouts))]


def _one_for_each(weights: Sequence[float], segmenters: Sequence[Segmenter]) -> list[float]:
    if len(weights) not in (1, len(segmenters)):
        raise DraftError(
            f"There are {len(weights)} segmenter_weights for {len(segmenters)} segmenters. Give one for each, or one "
            "for all of them."
        )
    return [weights[index % len(weights)] for index in range(len(segmenters))]


def _fitted(picture: Tensor, layout: Layout, size: int) -> Tensor:
    """The picture (1 3 h w) with the canvas' aspect ratio, which whole cells may have missed by some pixels."""
    longer = max(layout.height, layout.width)
    sides = tuple(max(1, round(size * side / longer)) for side in (layout.height, layout.width))
    if picture.shape[-2:] == sides:
        return picture
    return F.interpolate(picture, sides, mode="bilinear", antialias=True).clamp(0, 1)


def _text(layout: Layout, result: DraftResult, overlaps: dict[int, float]) -> str:
    count = len(next(iter(result.losses.values())))
    factors = ", ".join(f"{name} {value:.3g}" for name, value in result.factors.items())
    ended = ", ended early because the losses did not fall any more" if result.stopped_early else ""
    return f"{overlap_text(layout, overlaps)}\n{count} iterations{ended}; losses multiplied with: {factors}"


def _progress(pictures: int, iterations: int) -> Callable[[int], OnStep]:
    """For each picture what its draft calls: it stops an interrupted run at once, and shows how far it is."""
    bar = comfy.utils.ProgressBar(pictures * iterations)

    def of_picture(index: int) -> OnStep:
        def show(iteration: int, picture: Tensor) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            preview = None
            if iteration % PREVIEW_EVERY == 0:
                drawn = latent_preview.preview_to_image(rearrange(picture[0], "c h w -> h w c"), do_scale=False)
                preview = ("JPEG", drawn, latent_preview.MAX_PREVIEW_RESOLUTION)
            bar.update_absolute(index * iterations + iteration + 1, preview=preview)

        return show

    return of_picture
