"""Stage two of TCIG (arXiv 2403.01212): how much a draft is noised before a diffusion model paints it again.

The paper starts the diffusion model from the draft instead of from pure noise and adapts this to imperfect masks. How
is not readable anywhere; here the measured fit of every region's mask decides.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import einsum
from torch import Tensor

from ..layout.layout import Layout
from ..scores.metrics import mean_or_none

# reconstructed: the paper gives no start noise level. On the tuning layouts a draft whose masks fit looks like a
# picture from 0.2 on and only loses its places beyond; flat drawings, which fit badly, are painted over fully only from
# 0.5 on and are lost beyond 0.6.
LEAST_DENOISE, MOST_DENOISE = 0.2, 0.6


@dataclass(frozen=True)
class Denoising:
    """How much noise a draft gets, as a share of the run.

    Attributes:
        least: for a region whose mask fits exactly.
        most: for a region that is nowhere.
        fixed: for the whole picture, whatever the masks; None measures.
        hold: 0: the whole picture gets the same; 1: every region gets its own, well-fitted ones less than the others.

    Raises:
        ValueError: a share outside 0..1, or `least` above `most`.
    """

    least: float = LEAST_DENOISE
    most: float = MOST_DENOISE
    fixed: float | None = None
    hold: float = 0.0

    def __post_init__(self) -> None:
        for name in ("least", "most", "fixed", "hold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; expected a share of 0 to 1.")
        if self.least > self.most:
            raise ValueError(
                f"denoise_if_fits is {self.least:g}, above denoise_if_not, which is {self.most:g}. Lower the first or "
                "raise the second."
            )

    def of(self, overlap: float) -> float:
        """Denoise for a mask IoU of 0..1, on a straight line. reconstructed: nothing more is known of it."""
        return self.most + (self.least - self.most) * overlap


@dataclass(frozen=True)
class Plan:
    """How one draft is painted again.

    Attributes:
        steps: of the run's last steps, so many are taken; 0 leaves the draft as it is.
        change: (h w) in 0..1, the share of these steps that each pixel takes part in; None where all take part in all.
    """

    steps: int
    change: Tensor | None


def plan_refinement(
    layout: Layout, overlaps: Mapping[int, float], denoising: Denoising, steps: int, height: int, width: int
) -> Plan:
    """Turn measured fits into a start level and a map of changes.

    The background has the mean of the regions' fits. A map of changes holds a pixel on the noised draft until the run
    has come down to the pixel's own level (differential diffusion, Levin and Fried 2023, arXiv 2306.00950).

    Args:
        layout: of the draft.
        overlaps: mask IoU by region in painter's order; regions that are not in it count as background.
        denoising: how fits become noise.
        steps: of a whole run from pure noise.
        height: of the map, in pixels or cells.
        width: of the map, in pixels or cells.

    Returns:
        round(denoise * steps) steps, so that noise level k0 is as in DDIM's img2img; at least one above 0.
    """
    fit = mean_or_none(overlaps.values()) or 0.0
    mean = denoising.of(fit)
    count = len(layout.regions)
    own = torch.tensor([mean, *(denoising.of(overlaps.get(i, fit)) for i in range(count))], dtype=torch.float32)
    own = mean + denoising.hold * (own - mean)
    strongest = float(own.max())
    share = strongest if denoising.fixed is None else denoising.fixed
    taken = max(1, round(share * steps)) if share > 0 else 0
    if denoising.hold == 0 or strongest == 0 or taken == 0:
        return Plan(taken, None)
    shares = (own / strongest).clamp(0, 1)
    return Plan(taken, einsum(layout.visible_masks(height, width), shares, "n h w, n -> h w").clamp(0, 1))


def refinement_report(
    layouts: Sequence[Layout],
    before: Sequence[Mapping[int, float]],
    after: Sequence[Mapping[int, float]],
    shares: Sequence[float],
) -> dict:
    """Mask IoUs of stage one beside stage two's, as JSON types.

    Args:
        layouts: one per picture.
        before: mask IoU of every draft's regions.
        after: the same of the finished pictures.
        shares: of the run that each picture was painted in.
    """
    pictures = []
    for layout, old, new, share in zip(layouts, before, after, shares, strict=True):
        phrases = [region.phrase for region in layout.sorted_regions()]
        regions = [{"phrase": phrases[i], "draft": old[i], "refined": new[i]} for i in sorted(old)]
        pictures.append({"denoise": share, "regions": regions})
    drafts, refined = ([value for each in found for value in each.values()] for found in (before, after))
    return {"draft": mean_or_none(drafts), "refined": mean_or_none(refined), "pictures": pictures}


def refinement_text(report: Mapping) -> str:
    """The same in a few lines for a person."""
    lines = [f"mask IoU: draft {report['draft']:.2f}, refined {report['refined']:.2f}"]
    for number, picture in enumerate(report["pictures"], 1):
        head = f"picture {number}, " if len(report["pictures"]) > 1 else ""
        lines.append(f"{head}denoise {picture['denoise']:.2f}")
        lines += [f"{each['phrase']}: {each['draft']:.2f} -> {each['refined']:.2f}" for each in picture["regions"]]
    return "\n".join(lines)


def report_json(report: Mapping) -> str:
    """The report as text."""
    return json.dumps(report)
