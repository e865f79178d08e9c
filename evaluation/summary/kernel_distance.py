"""Kernel inception distance of CLIP's features: torch-fidelity's on subsets, and the same estimate for any draw.

Binkowski et al. 2018, "Demystifying MMD GANs". The kernel is (x.y / d + 1)^3, the estimator unbiased, so that small
values may be negative. torch-fidelity 0.4 has both and takes features as they are; torchmetrics has them too, but wants
a network that makes the features of pictures, and brings a framework with it.
"""

import numpy as np
import torch

from ...core.layout.masks import Array, to_numpy

KID_PICTURES = 200  # fewer give no KID: the estimate is then wider than what it tells apart
SUBSETS, SUBSET_SIZE = 100, 100
SEED = 2020


def scaled(features: Array) -> np.ndarray:
    """Unit vectors (b d) at the length of d independent unit normals, float64.

    reconstructed: the kernel's 1/d expects such lengths; it becomes (cosine + 1)^3 instead of almost constant.
    """
    vectors = to_numpy(features).astype(np.float64)
    return vectors * vectors.shape[1] ** 0.5


def kid(features: Array, real_features: Array) -> float | None:
    """Mean KID over random subsets.

    Args:
        features: (m d) unit vectors, of the pictures under test.
        real_features: (n d), of real pictures.

    Returns:
        None if one side has fewer than `KID_PICTURES`.
    """
    if min(len(features), len(real_features)) < KID_PICTURES:
        return None
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric  # slow to import

    both = (torch.from_numpy(scaled(each)) for each in (features, real_features))
    settings = {"kid_subsets": SUBSETS, "kid_subset_size": SUBSET_SIZE, "rng_seed": SEED, "verbose": False}
    return kid_features_to_metric(*both, **settings)[KEY_METRIC_KID_MEAN]


class DrawnKID:
    """The same distance for draws of pictures with repetition, of all of them at once instead of subsets.

    A picture that is drawn twice is not compared with itself, as in the unbiased estimate. The real pictures stay the
    same ones in every draw.

    Args:
        features: (m d) unit vectors, of the pictures under test.
        real_features: (n d), of real pictures.
    """

    def __init__(self, features: Array, real_features: Array) -> None:
        x, y = scaled(features), scaled(real_features)
        self._ours = _kernel(x, x)
        np.fill_diagonal(self._ours, 0.0)
        self._across = _kernel(x, y).mean(1)
        theirs = _kernel(y, y)
        self._theirs = (theirs.sum() - np.trace(theirs)) / (len(y) * (len(y) - 1))

    def of(self, times: np.ndarray) -> np.ndarray:
        """The distance of each draw.

        Args:
            times: (r m), how often each picture is drawn.

        Returns:
            (r); NaN where a draw has no two different pictures.
        """
        drawn = times.sum(1)
        pairs = drawn**2 - (times**2).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ours = ((times @ self._ours) * times).sum(1) / pairs
            return ours + self._theirs - 2 * (times @ self._across) / drawn


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3
