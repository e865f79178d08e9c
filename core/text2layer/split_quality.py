"""Whether a picture was split well into object, background and mask: measured, with limits.

Text2Layer (arXiv 2307.09781) sorts bad samples out by two classifiers that were trained on 6000 labels made by hand.
Neither labels nor weights were released, so here are rules that measure what those labels mean. Bad mask: the object
is largely incomplete, background is included, or it is too small. Bad inpainting: an object or an artefact is in the
filled area, or it does not go with the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..layout.masks import grown, largest_components

# reconstructed: all limits. The paper's filters are trained; these were set on Sticker World's training scenes so that
# true layers pass and spoiled ones do not.
LEAST_AREA, MOST_AREA = 0.01, 0.75
MOST_CUT_OFF = 0.15
MOST_PIECES = 0.15
MOST_UNSURE = 0.5
LEAST_OUTLINE = 1.5
MOST_OPEN = 0.15
MOST_SEAM = 3.5
MOST_STRANGE = 0.08
MOST_LEFT_OVER = 0.5
LEAST_DETAIL, MOST_DETAIL = 0.2, 3.0

COVERED = 0.5  # mask value from which a pixel counts as the object's
UNSURE = (0.1, 0.9)  # mask values between these say neither object nor background
RING = 0.012  # width of the rings along an outline, in shares of the shorter side
AWAY = 0.03  # how far an outline is moved to compare, in the same unit
NEAR = 0.15  # how far around the filled area its colours are looked for, in the same unit
WEAK = 0.3  # share of an outline's median colour step below which a part of it is no edge of the picture
STRANGE = 0.12  # distance of two colours (length in RGB 0..1) from which they are strange to each other
SAMPLES = 2048  # pixels that stand for an area when colours are compared
FLAT = 0.004  # a step of one of 256 values; smaller differences are noise


@dataclass(frozen=True)
class Measure:
    """One property of a split picture.

    Attributes:
        name: short, for the report.
        value: what was measured.
        least: the limit below which it is bad; None for none.
        most: the limit above which it is bad; None for none.
        problem: what is wrong then.
    """

    name: str
    value: float
    least: float | None
    most: float | None
    problem: str

    @property
    def passed(self) -> bool:
        """Whether the value lies within its limits."""
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    def line(self) -> str:
        """The measure in one line of a report."""
        limits = [f"at least {self.least:g}"] if self.least is not None else []
        limits += [f"at most {self.most:g}"] if self.most is not None else []
        verdict = "ok" if self.passed else f"BAD: {self.problem}"
        return f"{self.name} {self.value:.3g} ({', '.join(limits)}): {verdict}"


def measure_mask(picture: Tensor, mask: Tensor) -> list[Measure]:
    """Measure a mask against its picture.

    Args:
        picture: (h w 3) in 0..1.
        mask: (h w) in 0..1, 1 on the object.

    Returns:
        area (share of the picture), cut off (share of the outline on the picture's edge), pieces (share of the object
        outside its largest piece), unsure (share of half-covered pixels), outline (colour step across the outline
        over that across the outline moved in and out; below 1 the true outline lies elsewhere), open (share of the
        outline with hardly any colour step, as where a mask cuts through an object).
    """
    inside = (mask >= COVERED).float()
    area = float(inside.mean())
    covered = mask >= UNSURE[0]
    unsure = float(((mask < UNSURE[1]) & covered).sum() / covered.sum().clamp(min=1))
    pieces = 1 - float(largest_components(inside)[0].sum() / inside.sum()) if area > 0 else 1.0
    return [
        Measure("area", area, LEAST_AREA, MOST_AREA, "the object is too small, or background is part of it"),
        Measure("cut off", _share_on_edge(inside), None, MOST_CUT_OFF, "the picture's edge cuts the object off"),
        Measure("pieces", pieces, None, MOST_PIECES, "the mask is in several pieces"),
        Measure("unsure", unsure, None, MOST_UNSURE, "the mask is half-covered nearly everywhere"),
        Measure(
            "outline", _outline(picture, inside), LEAST_OUTLINE, None, "the mask does not end where the object does"
        ),
        Measure("open", _open(picture, inside), None, MOST_OPEN, "part of the object is missing from the mask"),
    ]


def measure_background(picture: Tensor, mask: Tensor, background: Tensor, hole: Tensor) -> list[Measure]:
    """Measure a filled background.

    Args:
        picture: (h w 3) in 0..1, with the object.
        mask: (h w) in 0..1, 1 on the object.
        background: (h w 3) in 0..1, with the hole filled.
        hole: (h w), above 0 where it was filled.

    Returns:
        seam (colour step across the hole's outline over that farther out), strange (share of filled pixels with
        colours that are nowhere near), left over (likeness of the filled area's detail to the object's, -1..1),
        detail (strength of the filled area's detail over its surroundings').
    """
    filled = (hole > 0).float()
    inside = (mask >= COVERED).float()
    side = min(filled.shape)
    near = grown(filled, round(NEAR * side)) - filled
    detail, before = _detail(background, side), _detail(picture, side)
    here = _mean(detail.norm(dim=-1), filled) + FLAT
    there = _mean(detail.norm(dim=-1), near) + FLAT
    seam = (_step(background, filled) + FLAT) / (_step(background, grown(filled, round(AWAY * side))) + FLAT)
    return [
        Measure("seam", seam, None, MOST_SEAM, "the filled area does not go with what is around it"),
        Measure(
            "strange",
            _strangeness(background, filled, near),
            None,
            MOST_STRANGE,
            "the filled area has colours that are nowhere near: another object, or an artefact",
        ),
        Measure("left over", _likeness(detail, before, inside), None, MOST_LEFT_OVER, "the object is still there"),
        Measure("detail", here / there, LEAST_DETAIL, MOST_DETAIL, "the filled area is smeared or too busy"),
    ]


def is_good(measures: Sequence[Measure]) -> bool:
    """Whether all measures lie within their limits."""
    return all(measure.passed for measure in measures)


def report(pictures: Sequence[Sequence[Measure]]) -> str:
    """A line per measure of every picture, under a line that says good or bad."""
    blocks = []
    for number, measures in enumerate(pictures, start=1):
        verdict = "good" if is_good(measures) else "bad"
        blocks.append("\n".join([f"picture {number}: {verdict}", *(f"  {measure.line()}" for measure in measures)]))
    return "\n".join(blocks)


def _share_on_edge(inside: Tensor) -> float:
    """Share of an object's outline that lies on the picture's edge."""
    edge = inside[0].sum() + inside[-1].sum() + inside[:, 0].sum() + inside[:, -1].sum()
    within = (inside - grown(inside, -1)).sum()
    return float(edge / (edge + within).clamp(min=1))


def _step(picture: Tensor, inside: Tensor) -> float:
    """Mean length of the colour step across an outline."""
    return _mean(*_steps(picture, inside))


def _steps(picture: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Colour step between the means of what lies nearby on either side of an outline, and where it is: (h w) each."""
    width = max(1, round(RING * min(inside.shape)))
    inner, outer = inside - grown(inside, -width), grown(inside, width) - inside
    # Each pixel of the rings compares the inner ring with the outer one within a window around it.
    (own, own_weight), (other, other_weight) = _window_mean(picture, inner, width), _window_mean(picture, outer, width)
    weight = (inner + outer) * (own_weight > 0) * (other_weight > 0)
    return (own - other).norm(dim=-1), weight


