"""How well a picture follows a layout, as a segmenter sees it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..layout.layout import Layout
from ..layout.masks import Array, Box, inside_of, is_same_aspect, largest_components, outer_box, to_numpy
from ..layout.region import LayoutError
from ..segmentation.class_names import match_class
from ..segmentation.segmenter import Segmenter, readable
from .metrics import HIT_IOU, average_precision, bleed, box_iou, is_large_enough, mask_iou, mean_or_none

# reconstructed: a thing fills this much of its tight box, the mean of Sticker World's sprites turned by up to 15
# degrees. Only used where nothing better than the box says how large the thing should look.
BOX_FILL = 0.65


@dataclass(frozen=True)
class RegionScore:
    """What became of one region.

    Attributes:
        phrase: the region's.
        class_name: the segmenter's name for it.
        asked_box: the region's box, or its mask's.
        found_box: box of the component taken for this region, None if the class is nowhere.
        confidence: the class's mean probability inside that component; 0 if there is none.
        box_iou: of the two boxes; 0 if nothing was found.
        mask_iou: the class's pixels against the visible part of the region's mask; None for a region without a mask.
        bleed: share of the class's pixels outside the region; None if there are none.
        present: whether the component has at least half of the expected area.
    """

    phrase: str
    class_name: str
    asked_box: Box
    found_box: Box | None
    confidence: float
    box_iou: float
    mask_iou: float | None
    bleed: float | None
    present: bool


def match_layout(layout: Layout, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Class of every region in painter's order.

    Raises:
        SegmenterError: a phrase has no class.
    """
    return tuple(match_class(region.phrase, classes) for region in layout.sorted_regions())


def require_shape_of_canvas(height: int, width: int, layout: Layout) -> None:
    """Refuse a picture of height x width pixels that was not painted for this layout.

    Raises:
        LayoutError: another aspect ratio than the canvas has.
    """
    if not is_same_aspect(height, width, layout.height, layout.width):
        raise LayoutError(
            f"The picture is {width} x {height} pixels, which is not the shape of the layout's canvas "
            f"({layout.width} x {layout.height}). Connect the layout that this picture was painted for, or give both "
            "one aspect ratio."
        )


def score_picture(
    probabilities: Array, classes: tuple[str, ...], layout: Layout, expected_areas: Sequence[float] | None = None
) -> list[RegionScore]:
    """Score one picture, one entry per region in painter's order.

    Every region is given the largest component of its class. Regions of one class (two dogs) share out that many of
    its largest components so that the sum of their box IoUs is largest, and are one region for mask IoU and bleed.

    Args:
        probabilities: (k h w), of a `Segmenter`.
        classes: the segmenter's k names.
        layout: what was asked for.
        expected_areas: how large each region's thing should look, share of the picture, painter's order. None takes
            the visible part of its mask, or `BOX_FILL` times that of its box.

    Raises:
        SegmenterError: a phrase has no class.
        LayoutError: the picture has not the shape of the canvas, or a region's mask is empty in it.
    """
    probabilities = to_numpy(probabilities)
    labels = probabilities.argmax(0)
    height, width = labels.shape
    require_shape_of_canvas(height, width, layout)
    regions, indices = layout.sorted_regions(), match_layout(layout, classes)
    full = to_numpy(inside_of(layout.masks(*labels.shape)))
    visible = to_numpy(layout.visible_masks(*labels.shape))[1:]
    if expected_areas is None:
        fill = [1.0 if region.mask is not None else BOX_FILL for region in regions]
        expected_areas = [float(seen.mean()) * share for seen, share in zip(visible, fill, strict=True)]
    asked = [region.box if region.mask is None else outer_box(full[i]) for i, region in enumerate(regions)]
    for region, box in zip(regions, asked, strict=True):
        if box is None:
            raise LayoutError(
                f'The mask of the region "{region.phrase}" is empty at {width} x {height} pixels, so '
                "there is no place to score. Make the mask stronger or larger, or score a larger picture."
            )
    components = _share_out_components(labels, indices, asked)

    scores = []
    for i, (region, index) in enumerate(zip(regions, indices, strict=True)):
        same = [j for j, other in enumerate(indices) if other == index]
        pixels, component = labels == index, components[i]
        found = None if component is None else outer_box(component)
        has_masks = all(regions[j].mask is not None for j in same)
        scores.append(
            RegionScore(
                phrase=region.phrase,
                class_name=classes[index],
                asked_box=asked[i],
                found_box=found,
                confidence=0.0 if component is None else float(probabilities[index][component].mean()),
                box_iou=box_iou(found, asked[i]),
                mask_iou=mask_iou(pixels, visible[same].sum(0)) if has_masks else None,
                bleed=bleed(pixels, full[same].any(0)),
                present=component is not None and is_large_enough(component, expected_areas[i]),
            )
        )
    return scores


