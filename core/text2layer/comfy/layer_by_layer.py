"""Pictures painted in layers, one run of the sampler each: every layer is told what lies below it.

Text2Layer (arXiv 2307.09781) has two layers and leaves more to future work (section 6); this is ours. Each run gives
a foreground, a background and a mask. Of the first all three are kept, of every later one the foreground and its mask,
so what was painted before stays as it is to the last bit.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import comfy.model_management
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ...comfy.progress import progress
from ...comfy.sampling import Sampling
from ...comfy.types import Clip, Conditioning, Model
from ...layers.layered_image import Layer, LayeredImage
from ...layout.layout import Layout, refuse_loras
from ...layout.masks import grown, inside_of, is_same_aspect
from ...layout.prompts import fill_prompt
from ...layout.region import LayoutError, Region
from ..prompts import WHOLE
from .model import BELOW, Text2LayerModel
from .vae import LayeredVae

# reconstructed: embedded models are trained with captions of one thing and its place for every layer.
LAYER_PROMPT = "{phrase} {background}"
# reconstructed: pixels by which a region is grown; a latent cell of the usual autoencoders, so that a soft edge and a
# thing's outline have room.
MARGIN = 8
EMPTY = 0.5  # a layer that is nowhere more opaque than this shows nothing of what it was asked for


def paint_layers(
    model: Model,
    vae: LayeredVae,
    clip: Clip,
    layout: Layout,
    sampling: Sampling,
    *,
    negative: str = "",
    layer_prompt: str = LAYER_PROMPT,
    margin: int = MARGIN,
    below: LayeredImage | None = None,
    replaced: int = 0,
) -> LayeredImage:
    """Paint a layer for every region, in painter's order.

    A layer is only painted inside its region, grown by the margin: outside, the sampler's state is held on what lies
    below (ComfyUI's own inpainting). A region that is the whole canvas leaves its layer free. Where the first region
    is smaller, a run with the background's words alone gives the background first.

    Args:
        model: of a Text2Layer file.
        vae: of the same file.
        clip: encodes the layers' prompts.
        layout: the layers.
        sampling: of each of them; the lowest has its seed, every layer above it the next. Classifier-free guidance
            amplifies the text alone, because what lies below is on both sides. Where a layer is replaced, denoise says
            how much of the old one is painted over; else it is 1.
        negative: negative prompt of all layers.
        layer_prompt: prompt of a region without a longer one; may hold {phrase}, {background} and {prompt}.
        margin: pixels.
        below: one picture (b = 1) whose layers are gone on from; None begins with a background.
        replaced: number of the layer of `below` that is painted anew, from 1, the farthest; 0 puts new ones on top.

    Returns:
        One picture. All that was in `below` is in it unchanged, but for a layer that is replaced.

    Raises:
        LayoutError: a layout of another shape than the layers below, or an unknown placeholder.
        ValueError: a model or VAE of another kind, or a layer to be replaced that is not there.
    """
    refuse_loras([layout], "Layer by Layer", "paints with a Text2Layer model, which no checkpoint's LoRA is for")
    _check(model, vae, layout, sampling, below, replaced)
    if below is not None:
        height, width = below.background.shape[1:3]
    else:
        height, width = layout.height, layout.width
    regions = layout.sorted_regions()
    begins = below is None
    separately = begins and _is_somewhere(regions[0])
    painter = _LayerPainter(model, vae, clip, sampling, negative, (height, width), len(regions) + separately)
    texts = [region.prompt or fill_prompt(layer_prompt, layout, region, "layer prompt") for region in regions]
    if separately:  # without a thing's name, or a trace of that thing is left in the background
        texts.insert(0, layout.background or texts[0])
    prompts = [
        painter.encode(text) for text in texts
    ]  # all at once: where memory is short, models are not swapped again
    if begins:
        first, prompts = painter.paint(prompts[0]), prompts[1:]
        image = LayeredImage(first.background)
        if not separately:
            image = LayeredImage(first.background, [named(first.layers[0], regions[0].phrase)])
            regions = regions[1:]
    else:
        image = below
    above: Sequence[Layer] = ()
    old = None
    if replaced:
        old, above = image.layers[replaced - 1], image.layers[replaced:]
        image = LayeredImage(image.background, image.layers[: replaced - 1])
    for region, prompt in zip(regions, prompts, strict=True):
        free = free_cells(region, margin, (height, width), vae.cell) if _is_somewhere(region) else None
        painted = painter.paint(prompt, len(image.layers), image.composite(), free, old)
        image = LayeredImage(image.background, (*image.layers, named(painted.layers[0], region.phrase)))
    return LayeredImage(image.background, (*image.layers, *above))


def named(layer: Layer, phrase: str) -> Layer:
    """The layer with its phrase for a name; one that is nowhere opaque is told of."""
    if not bool((layer.alpha > EMPTY).any()):
        logging.warning('Stagecraft: the layer "%s" is empty. Try another seed or a higher cfg.', phrase)
    return replace(layer, name=phrase)


def _check(
    model: Model,
    vae: LayeredVae,
    layout: Layout,
    sampling: Sampling,
    below: LayeredImage | None,
    replaced: int,
) -> None:
    if not isinstance(model.model, Text2LayerModel):
        raise ValueError(
            f"The model is {type(model.model).__name__}, which paints pictures without layers. Connect the model of "
            "Load Text2Layer."
        )
    if model.model.latent_format.latent_channels != vae.channels:
        raise ValueError(
            f"The model's latents have {model.model.latent_format.latent_channels} channels, the layered VAE's "
            f"{vae.channels}. Connect both from the same Load Text2Layer."
        )
    regions = layout.sorted_regions()
    alone = len(regions) == 1 and below is None and not _is_somewhere(regions[0])
    if not alone and not model.model.takes_below:
        raise ValueError(
            "This Text2Layer file paints one foreground and one background at once: it cannot be told what lies below "
            "a layer. Choose a file that can, such as sticker_world_text2layer, or ask for one thing without a place."
        )
    if sampling.denoise < 1 and not replaced:
        raise ValueError("denoise is below 1, but no layer is replaced, so there is nothing to keep. Set denoise to 1.")
    if below is None:
        if replaced:
            raise ValueError(
                "A layer is to be replaced, but no layers are connected. Connect them, or set replace to 0."
            )
        return
    if replaced > len(below.layers):
        raise ValueError(
            f"Layer {replaced} is to be replaced, but the connected layers are {len(below.layers)} above the "
            "background. Give its number from 1, the farthest."
        )
    if replaced and len(regions) != 1:
        raise ValueError(
            f"Layer {replaced} is to be replaced by {len(regions)} new ones ({', '.join(r.phrase for r in regions)}). "
            "Name one thing only."
        )
    height, width = below.background.shape[1:3]
    if any(_is_somewhere(region) for region in regions) and not is_same_aspect(
        height, width, layout.height, layout.width
    ):
        raise LayoutError(
            f"The connected layers have {width} x {height} pixels, which is not the shape of the layout's canvas "
            f"({layout.width} x {layout.height} pixels). Give both the same width and height."
        )


def _is_somewhere(region: Region) -> bool:
    """Whether a region says where its layer may lie."""
    return region.mask is not None or region.box != WHOLE


def free_cells(region: Region, margin: int, size: tuple[int, int], cell: int) -> Tensor:
    """Which latent cells a region touches that is grown by a margin: 1 or 0, (1 h w) with the cells that padding adds.

    Args:
        region: with a place.
        margin: pixels.
        size: height and width of the canvas, pixels.
        cell: pixels along one side of a latent cell.
    """
    mask = grown(inside_of(region.mask_on(*size)).float(), margin)[None]
    height, width = size
    mask = F.pad(mask, (0, -width % cell, 0, -height % cell))
    return F.max_pool2d(mask, cell)


class _LayerPainter:
    """The samplings of one picture."""

    def __init__(
        self,
        model: Model,
        vae: LayeredVae,
        clip: Clip,
        sampling: Sampling,
        negative: str,
        size: tuple[int, int],
        layers: int,
    ) -> None:
        self.model, self.vae, self.clip, self.sampling, self.size = model, vae, clip, sampling, size
        self.negative = self.encode(negative)
        self.cells = tuple(math.ceil(side / vae.cell) for side in size)
        self.done, self.layers = 0, layers

    def encode(self, text: str) -> Conditioning:
        """Read a prompt."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def paint(
        self,
        positive: Conditioning,
        number: int = 0,
        below: Tensor | None = None,
        free: Tensor | None = None,
        old: Layer | None = None,
    ) -> LayeredImage:
        """Sample a background with one layer over it.

        Args:
            positive: prompt of the layer.
            number: of layers above the background that are there already.
            below: what lies below it (1 h w 3); None leaves the background to the model.
            free: cells (1 h w) in which it may lie; None is all of them.
            old: the layer that it is painted over where denoise is below 1.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        start = torch.zeros(1, self.vae.channels, *self.cells)
        negative = self.negative
        if below is not None:
            nothing = torch.zeros_like(below)
            condition = start = self._latent(nothing, below, nothing[..., 0])
            if old is not None and self.sampling.denoise < 1:
                start = self._latent(old.colour, below, old.alpha)
            positive, negative = (
                [[text, {**options, BELOW: condition}] for text, options in entries] for entries in (positive, negative)
            )
        latent = self.sampling.later(number).sample(
            self.model,
            positive,
            negative,
            start,
            mask=None if free is None else free[:, None],
            callback=progress(self.model, self.done, self.layers),
        )
        self.done += 1
        found = self.vae.decode(latent)
        height, width = self.size
        layers = [found.foreground, found.background, found.mask]
        if below is not None:  # what it was given may lie on another device than what it paints
            layers = [each.to(below.device) for each in layers]
        foreground, background, mask = (rearrange(x[..., :height, :width], "b c h w -> b h w c") for x in layers)
        return LayeredImage(background, [Layer(foreground, mask[..., 0])])

    def _latent(self, foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
        """Encode layers of the canvas' size, which their edges' pixels fill up to whole cells."""
        return self.vae.encode(
            *(self._filled(x) for x in (foreground, background)), self._filled(mask[..., None])[..., 0]
        )

    def _filled(self, picture: Tensor) -> Tensor:
        rows, columns = (cells * self.vae.cell - side for cells, side in zip(self.cells, self.size, strict=True))
        if not rows and not columns:
            return picture
        filled = F.pad(rearrange(picture, "b h w c -> b c h w"), (0, columns, 0, rows), mode="replicate")
        return rearrange(filled, "b c h w -> b h w c")