def _window_mean(picture: Tensor, weight: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Weighted mean of a square window around every pixel: (h w c), and the mean weight (h w)."""
    values = rearrange(torch.cat([picture * weight[..., None], weight[..., None]], -1), "h w c -> 1 c h w")
    size = 2 * reach + 1
    # Along one side, then along the other: a window of n x n costs 2 n instead of n squared.
    rows = F.avg_pool2d(values, (size, 1), 1, (reach, 0), count_include_pad=False)
    sums = F.avg_pool2d(rows, (1, size), 1, (0, reach), count_include_pad=False)[0]
    # Means of zeros and ones: less than half a pixel's share is rounding.
    total = torch.where(sums[-1] > 0.5 / size**2, sums[-1], 0.0)
    return rearrange(sums[:-1] / total.clamp(min=1e-6), "c h w -> h w c"), total


def _outline(picture: Tensor, inside: Tensor) -> float:
    away = max(1, round(AWAY * min(inside.shape)))
    moved = max(_step(picture, grown(inside, away)), _step(picture, grown(inside, -away)))
    return (_step(picture, inside) + FLAT) / (moved + FLAT)


def _open(picture: Tensor, inside: Tensor) -> float:
    steps, weight = _steps(picture, inside)
    steps = steps[weight > 0]
    return float((steps < WEAK * steps.median()).float().mean()) if len(steps) else 1.0


def _mean(values: Tensor, weight: Tensor) -> float:
    return float((values * weight).sum() / weight.sum().clamp(min=1e-6))


def _detail(picture: Tensor, side: int) -> Tensor:
    """What is finer than a small window: (h w c), the picture without its local mean."""
    reach = max(1, round(RING * side))
    return picture - _window_mean(picture, torch.ones_like(picture[..., 0]), reach)[0]


def _likeness(first: Tensor, second: Tensor, inside: Tensor) -> float:
    """Correlation of two details where a mask is, -1..1."""
    first, second = first[inside > 0], second[inside > 0]
    scale = first.norm() * second.norm()
    # Two flat areas have no detail in common, whatever their rounding.
    return float((first * second).sum() / scale) if scale > len(first) * FLAT**2 else 0.0


def _strangeness(picture: Tensor, inside: Tensor, near: Tensor) -> float:
    """Share of an area's pixels with colours that are not found near it."""
    here, there = (_sampled(picture[weight > 0]) for weight in (inside, near))
    if not len(here) or not len(there):
        return 0.0
    return float((torch.cdist(here, there).amin(1) > STRANGE).float().mean())


def _sampled(colours: Tensor) -> Tensor:
    """At most `SAMPLES` of (n 3), evenly spread."""
    return colours[:: max(1, -(-len(colours) // SAMPLES))]
