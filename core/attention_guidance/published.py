"""The settings that each energy of `energies` was published with: where it reads, its steps, and when they stop."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ..attention.sites import MIDDLE_AND_FIRST_UP, QUARTER
from .descent import Descent
from .energies import DEFAULT_ETA, PUBLISHED_STEPS, Maps, boxdiff, in_box_share, refocusing, sali
from .step import PLAIN, SIGMA_SQUARED
from .target import TINY, Target

STEP_TOLERANCE = 1e-6  # of a step, for shares that are not exact


@dataclass(frozen=True)
class Energy:
    """An energy with the settings that it was published with.

    Attributes:
        measure: (maps, targets, progress) -> (b); progress is the share of the run that is done, i / n at its i-th of n
            steps.
        sites: where its maps are read, as in `sites.choose_sites`.
        rule: how the gradient becomes a step, see `guidance_step`.
        schedule: (progress, the following call's progress) -> (factor on the energy, steps per model call at most).
        end: share of the run after which nothing is guided.
        threshold: steps stop once the energy is no larger.
        persists: whether an energy below the threshold ends guidance for the rest of the run, not for this call only.
        needs_all_words: whether the maps must hold every word of the prompt, not only the phrases.
        needs_self: whether it reads self-attention too, with one region per target, in their order.
        iterations: steps per model call at most in place of the schedule's, except where that rests; None: its own.
    """

    measure: Callable[[Maps, Sequence[Target], float], Tensor]
    sites: str
    rule: str
    schedule: Callable[[float, float], tuple[float, int]]
    end: float
    threshold: float = -torch.inf
    persists: bool = False
    needs_all_words: bool = False
    needs_self: bool = False
    iterations: int | None = None

    def descent(self, progress: float, following: float, strength: float = 1.0) -> Descent:
        """How a state moves down before one model call.

        Args:
            progress: share of the run that is done, 0..1.
            following: that share at the following call.
            strength: factor on the published step; at 0 nothing moves.
        """
        scale, most = self.schedule(progress, following)
        if self.iterations is not None and most:
            most = self.iterations
        return Descent(self.rule, scale, strength, most if strength else 0, self.threshold)


def _chen_schedule(progress: float, following: float) -> tuple[float, int]:
    return 30.0, 5


def _boxdiff_schedule(progress: float, following: float) -> tuple[float, int]:
    """20 sqrt(1 .. 0.5), reached at the last step; the iterative refinement of three single steps is not part of it."""
    last = 1 - (following - progress)
    return 20.0 * (1 - 0.5 * min(1.0, progress / max(TINY, last))) ** 0.5, 1


def _refocusing_schedule(progress: float, following: float) -> tuple[float, int]:
    """Strongest first; after the tenth of 50 steps only steps that cover a fifth one of the 50."""
    first, end = (share * PUBLISHED_STEPS for share in (progress, following))
    if first >= 10 - STEP_TOLERANCE and math.ceil((first - STEP_TOLERANCE) / 5) * 5 >= end - STEP_TOLERANCE:
        return 0.0, 0
    for before, scale, iterations in ((2, 4.0, 2), (5, 4.0, 6), (10, 3.0, 3), (20, 3.0, 2)):
        if first < before - STEP_TOLERANCE:
            return scale, iterations
    return 1.0, 2


CHEN, BOXDIFF, REFOCUSING, SALI = "chen", "boxdiff", "refocusing", "sali"
CHEN_END = 10 / 51  # guided steps of all, as published

ENERGIES: dict[str, Energy] = {
    CHEN: Energy(in_box_share, MIDDLE_AND_FIRST_UP, SIGMA_SQUARED, _chen_schedule, CHEN_END, 0.2, persists=True),
    BOXDIFF: Energy(boxdiff, QUARTER, PLAIN, _boxdiff_schedule, 0.5, needs_all_words=True),
    REFOCUSING: Energy(
        refocusing,
        QUARTER,
        PLAIN,
        _refocusing_schedule,
        35 / PUBLISHED_STEPS,
        0.1,
        needs_all_words=True,
        needs_self=True,
    ),
    # reconstructed: SALI's settings are not published beyond "fewer steps"; these are its base energy's. The
    # threshold is for the sum with the regulariser; at the default eta it is hardly ever reached.
    SALI: Energy(sali, MIDDLE_AND_FIRST_UP, SIGMA_SQUARED, _chen_schedule, CHEN_END, 0.2, persists=True),
}


def named_energy(name: str, eta: float = DEFAULT_ETA) -> Energy:
    """Look up an energy.

    Args:
        name: one of `ENERGIES`.
        eta: weight of SALI's regulariser; other energies have none.

    Raises:
        ValueError: an unknown name.
    """
    if name not in ENERGIES:
        raise ValueError(f'There is no energy "{name}"; known: {", ".join(ENERGIES)}.')
    energy = ENERGIES[name]
    return replace(energy, measure=partial(sali, eta=eta)) if name == SALI else energy
