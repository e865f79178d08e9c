"""From layouts to the layers of a run: what is seen of each, its caption, and its delta."""

from collections.abc import Sequence

import torch
from comfy.ldm.modules.attention import SpatialVideoTransformer
from torch import Tensor

from ...attention.comfy.families import UNET, family_of, network_of, takes_repeated_text
from ...attention.comfy.prompts import columns_in
from ...clip.comfy.words import phrase_positions
from ...comfy.captions import captions_of_rows, embed_captions, rows_of_one_length
from ...comfy.types import Clip, Model, Vae
from ...layout.layout import Layout
from ...layout.prompts import fill_prompt
from ...layout.region import LayoutError, Region
from ..vision_guidance import VisionGuidance
from .deltas import checked_vector, colour_latent, reference_latents
from .entry import VisionEntry
from .settings import Layer, LayerSettings, Rendering, settings_by_region

LAYER_PROMPT = "layer prompt"  # how errors call it
UNSET = LayerSettings("")  # of a layer that nobody set anything for
METHOD = "Dynamic vectors"
OTHER_SOURCE = 'Choose the delta "colour", "reference" or "vector", which work on every model'
OTHER_DELTA = ', or choose another delta than "dynamic"'
USUAL_CELL = 8  # pixels per latent cell where no VAE is connected to ask


def make_layers(
    model: Model, clip: Clip, vae: Vae | None, layouts: Sequence[Layout], rendering: Rendering
) -> list[Layer]:
    """Make the background's layer and one for each region in painter's order; see `render_in_layers`.

    Of several layouts, one for each picture, the layers are joined by their place in painter's order; a picture with
    fewer regions has empty ones instead.

    Raises:
        LayoutError: a region that would not be seen, settings for one that is not there, or a bad caption.
        ValueError: layouts of different canvases, or what a delta needs is missing.
    """
    sizes = {(one.height, one.width) for one in layouts}
    if len(sizes) != 1:
        raise ValueError("The layouts of one batch have different canvases. Give all of them the same size.")
    if rendering.settings and len(layouts) > 1:
        raise ValueError("Settings of single layers need one layout. Sample the layouts of this batch one by one.")
    smallest = 0.999 * (vae.spacial_compression_encode() if vae is not None else USUAL_CELL) ** 2  # room for rounding
    chosen = settings_by_region(layouts[0], rendering.settings) if rendering.settings else {}
    seen = [_check_seen(one, smallest) for one in layouts]
    layers = []
    # A sliver of background is left to the layers beside it: ComfyUI divides by what is covered.
    if any(visible[0].sum() >= smallest for visible in seen):
        own = chosen.get(None, UNSET)
        layers += _background_layers(model, clip, layouts, seen, rendering.background_negative, own)
    deltas = _Deltas(model, clip, vae, rendering.guidance, rendering.strength)
    for place in range(max(len(one.regions) for one in layouts)):
        regions = [one.sorted_regions()[place] if place < len(one.regions) else None for one in layouts]
        captions = [
            "" if region is None else _layer_caption(rendering.layer_prompt, one, region)
            for one, region in zip(layouts, regions, strict=True)
        ]
        first = regions[0]
        index = next((i for i, region in enumerate(layouts[0].regions) if region is first), None)
        own = UNSET if index is None else chosen.get(index, UNSET)
        shown = _stack([visible[place + 1] if len(visible) > place + 1 else None for visible in seen])
        for rows in _shared(model, clip, shown, captions):
            # The others have an empty layer here.
            mine = [region if i in rows else None for i, region in enumerate(regions)]
            said = captions_of_rows(captions, rows)
            layers.append(
                Layer(
                    positive=embed_captions(clip, said) if own.positive is None else own.positive,
                    visible=_only(shown, rows),
                    negative=own.negative,
                    cfg=own.cfg,
                    vision=deltas.of(layouts, mine, place, said, own),
                )
            )
    return layers


def _background_layers(
    model: Model,
    clip: Clip,
    layouts: Sequence[Layout],
    seen: Sequence[Tensor],
    background_negative: str,
    own: LayerSettings,
) -> list[Layer]:
    backgrounds = [one.background for one in layouts]
    negatives = [fill_prompt(background_negative, one, None, LAYER_PROMPT) for one in layouts]
    shown, layers = _stack([visible[0] for visible in seen]), []
    for rows in _shared(model, clip, shown, backgrounds, negatives):
        negative = own.negative
        if negative is None and any(negatives):
            negative = embed_captions(clip, captions_of_rows(negatives, rows))
        layers.append(
            Layer(
                positive=embed_captions(clip, captions_of_rows(backgrounds, rows))
                if own.positive is None
                else own.positive,
                visible=_only(shown, rows),
                negative=negative,
                cfg=own.cfg,
                is_background=True,
            )
        )
    return layers


def _shared(model: Model, clip: Clip, shown: Tensor, *captions: Sequence[str]) -> list[list[int]]:
    """Numbers of the pictures whose captions can be evaluated together; see `rows_of_one_length`."""
    everybody = list(range(len(captions[0])))
    if all(len(set(kind)) == 1 for kind in captions) or takes_repeated_text(model):
        return [everybody]
    return [rows for rows in rows_of_one_length(clip, *captions) if shown[rows].any()]


def _only(shown: Tensor, rows: Sequence[int]) -> Tensor:
    """Masks (b h w) of some pictures, and empty ones of the others."""
    if len(rows) == len(shown):
        return shown
    kept = torch.zeros_like(shown)
    kept[list(rows)] = shown[list(rows)]
    return kept


