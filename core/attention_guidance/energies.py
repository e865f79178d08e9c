"""Layout energies: functions of attention maps and masks that are small where every phrase looks into its own region.

One calling shape, no state: `energy(maps, targets, progress)` gives one number per picture, differentiable in the maps.
A new energy is one function here and one line in `published.ENERGIES`, with the settings of its paper.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from torch import Tensor

from ..attention.sites import CROSS, SELF, Site
from .target import TINY, Target

Maps = Mapping[Site, Tensor]

SHARPNESS = 100.0  # BoxDiff and Attention Refocusing multiply attention by this before a second softmax over tokens
BLUR_SIGMA = 0.5  # of their 3 x 3 Gaussian, in cells
PUBLISHED_STEPS = 50.0  # of the runs in which BoxDiff and Attention Refocusing count their schedules
ALWAYS_PULL = 15 / PUBLISHED_STEPS  # Attention Refocusing: from here on only what is clearly wrong counts
# reconstructed: SALI says that it adds a regularisation term, not with which weight. At 0 it would be Chen et al.'s
# energy; at 1 it counts as much as that, for both are shares in 0..1.
DEFAULT_ETA = 1.0


def in_box_share(maps: Maps, targets: Sequence[Target], progress: float = 0.0) -> Tensor:
    """Chen et al.: (1 - share of a phrase's attention that lies in its region)^2, per head (arXiv 2304.03373).

    Args:
        maps: by site (b heads (h w) m).
        targets: the things; the mean over them, weighted.
        progress: not used.

    Returns:
        (b), 0 (all attention in place) to 1.
    """
    per_site = []
    for site, attention in _of_stream(maps, CROSS):
        terms = []
        for target in targets:
            mask = target.on(site.grid, attention).mask.flatten()
            chosen = attention[..., list(target.columns)]
            inside = einsum(chosen, mask, "b heads n m, n -> b heads m")
            share = inside / chosen.sum(-2).clamp(min=TINY)
            terms.append(target.weight * reduce((1 - share) ** 2, "b heads m -> b", "mean"))
        per_site.append(torch.stack(terms).mean(0))
    return torch.stack(per_site).mean(0)


def boxdiff(maps: Maps, targets: Sequence[Target], progress: float = 0.0) -> Tensor:
    """BoxDiff's inner-box, outer-box and corner constraints, equally weighted (arXiv 2307.10816, Eq. 2 to 6).

    A mask's corner term looks at the edges of its bounding box.

    Args:
        maps: by site (b heads (h w) m) of one grid, with every word of the prompt.
        targets: the things; their terms are summed over tokens and things.
        progress: not used.

    Returns:
        (b).
    """
    words, grid = _sharpened_words(maps)
    total = words.new_zeros(len(words))
    for target in targets:
        place = target.on(grid, words)
        for column in target.columns:
            found = words[:, column]
            inner = (1 - _strongest_mean(found, place.mask, place.inside)).clamp(min=0)
            outer = _strongest_mean(found, 1 - place.mask, place.outside)
            total = total + target.weight * (inner + outer + _corner_error(found, place.outlines))
    return total


def refocusing(maps: Maps, targets: Sequence[Target], progress: float = 0.0) -> Tensor:
    """Attention Refocusing: `cross_refocusing` plus `self_refocusing` (arXiv 2306.05427)."""
    return cross_refocusing(maps, targets, progress) + self_refocusing(maps, targets, progress)


def cross_refocusing(maps: Maps, targets: Sequence[Target], progress: float = 0.0) -> Tensor:
    """Attention Refocusing's CAR: a phrase's strongest cell lies in its region, not in another's (arXiv 2306.05427).

    Args:
        maps: by site (b heads (h w) m) of one grid, with every word of the prompt.
        targets: the things.
        progress: share of the run that is done; from `ALWAYS_PULL` on only what is clearly wrong counts.

    Returns:
        (b).
    """
    words, grid = _sharpened_words(maps)
    masks = [target.on(grid, words).mask for target in targets]
    background = 1 - torch.stack(masks).amax(0)
    always = float(progress < ALWAYS_PULL)
    total = words.new_zeros(len(words))
    for i, target in enumerate(targets):
        for column in target.columns:
            found = words[:, column]
            inside = (found * masks[i]).amax((1, 2))
            term = _step(inside.detach(), [(0.1, 6.0), (0.2, 1.0)], always) * (1 - inside)
            for other in masks[:i] + masks[i + 1 :]:
                astray = (found * other).amax((1, 2))
                term = term + _step(-astray.detach(), [(-0.15, 4.0), (-0.1, 1.0)], always) * astray
            term = term + 0.5 * (found * background).amax((1, 2))
            total = total + target.weight * term
    return total / len(targets)


def self_refocusing(maps: Maps, targets: Sequence[Target], progress: float = 0.0) -> Tensor:
    """Attention Refocusing's SAR: a region's positions look at their own region (arXiv 2306.05427).

    Args:
        maps: by site; of self-attentions (b heads (h w) o), one region per target in their order.
        targets: the things; the mean over them, weighted.
        progress: not used.

    Returns:
        (b), 0 (no self-attention leaves its region) to 1.
    """
    per_site = []
    for site, attention in _of_stream(maps, SELF):
        outside = torch.stack([1 - target.on(site.grid, attention).mask.flatten() for target in targets])
        weights = outside.new_tensor([target.weight for target in targets])
        leaving = einsum(attention, outside, "b heads n o, o n -> b heads o")
        per_site.append(reduce(weights * leaving, "b heads o -> b", "mean"))
    return torch.stack(per_site).mean(0)


def sali(maps: Maps, targets: Sequence[Target], progress: float = 0.0, eta: float = DEFAULT_ETA) -> Tensor:
    """SALI's loss with its regulariser: `in_box_share` + eta R (arXiv 2401.16157).

    reconstructed: the paper says that there is a regularisation term, not which. R is the mean over things, tokens,
    heads and sites of the strongest attention outside the region, as a share of the strongest anywhere (BoxDiff's
    outer-box term on Chen et al.'s maps). eta 0 is the base energy.

    Args:
        maps: by site (b heads (h w) m).
        targets: the things.
        progress: not used.
        eta: weight of the regulariser.

    Returns:
        (b).
    """
    base = in_box_share(maps, targets, progress)
    if eta == 0:
        return base
    per_site = []
    for site, attention in _of_stream(maps, CROSS):
        terms = []
        for target in targets:
            chosen = rearrange(attention[..., list(target.columns)], "b k (h w) m -> (b k m) h w", h=site.grid[0])
            place = target.on(site.grid, attention)
            stray = _strongest_mean(chosen, 1 - place.mask, place.outside) / chosen.amax((1, 2)).clamp(min=TINY)
            terms.append(target.weight * reduce(stray, "(b rest) -> b", "mean", b=len(attention)))
        per_site.append(torch.stack(terms).mean(0))
    return base + eta * torch.stack(per_site).mean(0)


def _of_stream(maps: Maps, stream: str) -> list[tuple[Site, Tensor]]:
    return [(site, attention) for site, attention in maps.items() if site.stream == stream]


def _sharpened_words(maps: Maps) -> tuple[Tensor, tuple[int, int]]:
    """Mean over layers and heads, sharpened by a softmax over the words, and blurred: (b m h w), and the grid."""
    found = _of_stream(maps, CROSS)
    grid = found[0][0].grid
    words = torch.stack([reduce(attention, "b heads n m -> b n m", "mean") for _, attention in found]).mean(0)
    words = rearrange((SHARPNESS * words).softmax(-1), "b (h w) m -> b m h w", h=grid[0])
    side = torch.exp(-0.5 * (torch.arange(-1.0, 2.0, device=words.device) / BLUR_SIGMA) ** 2)
    kernel = (side[:, None] * side[None] / side.sum() ** 2)[None, None].expand(words.shape[1], 1, 3, 3)
    # Reflection needs a neighbour; a grid of one row or column has none.
    mode = "reflect" if min(grid) > 1 else "replicate"
    return F.conv2d(F.pad(words, (1, 1, 1, 1), mode=mode), kernel, groups=words.shape[1]), grid


def _strongest_mean(found: Tensor, mask: Tensor, count: int) -> Tensor:
    """Mean of the strongest of a mask's cells: (b h w), (h w) -> (b)."""
    return (found * mask).flatten(1).topk(count).values.mean(1)


def _corner_error(found: Tensor, outlines: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """How far the outlines of map and mask, projected on both axes, differ near the mask's edges: (b h w) -> (b)."""
    error = found.new_zeros(len(found))
    for axis, (outline, near) in enumerate(outlines, 1):
        error = error + ((found.amax(axis) - outline).abs() * near).mean(-1)
    return error


def _step(values: Tensor, steps: Sequence[tuple[float, float]], otherwise: float) -> Tensor:
    """The weight of the first bound that a value is below."""
    weights = torch.full_like(values, otherwise)
    for bound, weight in reversed(steps):
        weights = torch.where(values < bound, weight, weights)
    return weights
