"""What Text2Layer's pictures and autoencoders are judged by. Pure functions on arrays, pictures in 0..1."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...core.layout.masks import Array, to_numpy
from ...core.scores.metrics import is_present, mask_iou
from ..summary.bootstrap import LEVEL, SEED
from ..summary.estimate import Estimate

FULL = 1e-12  # squared error below which a picture is the same; its PSNR is then cut off at 120 dB
FRECHET_DRAWS = 1000  # each takes two decompositions


def frechet_distance(features: Array, real_features: Array) -> float | None:
    """Squared Frechet distance of the normal distributions that fit two sets of features.

    Heusel et al. 2017 (arXiv 1706.08500), equation 6: |m - n|^2 + tr(C + D - 2 (C D)^(1/2)).

    Args:
        features: (m d), of the pictures under test.
        real_features: (n d), of real pictures.

    Returns:
        None if one side has fewer than two samples. It is larger for fewer samples: compare sets of one size.
    """
    if len(features) < 2 or len(real_features) < 2:
        return None
    return DrawnFrechet(real_features).of(to_numpy(features).astype(np.float64))


class DrawnFrechet:
    """That distance from the same real features, for one draw of pictures after the other.

    Args:
        real_features: (n d), of real pictures.
    """

    def __init__(self, real_features: Array) -> None:
        real = to_numpy(real_features).astype(np.float64)
        self._mean, self._covariance = real.mean(0), np.atleast_2d(np.cov(real, rowvar=False))
        values, vectors = np.linalg.eigh(self._covariance)
        self._root = (vectors * np.sqrt(values.clip(0))) @ vectors.T

    def of(self, features: np.ndarray, times: np.ndarray | None = None) -> float:
        """The distance.

        Args:
            features: (m d), float64, of the pictures under test.
            times: (m), how often each picture is drawn; once, if nothing is said.
        """
        mean = np.average(features, 0, times)
        found = np.atleast_2d(np.cov(features, rowvar=False, fweights=times))
        # The trace of (C D)^(1/2) is that of (C^(1/2) D C^(1/2))^(1/2), which is symmetric.
        shared = np.sqrt(np.linalg.eigvalsh(self._root @ found @ self._root).clip(0)).sum()
        apart = np.square(mean - self._mean).sum()
        return float(apart + np.trace(found) + np.trace(self._covariance) - 2 * shared)


def frechet_ratio(ours: np.ndarray, theirs: np.ndarray, real_features: np.ndarray) -> Estimate:
    """One distance over another, of pictures of the same prompts, with an interval over prompts.

    A draw has fewer different pictures than the set, which raises either distance and moves their ratio; so the draws
    are moved back by as much as their mean lies beside the value (bias-corrected percentiles).

    Args:
        ours: (m d), features of pictures.
        theirs: (m d), of others of the same prompts.
        real_features: (n d), of real pictures.
    """
    distance, both = DrawnFrechet(real_features), [each.astype(np.float64) for each in (ours, theirs)]
    first, second = (distance.of(each) for each in both)
    rng, number = np.random.default_rng(SEED), len(ours)
    drawn = rng.multinomial(number, np.full(number, 1 / number), FRECHET_DRAWS)
    ratios = np.array([distance.of(both[0], times) / distance.of(both[1], times) for times in drawn])
    value = first / second
    ends = np.percentile(ratios, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]) + value - ratios.mean()
    return Estimate.of(value, *ends)


def psnr(found: np.ndarray, true: np.ndarray, weight: np.ndarray | None = None) -> float | None:
    """Peak signal-to-noise ratio in dB of a picture (h w c) in 0..1, of the weighted (h w) part of it.

    None where nothing has weight.
    """
    error = np.square(found.astype(np.float64) - true).mean(-1)
    weight = np.ones(error.shape) if weight is None else weight.astype(np.float64)
    if not weight.sum() > 0:
        return None
    return float(-10 * np.log10(max((error * weight).sum() / weight.sum(), FULL)))


@dataclass(frozen=True)
class TwoLayers:
    """A foreground over a background.

    Attributes:
        foreground: straight colour, float32 (h w 3) in 0..1.
        background: (h w 3).
        mask: (h w), 1 where the foreground is opaque.
    """

    foreground: np.ndarray
    background: np.ndarray
    mask: np.ndarray

    def composite(self) -> np.ndarray:
        """I = m F + (1 - m) B, float32 (h w 3)."""
        mask = self.mask[..., None]
        return mask * self.foreground + (1 - mask) * self.background


@dataclass(frozen=True)
class Likeness:
    """How near decoded layers come to the encoded ones: PSNR in dB, and the mask's IoU; None where nothing is there."""

    foreground: float | None
    background: float | None
    composite: float | None
    mask: float | None


def likeness(found: TwoLayers, true: TwoLayers) -> Likeness:
    """Compare decoded layers with the encoded ones; the foreground only inside the true mask, where it is seen."""
    return Likeness(
        psnr(found.foreground, true.foreground, true.mask),
        psnr(found.background, true.background),
        psnr(found.composite(), true.composite()),
        mask_iou(found.mask, true.mask),
    )


def own_layers(labels: Sequence[np.ndarray], classes: Sequence[int], areas: Sequence[float]) -> list[bool]:
    """Whether each thing is in the layer that is its own.

    Args:
        labels: of each layer alone before grey, class per pixel (h w).
        classes: of each layer's thing.
        areas: share of the picture that each is expected to cover at least half of.
    """
    return [is_present(*each) for each in zip(labels, classes, areas, strict=True)]
