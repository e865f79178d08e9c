"""What guidance did in the last runs: the energies of every step, found again by the latent that a run gave."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..attention.sites import BLOCK, CROSS, Site
from ..drawing.plots import plot_energies

KEPT_RUNS = 64


@dataclass(frozen=True)
class Measurement:
    """One evaluation of the energy.

    Attributes:
        call: of the model, counted from 1 over the run.
        sigma: noise level.
        energies: one per picture, before the step that followed.
    """

    call: int
    sigma: float
    energies: tuple[float, ...]


@dataclass
class GuidedRunLog:
    """One run of a sampler.

    Attributes:
        title: what guided it.
        threshold: energy at which steps stop; -inf: none.
        measurements: in their order.
        why_not: what it says where there are none.
        read_in: which of a transformer's blocks were read; "" for U-Nets, where the settings say it.
    """

    title: str
    threshold: float
    measurements: list[Measurement] = field(default_factory=list)
    why_not: str = "no noise level of the run lies between start and end"
    read_in: str = ""

    def note_sites(self, sites: Iterable[Site]) -> None:
        """Remember where attention was read."""
        read = sorted((site for site in sites if site.part == BLOCK and site.stream == CROSS), key=lambda s: s.number)
        if read:
            numbers, (height, width) = ", ".join(str(site.number) for site in read), read[0].grid
            self.read_in = f"blocks {numbers} of 0 to {read[0].blocks - 1}, {width} x {height}"

    def text(self) -> str:
        """Say in a line per model call how the energy fell."""
        if not self.measurements:
            return f"{self.title}: nothing was guided; {self.why_not}."
        lines = [f"{self.title}: energy per model call, mean over {len(self.measurements[0].energies)} pictures"]
        if self.read_in:
            lines.append(f"attention was read in {self.read_in}")
        calls: dict[int, list[Measurement]] = {}
        for each in self.measurements:
            calls.setdefault(each.call, []).append(each)
        for call, found in calls.items():
            means = [sum(each.energies) / len(each.energies) for each in found]
            lines.append(
                f"call {call:3d}, sigma {found[0].sigma:8.4f}: {means[0]:.4f} -> {means[-1]:.4f}, {len(found)} steps"
            )
        return "\n".join(lines)

    def plot(self) -> Tensor:
        """Draw the energy over the evaluations, a line per picture: float32 (h w 3) in 0..1."""
        calls = [each.call for each in self.measurements]
        firsts = [i for i, call in enumerate(calls) if i == 0 or calls[i - 1] != call]
        return plot_energies([each.energies for each in self.measurements], firsts, self.threshold, self.title)


# Of a latent that is not in the log.
NOT_GUIDED = GuidedRunLog(
    "Attention guidance",
    -torch.inf,
    why_not="this latent was sampled without it, with a strength of 0, or too long ago. Connect the latent output of a "
    "sampler whose model comes from Attention Guidance",
)


class GuidanceLog:
    """The last runs, by what came out of them.

    A graph may sample twice with one model, or show a result that was sampled long before; so a run is found by the
    latent that it gave, and by nothing else.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[bytes, dict[str, GuidedRunLog]] = OrderedDict()

    def keep(self, name: str, run: GuidedRunLog, result: Tensor) -> None:
        """Remember a run that has ended; older ones are forgotten.

        Args:
            name: tells two guidances of the same run apart.
            run: what happened.
            result: the latent that it gave.
        """
        key = _fingerprint(result)
        self._runs.setdefault(key, {})[name] = run
        self._runs.move_to_end(key)
        while len(self._runs) > KEPT_RUNS:
            self._runs.popitem(last=False)

    def find(self, result: Tensor) -> list[GuidedRunLog]:
        """What guided the newest run that gave this latent; empty where none did."""
        return list(self._runs.get(_fingerprint(result), {}).values())


def _fingerprint(latent: Tensor) -> bytes:
    # In half precision, because a host may hand a latent on in that.
    values = latent.detach().to("cpu", torch.float16).contiguous().numpy()
    return hashlib.blake2b(values.tobytes(), digest_size=16).digest()
