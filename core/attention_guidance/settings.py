"""What a person chooses of attention guidance, and the energy that comes of it."""

from dataclasses import dataclass, replace

from ..attention.sites import (
    FIRST_DOWN,
    FOUND,
    MIDDLE_AND_FIRST_UP,
    MIDDLE_BLOCKS,
    SHARES,
    check_choice,
)
from .energies import DEFAULT_ETA
from .published import CHEN, Energy, named_energy
from .step import RULES

ONE_GRID = (*SHARES, FOUND, MIDDLE_BLOCKS)  # places of a U-Net whose maps have one size


@dataclass(frozen=True)
class Guidance:
    """How phrases are guided to their places; None is always: as published for the energy.

    Attributes:
        energy: one of `published.ENERGIES`.
        strength: times the published factor of the energy, times each region's own strength; 0 guides nothing.
        iterations: steps per model call at most.
        start_at: share of the run in 0..1, as its host counts it, before which nothing is guided.
        end_at: after which nothing is guided.
        threshold: energy at which steps stop, of the energy without any factor.
        step_rule: one of `step.RULES`.
        sites: where maps are read, as in `sites.choose_sites`.
        eta: weight of SALI's regulariser.
        checkpointing: less memory, more time.
        prompt: in which the phrases are looked for; "" means the layout's.
    """

    energy: str = CHEN
    strength: float = 1.0
    iterations: int | None = None
    start_at: float = 0.0
    end_at: float | None = None
    threshold: float | None = None
    step_rule: str | None = None
    sites: str | None = None
    eta: float = DEFAULT_ETA
    checkpointing: bool = False
    prompt: str = ""

    def chosen_energy(self) -> Energy:
        """The energy, with what is chosen here in place of what was published.

        Raises:
            ValueError: an unknown energy, step rule or choice of attentions, attentions that the energy cannot read,
                or a range without a step.
        """
        published = named_energy(self.energy, self.eta)
        chosen = {
            "sites": self.sites,
            "rule": self.step_rule,
            "end": self.end_at,
            "threshold": self.threshold,
            "iterations": self.iterations,
        }
        energy = replace(published, **{name: value for name, value in chosen.items() if value is not None})
        check_choice(energy.sites)
        if energy.sites in (MIDDLE_AND_FIRST_UP, FIRST_DOWN):
            self.check_grids()
        if self.start_at >= energy.end:
            whose = f'the published end of "{self.energy}"' if self.end_at is None else "end_at"
            raise ValueError(
                f"start_at is {self.start_at:g}, but {whose} is {energy.end:.3g}, so nothing would be guided. Lower "
                "start_at, or set end_at to more than that."
            )
        if energy.rule not in RULES:
            raise ValueError(f'There is no step rule "{energy.rule}"; known: {", ".join(RULES)}.')
        return energy

    def check_grids(self) -> None:
        """Refuse attentions of several sizes in a U-Net for energies that average maps of one.

        Raises:
            ValueError: they cannot be averaged.
        """
        published = named_energy(self.energy, self.eta)
        sites = self.sites or published.sites
        if published.needs_all_words and sites not in ONE_GRID:
            raise ValueError(
                f'The energy "{self.energy}" averages maps of one size, but "{sites}" has several. Choose '
                f"{' or '.join(SHARES)}."
            )
