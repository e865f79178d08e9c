"""Which vector guides each region: its picture's, its colour's, a given one, or one measured in the run (Eq. 6)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from comfy.ldm.modules.attention import SpatialVideoTransformer
from torch import Tensor

from ...attention.comfy.families import UNET, family_of, has_context, known_family, network_of
from ...attention.comfy.prompts import columns_in
from ...clip.comfy.words import phrase_positions
from ...comfy.captions import embed_captions
from ...comfy.pictures import load_references
from ...comfy.types import Clip, Model, Vae
from ...layout.layout import Layout
from ...layout.region import LayoutError, Region
from ...layout.writing import reference_batch
from ..vision_guidance import AUTO, COLOUR, DYNAMIC, REFERENCE, VECTOR, VisionGuidance
from .deltas import checked_vector, colour_latent, reference_latents
from .entry import VisionEntry
from .settings import LayerSettings

METHOD = "Dynamic vectors"
OTHER_SOURCE = 'Choose the source "colour", "reference" or "vector", which work on every model'
OTHER_DELTA = ', or choose another source than "dynamic"'


@dataclass(frozen=True)
class Place:
    """A region of one picture of a batch.

    Attributes:
        layout: of the picture.
        region: None where the picture has fewer regions than others of the batch.
        number: of the region in painter's order.
        caption: of its layer.
        factor: of its vector; 0: it has none.
    """

    layout: Layout
    region: Region | None
    number: int
    caption: str
    factor: float


class Deltas:
    """Vision guidance of the regions, each colour and picture encoded once.

    Args:
        model: whose latent space and attention are meant.
        clip: that embeds the captions.
        vae: encodes colours and pictures.
        guidance: where vectors come from.
        strength: of all regions.
    """

    def __init__(self, model: Model, clip: Clip, vae: Vae | None, guidance: VisionGuidance, strength: float) -> None:
        self.model, self.clip, self.vae, self.guidance, self.strength = model, clip, vae, guidance, strength
        self.colours: dict[str, Tensor] = {}
        self.own_pictures: dict[str, Tensor] = {}
        self.references: Tensor | None = None

    def of(
        self,
        layouts: Sequence[Layout],
        regions: Sequence[Region | None],
        number: int,
        captions: Sequence[str],
        own: LayerSettings,
    ) -> VisionEntry | None:
        """Guidance of the layer at this place in painter's order, if it has any."""
        places = [
            Place(layout, region, number, caption, 0.0 if region is None else self.strength * region.strength)
            for layout, region, caption in zip(layouts, regions, captions, strict=True)
        ]
        sources = [self._source(place, own) if place.factor else None for place in places]
        vectors = [self._constant(place, source) for place, source in zip(places, sources, strict=True)]
        measured = [source == DYNAMIC for source in sources]
        known = next((vector for vector in vectors if vector is not None), None)
        if known is None and not any(measured):
            return None
        delta, words = None, {}
        if known is not None:
            vectors = [torch.zeros_like(known) if vector is None else vector for vector in vectors]
            delta = torch.stack([place.factor * vector for place, vector in zip(places, vectors, strict=True)])
        if any(measured):
            factors = [
                place.factor if is_measured else 0.0 for place, is_measured in zip(places, measured, strict=True)
            ]
            words = self._words(places, measured, own) | {
                "factors": torch.tensor(factors),
                "top_k": self.guidance.top_k,
            }
        masks = [
            None if each.region is None else each.region.mask_on(each.layout.height, each.layout.width)
            for each in places
        ]
        return VisionEntry(
            own_mask=stacked(masks),
            sides=torch.tensor([self.guidance.inside, self.guidance.outside]),
            inject=self.guidance.inject,
            reading=self.guidance.reading,
            delta=delta,
            **words,
        )

    def _source(self, place: Place, own: LayerSettings) -> str | None:
        """Where a region's vector comes from; None: it gets none."""
        if self.guidance.source != AUTO:
            return self.guidance.source
        if self.guidance.references is not None or place.region.reference:
            return REFERENCE
        if place.region.colour:
            return COLOUR
        return DYNAMIC if own.positive is None and self._is_measurable(place) else None

    def _is_measurable(self, place: Place) -> bool:
        """Whether Eq. 6 can be followed as it is published: by a U-Net that looks at a caption which says the name.

        What is read in transformers in its place is ours, and no run has shown yet that it helps: there a person asks
        for it.
        """
        network = network_of(self.model)
        if known_family(network) is not UNET or not has_context(network) or _reads_pictures(self.model):
            return False
        try:
            self._own_words(place)
        except LayoutError:
            return False
        return True

    def _words(
        self, places: Sequence[Place], measured: Sequence[bool], own: LayerSettings
    ) -> dict[str, list[Tensor] | Tensor | int]:
        """Where each picture's caption says the name of its region, as `VisionEntry` has it."""
        family = family_of(self.model, METHOD, OTHER_SOURCE)
        if _reads_pictures(self.model):
            raise ValueError(
                f"{METHOD} read the attention to the prompt; this model is a {type(network_of(self.model)).__name__} "
                f"whose attention reads a picture. {OTHER_SOURCE}."
            )
        if own.positive is not None:
            raise ValueError(
                f'The layer "{own.region}" has a prompt of its own, in which its name cannot be found, but source is '
                '"dynamic" and reads the attention of the name. Disconnect the prompt or choose another source.'
            )
        pairs = list(zip(places, measured, strict=True))
        if family is UNET:
            found = [self._own_words(place) if is_measured else [] for place, is_measured in pairs]
            return {"words": [torch.tensor(positions, dtype=torch.int64) for positions in found]}
        embedded = embed_captions(self.clip, [place.caption for place in places])
        columns = [
            columns_in(
                family, self.clip, place.caption, [place.region.phrase] if is_measured else [], embedded, OTHER_DELTA
            )
            for place, is_measured in pairs
        ]
        return {
            "words": [torch.tensor(each.recorded, dtype=torch.int64) for each in columns],
            "told": [torch.tensor(list(each.words), dtype=torch.int64) for each in columns],
            "text_length": columns[0].length,
        }

    def _own_words(self, place: Place) -> list[int]:
        """Where a layer's caption says its region's name, if it can outside of the other regions' names."""
        phrase = place.region.phrase
        others = [each.phrase for each in place.layout.regions if each.phrase != phrase]
        return phrase_positions(self.clip, place.caption, phrase, OTHER_DELTA, beside=others)

    def _constant(self, place: Place, source: str | None) -> Tensor | None:
        """The paper's constant vector (c) of a region; None: it has none."""
        if source == VECTOR:
            return checked_vector(self.model, self.guidance.vector)
        if source == REFERENCE:
            return self._of_own_picture(place) if self.guidance.references is None else self._of_given_picture(place)
        if source != COLOUR or not place.region.colour:
            return None
        colour = place.region.colour
        if colour not in self.colours:
            self.colours[colour] = colour_latent(self.model, self.vae, colour, place.region.phrase)
        return self.colours[colour]

    def _of_given_picture(self, place: Place) -> Tensor:
        pictures, count = self.guidance.references, len(place.layout.regions)
        if len(pictures) != count:
            raise ValueError(
                f"{len(pictures)} reference pictures are connected for {count} regions. Connect one for each, in "
                "painter's order, as one batch."
            )
        if self.references is None:
            self.references = reference_latents(self.model, self.vae, pictures)
        return self.references[place.number]

    def _of_own_picture(self, place: Place) -> Tensor:
        name = place.region.reference
        if name not in self.own_pictures:
            alone = replace(place.layout, regions=(place.region,))
            shown = reference_batch(alone, load_references(alone))
            self.own_pictures[name] = reference_latents(self.model, self.vae, shown)[0]
        return self.own_pictures[name]


def _reads_pictures(model: Model) -> bool:
    # The U-Nets of video models are of the usual class, but their cross-attention reads a picture.
    return any(isinstance(part, SpatialVideoTransformer) for part in network_of(model).modules())


def stacked(masks: Sequence[Tensor | None]) -> Tensor:
    """(b h w); a picture without this layer has an empty one."""
    known = next(mask for mask in masks if mask is not None)
    return torch.stack([torch.zeros_like(known) if mask is None else mask for mask in masks])
