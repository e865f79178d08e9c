"""From layouts to the layers of a run: what is seen of each, its caption, and its delta."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...attention.comfy.families import takes_repeated_text
from ...comfy.captions import captions_of_rows, embed_captions, rows_of_one_length
from ...comfy.types import Clip, Model, Vae
from ...layout.layout import Layout
from ...layout.prompts import fill_prompt
from ...layout.region import LayoutError, Region
from .loras import Wardrobe, Worn
from .settings import Layer, LayerSettings, Rendering, settings_by_region
from .sources import Deltas, stacked

LAYER_PROMPT = "layer prompt"  # how errors call it
UNSET = LayerSettings("")  # of a layer that nobody set anything for
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
    wardrobe = Wardrobe(model, clip)
    deltas = Deltas(model, clip, vae, rendering.guidance, rendering.strength)
    for place in range(max(len(one.regions) for one in layouts)):
        regions = [one.sorted_regions()[place] if place < len(one.regions) else None for one in layouts]
        captions = [
            "" if region is None else _layer_caption(rendering.layer_prompt, one, region)
            for one, region in zip(layouts, regions, strict=True)
        ]
        first = regions[0]
        index = next((i for i, region in enumerate(layouts[0].regions) if region is first), None)
        own = UNSET if index is None else chosen.get(index, UNSET)
        shown = stacked([visible[place + 1] if len(visible) > place + 1 else None for visible in seen])
        worn = [wardrobe.of(region) for region in regions]
        for rows in _dressed_alike(_shared(model, clip, shown, captions), worn, shown):
            # The others have an empty layer here.
            wears = worn[rows[0]]
            mine = [region if i in rows else None for i, region in enumerate(regions)]
            said = captions_of_rows(captions, rows)
            layers.append(
                Layer(
                    positive=embed_captions(clip if wears is None else wears.reader(clip), said)
                    if own.positive is None
                    else own.positive,
                    visible=_only(shown, rows),
                    negative=own.negative,
                    cfg=own.cfg,
                    vision=deltas.of(layouts, mine, place, said, own),
                    worn=wears,
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
    shown, layers = stacked([visible[0] for visible in seen]), []
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


def _dressed_alike(groups: Sequence[Sequence[int]], worn: Sequence[Worn | None], shown: Tensor) -> list[list[int]]:
    """The same groups of pictures, parted where regions of one place wear different LoRAs."""
    if len(set(worn)) == 1:
        return [list(rows) for rows in groups]
    parted = []
    for rows in groups:
        kinds = dict.fromkeys(worn[row] for row in rows)
        parted += [[row for row in rows if worn[row] == kind] for kind in kinds]
    return [rows for rows in parted if shown[rows].any()]


def _only(shown: Tensor, rows: Sequence[int]) -> Tensor:
    """Masks (b h w) of some pictures, and empty ones of the others."""
    if len(rows) == len(shown):
        return shown
    kept = torch.zeros_like(shown)
    kept[list(rows)] = shown[list(rows)]
    return kept


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
