"""Stage one of TCIG in ComfyUI: progress with a live preview, and what is said about the drafts."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import comfy.model_management
import comfy.utils
import latent_preview
import torch
from einops import rearrange
from torch import Tensor

from ...clip.clip_guide import CLIPGuide
from ...comfy.device import on_device
from ...comfy.sampling import SEEDS
from ...drawing.plots import plot_losses
from ...drawing.resizing import resized
from ...layout.layout import Layout, refuse_loras
from ...layout.region import LayoutError
from ...segmentation.segmenter import Segmenter
from ..draft import DraftResult, DraftSettings, draft
from ..optimisation import DraftError, OnStep
from ..prompts import SEPARATOR, WeightedPrompt
from ..segmentation_loss import make_terms, overlap_text, region_overlaps
from ..starts import NOISE, Start, start_of, whole_cells
from ..vqgan import VQGAN

PREVIEW_EVERY = 5  # iterations
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
    start: Start,
    settings: DraftSettings,
    *,
    size: int,
    seed: int,
) -> Drafts:
    """Draft a picture for every layout, each with a seed of its own.

    Args:
        layouts: of one canvas.
        vqgan: paints.
        guide: reads the prompts.
        segmenters: see the layouts' regions.
        weights: one for each segmenter, or one for all of them.
        prompts: empty: each layout's own prompt.
        start: what the drafts begin with.
        settings: of each draft; random codes are nothing to hold to, so with them start_weight does not count.
        size: pixels of the longer side.
        seed: of the first picture; the others have the ones behind it.

    Raises:
        ValueError: what is missing, or does not fit.
    """
    refuse_loras(layouts, "TCIG Draft")
    if len({(layout.height, layout.width) for layout in layouts}) != 1:
        raise LayoutError("The layouts of one batch have different canvases. Give all of them the same size.")
    sides = whole_cells(layouts[0], size, vqgan.factor)
    weights = _one_for_each(weights, segmenters)
    # Whatever cannot be meant is refused before anything is loaded.
    terms = [make_terms(layout, segmenters, weights, *sides) for layout in layouts]
    grounds = start.pictures(len(layouts))
    if start.kind == NOISE:
        settings = replace(settings, start_weight=0.0)
    pictures: list[Tensor] = []
    results: list[DraftResult] = []
    overlaps: list[dict[int, float]] = []
    networks = [vqgan.network, guide.network, *(segmenter.network for segmenter in segmenters)]
    show = _progress(len(layouts), settings.iterations)
    working = DRAFT_BYTES * vqgan.network.config.block_out_channels[0] * math.prod(sides)
    with on_device(networks, working):
        for index, (layout, own, ground) in enumerate(zip(layouts, terms, grounds, strict=True)):
            number = (seed + index) % SEEDS
            texts = prompts or (WeightedPrompt(layout.prompt),)
            latent, hold = start_of(layout, vqgan, start.kind, ground, sides, number)
            result = draft(vqgan, latent, guide, texts, own, settings, seed=number, start_map=hold, on_step=show(index))
            picture = _fitted(result.picture, layout, size)
            overlaps.append(region_overlaps(own, result.picture))
            pictures.append(rearrange(picture, "1 c h w -> h w c").float().cpu())
            results.append(result)
    titles = [f"picture {index}" if len(layouts) > 1 else "losses" for index in range(1, len(layouts) + 1)]
    plots = [plot_losses(result.losses, title) for result, title in zip(results, titles, strict=True)]
    said = [_text(*each) for each in zip(layouts, results, overlaps, strict=True)]
    if len(said) > 1:
        said = [f"{title}: {each}" for title, each in zip(titles, said, strict=True)]
    asked = prompts or [WeightedPrompt(layout.prompt) for layout in layouts]
    said = [*_unread(guide, asked, settings), *said]
    return Drafts(torch.stack(pictures), torch.stack(plots), overlaps, "\n".join(said))


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
    return resized(picture, sides).clamp(0, 1)


def _text(layout: Layout, result: DraftResult, overlaps: dict[int, float]) -> str:
    count = len(next(iter(result.losses.values())))
    factors = ", ".join(f"{name} {value:.3g}" for name, value in result.factors.items())
    ended = ", ended early because the losses did not fall any more" if result.stopped_early else ""
    return f"{overlap_text(layout, overlaps)}\n{count} iterations{ended}; losses multiplied with: {factors}"


def _unread(guide: CLIPGuide, prompts: Sequence[WeightedPrompt], settings: DraftSettings) -> Iterator[str]:
    """Say what CLIP did not read of each prompt."""
    for text in dict.fromkeys(prompt.text for prompt in prompts if settings.clip_weight):
        if unread := guide.unread(text):
            sentence = (
                f'CLIP {guide.name} does not read the end of the prompt: "{unread}". Write the prompt shorter, or part '
                f"it into several by {SEPARATOR}, of which each is read as a whole."
            )
            logging.warning("Stagecraft: %s", sentence)
            yield sentence


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
