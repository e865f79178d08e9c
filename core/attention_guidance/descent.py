"""The published loop of layout guidance: before a sampler's step its state moves down an energy, x <- x - step.

The backward guidance of Chen et al. (arXiv 2304.03373), z_t <- z_t - sigma_t^2 eta grad E; SALI (arXiv 2401.16157, its
attention guidance), BoxDiff and Attention Refocusing go the same way with energies, step sizes and stops of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .step import guidance_step

Measure = Callable[[Tensor], tuple[Tensor, Tensor]]  # state (b ...) -> energy (b), its gradient g (b ...)
Report = Callable[[Tensor], None]  # energy (b)


@dataclass(frozen=True)
class Descent:
    """How a state moves before one step of a sampler.

    Attributes:
        rule: how a gradient becomes a step, see `guidance_step`.
        scale: published factor of the energy.
        strength: the user's own factor.
        iterations: how often it moves at most.
        threshold: a picture whose energy is no larger, without any factor, moves no more.
    """

    rule: str
    scale: float
    strength: float
    iterations: int
    threshold: float


def descend(
    x: Tensor,
    signal: float,
    noise: float,
    measure: Measure,
    how: Descent,
    energy: Tensor | None = None,
    *,
    unit: float = 1.0,
    report: Report = lambda energy: None,
) -> tuple[Tensor, Tensor]:
    """Move a state down an energy, each picture until it is low enough: x <- x - step(g), g = dE/dx.

    Args:
        x: (b ...), the sampler's state.
        signal: a, the state is a x0 + b eps.
        noise: b.
        measure: energy and gradient at a state, float32; whoever can be interrupted looks for that in here.
        how: steps, and when they stop.
        energy: (b), what an earlier call has found; a picture that was low enough then stays. None: not known.
        unit: the state is unit (a x0 + b eps), while gradients and steps are those of a x0 + b eps.
        report: told the energies after every step.

    Returns:
        The state, and every picture's energy before its last step; inf where there was none.
    """
    energy = x.new_full((len(x),), torch.inf, dtype=torch.float32) if energy is None else energy
    for _ in range(how.iterations):
        moving = energy > how.threshold
        if not bool(moving.any()):
            break
        found, g = measure(x)
        step = unit * guidance_step(g, signal, noise, how.rule, how.scale, how.strength)
        x = torch.where(moving.reshape(-1, *(1,) * (x.ndim - 1)), x - step.to(x.dtype), x)
        energy = torch.where(moving, found, energy)
        report(energy)
    return x, energy
