"""Cuts things out of pictures: with a segmenter, or with a checkpoint's own attention to a phrase."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...attention.comfy.families import family_of
from ...attention.comfy.maps import Reading, attention_maps, encoded
from ...attention.sites import FIRST_DOWN
from ...comfy.device import on_device
from ...comfy.types import Clip, Model, Vae
from ...drawing.pictures import colours_of
from ...layout.region import Region
from ...segmentation.files import SegmenterError
from ...segmentation.segmenter import Segmenter
from ..reference_picture import thing_in

# reconstructed: what is smaller than this share of its picture is a speck, not the thing.
SMALLEST_SHARE = 0.02
# reconstructed: at which share of a run attention is read for a cut-out; half-way, things have outlines.
READ_AT = 0.5


@dataclass(frozen=True)
class Checkpoint:
    """What draws the things: ComfyUI's MODEL, CLIP and VAE of one checkpoint."""

    model: Model
    clip: Clip
    vae: Vae


def check_cut_outs(model: Model, segmenter: Segmenter | None, regions: Sequence[Region]) -> None:
    """Refuse things that cannot be cut out of their pictures, before anything is drawn.

    Args:
        model: ComfyUI's ModelPatcher.
        segmenter: that shall cut them out; None for the model's own attention.
        regions: whose things are not cut out already.

    Raises:
        ValueError: a model whose attention cannot be read.
        SegmenterError: a phrase that the segmenter does not know.
    """
    for region in regions:
        if segmenter is None:
            instead = f'Connect a segmenter that knows "{region.phrase}" (Load Segmenter), or {own_cut_out(region)}'
            family_of(model, "Attention maps", instead)
        try:
            if segmenter is not None:
                segmenter.name_of(region.phrase)
        except SegmenterError as error:
            raise SegmenterError(
                f'There is no cut-out picture of "{region.phrase}", and {error} Or {own_cut_out(region)}, or '
                "disconnect the segmenter, so that the model's own attention cuts it out."
            ) from None


def own_cut_out(region: Region) -> str:
    """Say how a user can cut out a region's thing without a segmenter."""
    return "make its reference picture transparent around it" if region.reference else "connect images and masks"


def cut_out(
    checkpoint: Checkpoint, segmenter: Segmenter | None, region: Region, picture: Tensor
) -> tuple[Tensor | None, float]:
    """Find a region's thing in its picture.

    Args:
        checkpoint: whose attention is read where there is no segmenter.
        segmenter: None takes the checkpoint's own attention to the phrase.
        region: whose phrase.
        picture: (h w 3 or 4) in 0..1.

    Returns:
        Its mask, (h w), or None where it is not there; and how sure that is, 0..1.
    """
    picture = colours_of(picture)
    if segmenter is None:
        seen = _attention_to(checkpoint, region.phrase, picture)
        grid = torch.nn.functional.interpolate(seen[None, None], picture.shape[:2], mode="bilinear")[0, 0]
        return thing_in(grid), 1.0
    segmenter = segmenter.for_phrases([region.phrase])
    with on_device([segmenter.network]):
        probabilities = segmenter.probabilities(picture[None])[0]
    likelihood = probabilities[segmenter.class_of(region.phrase)]
    # Where the thing is nowhere the likeliest class, its map has an outline of its own only by chance.
    if not (probabilities.argmax(0) == segmenter.class_of(region.phrase)).any():
        return None, 0.0
    mask = thing_in(likelihood)
    return mask, float(likelihood[mask > 0].mean()) if mask.mean() >= SMALLEST_SHARE else 0.0


def _attention_to(checkpoint: Checkpoint, phrase: str, picture: Tensor) -> Tensor:
    """Where a model looks for a phrase in a picture that is noised half-way, (h w) in latent cells."""
    latent = encoded(checkpoint.model, checkpoint.vae, picture[None])
    reading = Reading(noise=1 - READ_AT, sites=FIRST_DOWN)
    return attention_maps(checkpoint.model, checkpoint.clip, latent, phrase, [phrase], reading).maps[0, 0]
