"""What Compose and Conquer's pictures are judged by: depth order, depth, likeness and looks. Pure functions on arrays.

A label map says which class the segmenter sees at every pixel; shapes are the known silhouettes of what was asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ...core.scores.metrics import HIT_IOU, mask_iou

SEEN = 0.5  # share of a known shape that its class has to fill
# reconstructed: the plane of a thing that the real scene does not hold; the middle of those that Sticker World draws.
STRANGER = 0.65
# CIE 1931 XYZ of linear sRGB (IEC 61966-2-1), rows divided by the white point D65.
XYZ_OF_RGB = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
XYZ_OF_RGB /= np.array([[0.9505], [1.0], [1.089]])


@dataclass(frozen=True)
class OrderScore:
    """Whether a picture shows one thing before another.

    Attributes:
        present: both things fill at least half of what should be seen of them.
        asked: both are present, and most of where their shapes overlap is the nearer one's.
        outline: most of the overlap is whatever stands in the rest of the nearer one's shape, and something else
            stands in the rest of the other's: the order of the outlines, whichever things they have become.
    """

    present: bool
    asked: bool
    outline: bool


def judge_order(labels: np.ndarray, near: np.ndarray, far: np.ndarray, classes: tuple[int, int]) -> OrderScore:
    """Judge the depth order of two things.

    Args:
        labels: (h w), class per pixel.
        near: bool (h w), full shape of the thing that was asked for in front.
        far: bool (h w), full shape of the other; they overlap.
        classes: of the nearer and the farther thing.
    """
    overlap, near_alone, far_alone = near & far, near & ~far, far & ~near
    present = _share(labels, near, classes[0]) >= SEEN and _share(labels, far_alone, classes[1]) >= SEEN
    found = [_commonest(labels[part]) for part in (overlap, near_alone, far_alone)]
    return OrderScore(
        present=present,
        asked=present and _share(labels, overlap, classes[0]) > SEEN,
        outline=found[0] == found[1] != found[2] and 0 not in found,
    )


@dataclass(frozen=True)
class HiddenScore:
    """Whether what another thing hid is there once that one is away.

    Attributes:
        present: the thing fills at least half of what was hidden of it, and its mask IoU is that of a hit: so it is
            there and in its place, and does not merely cover it.
        shown: mask IoU of what was hidden and all that is painted of the thing, but for the part that was seen.
        something: share of what was hidden that shows any thing at all, whichever it has become.
        mask_iou: of its whole shape.
    """

    present: bool
    shown: float
    something: float
    mask_iou: float


def judge_hidden(labels: np.ndarray, shape: np.ndarray, hidden: np.ndarray, wanted: int) -> HiddenScore:
    """Judge the place of a thing that was hidden.

    Args:
        labels: (h w), class per pixel; 0 is background.
        shape: bool (h w), of the whole thing.
        hidden: bool (h w), the part of it that could not be seen.
        wanted: its class.
    """
    found = labels == wanted
    overlap = mask_iou(found, shape)
    return HiddenScore(
        present=_share(labels, hidden, wanted) >= SEEN and overlap >= HIT_IOU,
        shown=mask_iou(found & ~(shape & ~hidden), hidden),
        something=float((labels[hidden] != 0).mean()),
        mask_iou=overlap,
    )


def _share(labels: np.ndarray, part: np.ndarray, wanted: int) -> float:
    return float((labels[part] == wanted).mean())


def _commonest(labels: np.ndarray) -> int:
    return int(np.bincount(labels).argmax())


def depth_of_labels(labels: np.ndarray, planes: dict[int, float], ground: np.ndarray) -> np.ndarray:
    """Disparity of a picture, from what is seen in it and from where the real scene has it.

    Args:
        labels: (h w), class per pixel; 0 is background.
        planes: disparity of each class that the real scene holds; other things get `STRANGER`.
        ground: (h w), disparity of the background.

    Returns:
        float32 (h w) in 0..1.
    """
    table = np.full(int(labels.max()) + 1, STRANGER, np.float32)
    for index, plane in planes.items():
        if index < len(table):
            table[index] = plane
    return np.where(labels == 0, ground, table[labels]).astype(np.float32)


def feature_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Distance of pictures in a network's features, in the form of LPIPS but without its learned weights.

    Zhang et al. 2018 (arXiv 1801.03924), equation 1, with w = 1: squared distance of features that are unit vectors
    over the channels, averaged over positions. Here it is averaged over layers too, so that 0 is equal, 2 unrelated
    and 4 opposite.

    Args:
        first: features of b pictures, (b c h w) for each layer.
        second: the same of the others.

    Returns:
        (b).
    """
    layers = [
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2))
        for a, b in zip(first, second, strict=True)
    ]
    return sum(layers) / len(layers)


def lab_of_rgb(picture: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* (white D65) of uint8 sRGB (... 3)."""
    rgb = picture.astype(np.float64) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ XYZ_OF_RGB.T
    edge = 6 / 29
    f = np.where(xyz > edge**3, np.cbrt(xyz), xyz / (3 * edge**2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def colour_distance(first: np.ndarray, second: np.ndarray, where: np.ndarray) -> float | None:
    """Mean CIE 1976 colour difference of two uint8 pictures (h w 3) over a bool mask (h w); None for an empty one.

    About 2.3 is just noticeable.
    """
    if not where.any():
        return None
    difference = lab_of_rgb(first[where]) - lab_of_rgb(second[where])
    return float(np.linalg.norm(difference, axis=-1).mean())
