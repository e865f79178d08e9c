"""Layout and picture scores: pure functions on label maps, masks, boxes and feature vectors.

Shapes are in einops notation. Boxes are (x0, y0, x1, y1) in 0..1. Masks may be soft: everywhere in this file a pixel
belongs to a mask when it is inside of it (`masks.inside_of`). A score that does not apply is None, never NaN.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from ..layout.masks import Array, Box, inside_of, largest_components, to_numpy

HIT_IOU = 0.5  # box IoU from which a detection counts in AP@0.5
PRESENT_SHARE = 0.5  # share of the expected area that one component must reach


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """Mean of the values that apply, or None if none does."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def box_iou(first: Box | None, second: Box | None) -> float:
    """Intersection over union of two boxes; 0 where one is missing or both are empty."""
    if first is None or second is None:
        return 0.0
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - shared
    return shared / union if union > 0 else 0.0


def mask_iou(found: Array, asked: Array) -> float | None:
    """Intersection over union of two masks (h w), each as what is inside of it; None if both are empty."""
    found, asked = to_numpy(inside_of(found)), to_numpy(inside_of(asked))
    union = np.count_nonzero(found | asked)
    return np.count_nonzero(found & asked) / union if union else None


def bleed(found: Array, region: Array) -> float | None:
    """Share of a concept's pixels that lie outside its region.

    Args:
        found: (h w), every pixel of the concept's class, not only its largest component.
        region: (h w), where the concept was asked for.

    Returns:
        0 (all inside) .. 1 (all outside); None if the concept is nowhere.
    """
    found, region = to_numpy(inside_of(found)), to_numpy(inside_of(region))
    pixels = np.count_nonzero(found)
    return np.count_nonzero(found & ~region) / pixels if pixels else None


def is_present(labels: Array, class_index: int, expected_area: float) -> bool:
    """The strict judge: whether one component of the class has at least half the expected area.

    Args:
        labels: (h w), class per pixel.
        class_index: the class looked for.
        expected_area: share of the picture, 0..1.
    """
    labels = to_numpy(labels)
    components = largest_components(labels == class_index)
    return bool(components) and is_large_enough(components[0], expected_area)


def is_large_enough(component: Array, expected_area: float) -> bool:
    """Whether a component (h w) covers at least `PRESENT_SHARE` of the expected share of the picture."""
    return float(to_numpy(inside_of(component)).mean()) >= PRESENT_SHARE * expected_area


def average_precision(confidences: Sequence[float], hits: Sequence[bool], truths: int) -> float | None:
    """Average precision with all-point interpolation (PASCAL VOC from 2010 on), pooled over a whole set.

    Detections are taken from the most to the least confident; equal confidences keep the given order. Precision at a
    recall is the best precision at this or any higher recall, and the area under that curve is the result.

    Args:
        confidences: one per detection.
        hits: whether that detection found its object (box IoU of at least `HIT_IOU` for AP@0.5). The caller gives
            each object at most one hit.
        truths: number of objects asked for, found or not.

    Returns:
        0..1, or None if nothing was asked for.

    Raises:
        ValueError: the lists differ in length, or there are more hits than objects.
    """
    if len(confidences) != len(hits) or sum(map(bool, hits)) > truths:
        raise ValueError(
            f"average precision got {len(confidences)} confidences, {len(hits)} detections with "
            f"{sum(map(bool, hits))} hits, and {truths} objects; it expects one confidence per detection and at most "
            "one hit per object"
        )
    if truths == 0:
        return None
    order = np.argsort(-np.asarray(confidences, float), kind="stable")
    found = np.asarray(hits, bool)[order]
    precision = np.cumsum(found) / np.arange(1, len(found) + 1)
    best_from_here_on = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here_on[found].sum() / truths)


def peak_in_mask(attention: Array, mask: Array) -> bool | None:
    """Whether the largest value of an attention map (h w) lies inside a mask of the same grid; None for no mask."""
    attention, inside = to_numpy(attention), to_numpy(inside_of(mask))
    if attention.shape != inside.shape:
        raise ValueError(f"the attention map is {attention.shape} and the mask {inside.shape}; both must be one grid")
    return bool(inside.ravel()[attention.argmax()]) if inside.any() else None


def mean_class_iou(found: Array, truth: Array, classes: int, of: Sequence[int] | None = None) -> float | None:
    """Mean IoU of a segmenter: intersections and unions pooled over all pictures, averaged over the classes seen.

    Args:
        found: (b h w), class per pixel.
        truth: (b h w).
        classes: number of classes; those in neither `found` nor `truth` are left out.
        of: classes that the mean is over, where `found` may have others, which are then wrong; None: all.
    """
    pairs = to_numpy(truth).astype(np.int64).ravel() * classes + to_numpy(found).astype(np.int64).ravel()
    confusion = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    shared = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - shared
    counted = np.flatnonzero(union) if of is None else [index for index in of if union[index]]
    return mean_or_none((shared[counted] / union[counted]).tolist())


def clip_similarity(image_features: Array, text_features: Array) -> float | None:
    """Mean cosine between pictures and their prompts.

    Args:
        image_features: (b d), unit vectors.
        text_features: (b d), unit vectors, row i belongs to picture i.
    """
    images, texts = to_numpy(image_features), to_numpy(text_features)
    if images.shape != texts.shape:
        raise ValueError(f"{images.shape} picture features do not pair with {texts.shape} text features")
    return float((images * texts).sum(-1).mean()) if len(images) else None


def retrieval_accuracy(image_features: Array, text_features: Array, choices: int) -> float | None:
    """How often a picture's own caption is its nearest among `choices`; consecutive rows form the groups.

    Args:
        image_features: (b d), unit vectors.
        text_features: (b d), unit vectors, row i belongs to picture i.
        choices: size of a group; rows that fill no whole group are left out.
    """
    images, texts = to_numpy(image_features), to_numpy(text_features)
    right = []
    for start in range(0, len(images) - choices + 1, choices):
        group = slice(start, start + choices)
        nearest = (images[group] @ texts[group].T).argmax(1)
        right.extend((nearest == np.arange(choices)).tolist())
    return mean_or_none(right)