def _share_out_components(labels: np.ndarray, indices: tuple[int, ...], asked: list[Box]) -> list[np.ndarray | None]:
    """The component that each region is judged by, or None."""
    chosen: list[np.ndarray | None] = [None] * len(indices)
    for index in set(indices):
        same = [i for i, other in enumerate(indices) if other == index]
        components = largest_components(labels == index, len(same))
        if not components:
            continue
        likeness = [[box_iou(outer_box(component), asked[i]) for component in components] for i in same]
        for row, column in zip(*linear_sum_assignment(likeness, maximize=True), strict=True):
            chosen[same[row]] = components[column]
    return chosen


def score_pictures(
    images: Tensor,
    layouts: Sequence[Layout],
    segmenter: Segmenter,
    areas: Sequence[Sequence[float] | None] | None = None,
) -> list[list[RegionScore]]:
    """Score pictures (b h w 3) against one layout each; see `score_picture`."""
    areas = areas if areas is not None else [None] * len(layouts)
    return [
        score_picture(segmenter.probabilities(readable(image)[None])[0], segmenter.classes, layout, area)
        for image, layout, area in zip(images, layouts, areas, strict=True)
    ]


def summarize(pictures: Sequence[Sequence[RegionScore]]) -> dict[str, float | None]:
    """The scores of a set of pictures: means over all regions to which a score applies, AP@0.5 pooled over the set.

    Args:
        pictures: one list of region scores per picture.

    Returns:
        box_iou, ap50, mask_iou, bleed, and presence: the share of pictures in which everything asked for is present.
    """
    regions = [score for picture in pictures for score in picture]
    detections = [score for score in regions if score.found_box is not None]
    hits = [score.box_iou >= HIT_IOU for score in detections]
    return {
        "box_iou": mean_or_none(score.box_iou for score in regions),
        "ap50": average_precision([score.confidence for score in detections], hits, len(regions)),
        "mask_iou": mean_or_none(score.mask_iou for score in regions),
        "bleed": mean_or_none(score.bleed for score in regions),
        "presence": mean_or_none(all(score.present for score in picture) for picture in pictures if picture),
    }


def report(pictures: Sequence[Sequence[RegionScore]]) -> dict:
    """Everything as JSON types: the set's means (see `summarize`) and, under "regions", every score by picture."""
    return {
        "pictures": len(pictures),
        **summarize(pictures),
        "regions": [[asdict(score) for score in picture] for picture in pictures],
    }


def report_text(pictures: Sequence[Sequence[RegionScore]]) -> str:
    """The same in a few lines for a person: the means, then each region of each picture."""
    means = summarize(pictures)
    lines = ["   ".join(f"{name} {_number(value)}" for name, value in means.items())]
    for number, picture in enumerate(pictures, 1):
        head = f"picture {number}: " if len(pictures) > 1 else ""
        for score in picture:
            state = "present" if score.present else "too small" if score.found_box else "not found"
            numbers = {"box IoU": score.box_iou, "mask IoU": score.mask_iou, "bleed": score.bleed}
            shown = ", ".join(f"{name} {_number(value)}" for name, value in numbers.items())
            lines.append(f"{head}{score.phrase}: {state}, {shown}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
