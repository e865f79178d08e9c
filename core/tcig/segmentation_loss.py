"""How far what a segmenter sees is from where a layout wants it, and how well it fits in the end.

TCIG (arXiv 2403.01212), section 3: L_seg = MSE(m_p, m_t), summed over segmentation models that each know some classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from ..layout.layout import Layout
from ..layout.masks import is_empty, resample_by_area
from ..layout.region import LayoutError
from ..scores.metrics import mask_iou
from ..segmentation.files import SegmenterError
from ..segmentation.segmenter import Segmenter


@dataclass(frozen=True)
class SegmentationTerm:
    """One segmenter and the regions that it looks after. Regions that it has one name for are one mask to it.

    Attributes:
        name: for people.
        segmenter: frozen.
        phrases: one for each of its k names.
        members: for each name the regions, counted in painter's order.
        masks: (k h w), the visible parts of those regions together.
        strengths: of each name, the mean strength of its regions.
        weight: of the whole term; `draft` says in which unit.
    """

    name: str
    segmenter: Segmenter
    phrases: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    masks: Tensor
    strengths: tuple[float, ...]
    weight: float = 1.0

    def target(self, picture: Tensor) -> Tensor:
        """The masks on the segmenter's own grid (k h' w'), where the picture (1 3 h w) is."""
        with torch.no_grad():
            grid = self.segmenter.soft_masks(picture, self.phrases).shape[-2:]
        return resample_by_area(self.masks, *grid).to(picture.device)

    def loss(self, picture: Tensor, target: Tensor) -> Tensor:
        """Mean squared difference of soft masks and target, over names and cells; differentiable in the picture.

        The whole picture is seen, not cut-outs, and probabilities are compared, not decisions.

        Args:
            picture: (1 3 h w) in 0..1.
            target: of `target`.
        """
        found = self.segmenter.soft_masks(picture, self.phrases)[0]
        errors = (found - target).square().mean((1, 2))
        return sum(strength * error for strength, error in zip(self.strengths, errors, strict=True)) / len(errors)

    def overlaps(self, picture: Tensor) -> dict[int, float]:
        """Mask IoU of each of its regions, 0 where nothing is found; the picture is (1 3 h w).

        A pixel is found where the name is the likeliest, as `layout_score` has it.
        """
        with torch.no_grad():
            judge = self.segmenter.for_phrases(self.phrases)
            labels = judge.labels(rearrange(picture, "b c h w -> b h w c"))[0]
        found = {}
        for phrase, members, mask in zip(self.phrases, self.members, self.masks, strict=True):
            iou = float(mask_iou(labels == judge.class_of(phrase), mask) or 0.0)
            found |= dict.fromkeys(members, iou)
        return found


def make_terms(
    layout: Layout, segmenters: Sequence[Segmenter], weights: Sequence[float], height: int, width: int
) -> tuple[SegmentationTerm, ...]:
    """Give every segmenter the regions whose phrases it knows; a region that several know counts in each.

    Args:
        layout: regions of strength 0 are left out.
        segmenters: one that knows none of the regions gets no term.
        weights: one for each segmenter.
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Raises:
        SegmenterError: a phrase that no segmenter knows; the message lists the nearest names of each.
        LayoutError: a region that others hide altogether, or all strengths are 0.
    """
    regions = layout.sorted_regions()
    asked = [index for index, region in enumerate(regions) if region.strength]
    if not asked:
        raise LayoutError("All regions have strength 0, so there is nothing to draw. Give one a strength above 0.")
    without = replace(layout, regions=tuple(regions[index] for index in asked))  # what is left out hides nothing
    visible = dict(zip(asked, without.visible_masks(height, width)[1:], strict=True))
    for index in asked:
        _require_known(regions[index].phrase, segmenters)
        if is_empty(visible[index]):
            raise LayoutError(
                f'Nothing of the region "{regions[index].phrase}" can be seen: others hide it, or it is smaller than a '
                "pixel. Move it, raise its order, or give it strength 0."
            )
    terms = []
    for number, (segmenter, weight) in enumerate(zip(segmenters, weights, strict=True), 1):
        groups: dict[str, list[int]] = {}
        for index in asked:
            if segmenter.knows(regions[index].phrase):
                groups.setdefault(segmenter.name_of(regions[index].phrase), []).append(index)
        if groups:
            terms.append(
                SegmentationTerm(
                    name="segmenter" if len(segmenters) == 1 else f"segmenter {number}",
                    segmenter=segmenter,
                    phrases=tuple(regions[members[0]].phrase for members in groups.values()),
                    members=tuple(map(tuple, groups.values())),
                    masks=torch.stack([sum(visible[i] for i in members) for members in groups.values()]),
                    strengths=tuple(sum(regions[i].strength for i in each) / len(each) for each in groups.values()),
                    weight=weight,
                )
            )
    return tuple(terms)


def region_overlaps(terms: Sequence[SegmentationTerm], picture: Tensor) -> dict[int, float]:
    """Mask IoU of each region in painter's order, the mean over the segmenters that know it.

    Args:
        terms: of one layout.
        picture: (1 3 h w) in 0..1.
    """
    found: dict[int, list[float]] = {}
    for term in terms:
        for index, iou in term.overlaps(picture).items():
            found.setdefault(index, []).append(iou)
    return {index: sum(found[index]) / len(found[index]) for index in sorted(found)}


def overlap_text(layout: Layout, overlaps: Mapping[int, float]) -> str:
    """Say in a line per region how well it fits, after a line with the mean."""
    mean = sum(overlaps.values()) / len(overlaps)
    regions = layout.sorted_regions()
    lines = [f"{regions[index].phrase}: mask IoU {iou:.2f}" for index, iou in overlaps.items()]
    return "\n".join([f"mean mask IoU {mean:.2f}", *lines])


def _require_known(phrase: str, segmenters: Sequence[Segmenter]) -> None:
    refusals = []
    for segmenter in segmenters:
        try:
            segmenter.name_of(phrase)
        except SegmenterError as error:
            refusals.append(str(error))
        else:
            return
    if not refusals:
        return
    if len(refusals) == 1:
        raise SegmenterError(refusals[0])
    raise SegmenterError(" ".join(f"Segmenter {number}: {each}" for number, each in enumerate(refusals, 1)))