class _Deltas:
    """Vision guidance of the regions, each colour and picture encoded once."""

    def __init__(self, model: Model, clip: Clip, vae: Vae | None, guidance: VisionGuidance, strength: float) -> None:
        self.model, self.clip, self.vae, self.guidance, self.strength = model, clip, vae, guidance, strength
        self.colours: dict[str, Tensor] = {}
        self.references: Tensor | None = None

    def of(
        self,
        layouts: Sequence[Layout],
        regions: Sequence[Region | None],
        place: int,
        captions: Sequence[str],
        own: LayerSettings,
    ) -> VisionEntry | None:
        """Guidance of the layer at this place in painter's order, if it has any."""
        factors = [0.0 if region is None else self.strength * region.strength for region in regions]
        if not any(factors):
            return None
        delta, words = None, {}
        if self.guidance.source == "dynamic":
            words = self._words(layouts, regions, captions, own)
        else:
            vectors = [
                None if region is None or factor == 0 else self._vector(region, len(layout.regions), place)
                for layout, region, factor in zip(layouts, regions, factors, strict=True)
            ]
            known = next((vector for vector in vectors if vector is not None), None)
            if known is None:
                return None
            vectors = [torch.zeros_like(known) if vector is None else vector for vector in vectors]
            delta = torch.stack([factor * vector for factor, vector in zip(factors, vectors, strict=True)])
        masks = [
            None if region is None else region.mask_on(layout.height, layout.width)
            for layout, region in zip(layouts, regions, strict=True)
        ]
        return VisionEntry(
            own_mask=_stack(masks),
            sides=torch.tensor([self.guidance.inside, self.guidance.outside]),
            inject=self.guidance.inject,
            reading=self.guidance.reading,
            delta=delta,
            factors=torch.tensor(factors) if words else None,
            top_k=self.guidance.top_k if words else None,
            **words,
        )

    def _words(
        self, layouts: Sequence[Layout], regions: Sequence[Region | None], captions: Sequence[str], own: LayerSettings
    ) -> dict[str, list[Tensor] | int]:
        """Where each picture's caption says the name of its region, as `VisionEntry` has it."""
        family = family_of(self.model, METHOD, OTHER_SOURCE)
        _check_reads_text(self.model)
        if own.positive is not None:
            raise ValueError(
                f'The layer "{own.region}" has a prompt of its own, in which its name cannot be found, but delta is '
                '"dynamic" and reads the attention of the name. Disconnect the prompt or choose another delta.'
            )
        if family is UNET:
            found = [
                [] if region is None else self._own_words(layout, region, caption)
                for layout, region, caption in zip(layouts, regions, captions, strict=True)
            ]
            return {"words": [torch.tensor(positions, dtype=torch.int64) for positions in found]}
        embedded = embed_captions(self.clip, captions)
        columns = [
            columns_in(family, self.clip, caption, [] if region is None else [region.phrase], embedded, OTHER_DELTA)
            for region, caption in zip(regions, captions, strict=True)
        ]
        return {
            "words": [torch.tensor(each.recorded, dtype=torch.int64) for each in columns],
            "told": [torch.tensor(list(each.words), dtype=torch.int64) for each in columns],
            "text_length": columns[0].length,
        }

    def _own_words(self, layout: Layout, region: Region, caption: str) -> list[int]:
        """Where a layer's caption says its region's name, if it can outside of the other regions' names."""
        others = [each.phrase for each in layout.regions if each.phrase != region.phrase]
        return phrase_positions(self.clip, caption, region.phrase, OTHER_DELTA, beside=others)

    def _vector(self, region: Region, count: int, place: int) -> Tensor | None:
        if self.guidance.source == "vector":
            return checked_vector(self.model, self.guidance.vector)
        if self.guidance.source == "reference":
            pictures = self.guidance.references
            if len(pictures) != count:
                raise ValueError(
                    f"{len(pictures)} reference pictures are connected for {count} regions. Connect one for each, in "
                    "painter's order, as one batch."
                )
            if self.references is None:
                self.references = reference_latents(self.model, self.vae, pictures)
            return self.references[place]
        if not region.colour:
            return None
        if region.colour not in self.colours:
            self.colours[region.colour] = colour_latent(self.model, self.vae, region.colour, region.phrase)
        return self.colours[region.colour]


def _check_reads_text(model: Model) -> None:
    # The U-Nets of video models are of the usual class, but their cross-attention reads a picture.
    network = network_of(model)
    if any(isinstance(part, SpatialVideoTransformer) for part in network.modules()):
        raise ValueError(
            f"{METHOD} read the attention to the prompt; this model is a {type(network).__name__} whose attention "
            f"reads a picture. {OTHER_SOURCE}."
        )


def _check_seen(layout: Layout, smallest: float) -> Tensor:
    """What is seen of the background and of every region, (n+1 h w) at the canvas' resolution."""
    own, visible = (of(layout.height, layout.width) for of in (layout.masks, layout.visible_masks))
    for region, own_mask, seen in zip(layout.sorted_regions(), own, visible[1:], strict=True):
        if seen.sum() < smallest:
            reason = "is hidden by nearer regions" if own_mask.sum() >= smallest else "is too small"
            cell = round((smallest / 0.999) ** 0.5)
            raise LayoutError(
                f'The region "{region.phrase}" {reason}: less of it is seen than one cell of {cell} x {cell} pixels. '
                "Make it larger, move it, or change the order."
            )
    return visible


def _layer_caption(template: str, layout: Layout, region: Region) -> str:
    return region.prompt or fill_prompt(template, layout, region, LAYER_PROMPT)


def _stack(masks: Sequence[Tensor | None]) -> Tensor:
    """(b h w); a picture without this layer has an empty one."""
    known = next(mask for mask in masks if mask is not None)
    return torch.stack([torch.zeros_like(known) if mask is None else mask for mask in masks])
