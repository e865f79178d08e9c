"""The loop of a draft: Adam on a VQGAN's latent, the losses' gradients balanced against each other.

The canonical VQGAN+CLIP loop; TCIG (arXiv 2403.01212), section 3, says nothing of balancing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from einops import einsum, rearrange
from torch import Tensor

from .vqgan import VQGAN

START = "start"  # name of the loss that holds a draft to its start
# reconstructed: the paper says nothing of balancing. So often the gradients are compared, which costs a pass through
# the decoder for each term.
BALANCE_EVERY = 10
CHECK_EVERY = 10  # iterations between looks at the losses' values, for which a GPU has to be waited for
# reconstructed: a stretch of iterations whose mean loss is not lower than the one's before by this share is a plateau.
PROGRESS = 0.005

OnStep = Callable[[int, Tensor], None]  # iteration from 0, picture (1 3 h w); may raise to end the loop


class DraftError(ValueError):
    """A draft that cannot be made, or that broke."""


@dataclass
class Optimisation:
    """One latent under several losses, changed by Adam.

    Attributes:
        vqgan: paints.
        latent: (1 c h w), changed in place.
        losses: name -> loss of a picture.
        weights: name -> as given; with one for the distance from the start, behind those of the losses, if that counts.
        balanced: whether weights compare gradients with respect to the latent; see `DraftSettings`.
        hold: (1 c h w), how much the distance from the start counts.
    """

    vqgan: VQGAN
    latent: Tensor
    losses: Mapping[str, Callable[[Tensor], Tensor]]
    weights: Mapping[str, float]
    balanced: bool
    hold: Tensor
    _values: list[Tensor] = field(default_factory=list)  # (terms) of each iteration
    _factors: Tensor | None = None  # (terms) that the losses are multiplied with
    _scales: list[Tensor] = field(default_factory=list)  # (terms) logarithms of norms, of each measurement

    def __post_init__(self) -> None:
        self._start, self._spread = self.latent.detach().clone(), self.vqgan.codes.std()

    def optimise(self, iterations: int, learning_rate: float, patience: int, on_step: OnStep | None) -> bool:
        """Run; returns whether a plateau ended it."""
        low, high = self.vqgan.bounds()
        adam = torch.optim.Adam([self.latent], lr=learning_rate)
        for iteration in range(iterations):
            picture = self.vqgan.decode(self.latent)
            if on_step is not None:
                on_step(iteration, picture.detach())
            self.latent.grad = self._gradient(picture, measure=self.balanced and iteration % BALANCE_EVERY == 0)
            adam.step()
            with torch.no_grad():
                self.latent.clamp_(low, high)
            done = iteration + 1
            if done % CHECK_EVERY == 0 or done == iterations:
                self._require_finite()
                if patience and self._is_plateau(patience):
                    return done < iterations
        return False

    def _gradient(self, picture: Tensor, measure: bool) -> Tensor:
        """Of the weighted losses with respect to the latent.

        Each loss is differentiated as far as the picture, so that its graph is freed before the next one's is built;
        the decoder is gone through once for all of them.
        """
        values, gradients = [], []
        for loss in self.losses.values():
            leaf = picture.detach().requires_grad_()
            value = loss(leaf)
            values.append(value.detach())
            gradients.append(torch.autograd.grad(value, leaf)[0])
        offset = (self.latent.detach() - self._start) / self._spread
        if START in self.weights:
            values.append((self.hold * offset.square()).mean())
        self._values.append(torch.stack(values))
        if measure:
            self._measure(picture, gradients)
        elif self._factors is None:
            self._factors = self._weights_like(picture)
        together = einsum(self._factors[: len(gradients)], torch.stack(gradients), "n, n b c h w -> b c h w")
        gradient = torch.autograd.grad(picture, self.latent, together)[0]
        if START in self.weights:
            gradient = gradient + self._factors[-1] * 2 / offset.numel() * self.hold * offset / self._spread
        return gradient

    def _measure(self, picture: Tensor, gradients: Sequence[Tensor]) -> None:
        """Set the factors so that weights compare gradients with respect to the latent.

        All measurements so far count alike, in the mean of their logarithms: a term that is all but fulfilled shall not
        be blown up. One without a gradient, as CLIP's where every cut-out has reached its stop, says nothing about its
        scale and does not count; the unit is the first term that ever had one.
        """
        found = [torch.autograd.grad(picture, self.latent, each, retain_graph=True)[0].norm() for each in gradients]
        if START in self.weights:  # at a distance of one deviation
            found.append(2 * self.hold.norm() / (self._spread * self.latent.numel()))
        norms = torch.stack(found)
        self._scales.append(torch.where(norms > torch.finfo(norms.dtype).tiny, norms, torch.nan).log())
        scales = torch.stack(self._scales).nanmean(0)
        is_known = scales.isfinite()
        unit = scales[is_known.int().argmax(0, keepdim=True)]
        self._factors = self._weights_like(norms) * torch.where(is_known, unit - scales, 0.0).exp()

    def _weights_like(self, values: Tensor) -> Tensor:
        return torch.tensor(list(self.weights.values()), dtype=values.dtype, device=values.device)

    def _require_finite(self) -> None:
        recent = torch.stack(self._values[-CHECK_EVERY:])
        bad = (~recent.isfinite()).nonzero().tolist()
        if bad or not self.latent.isfinite().all():
            first = len(self._values) - len(recent) + (bad[0][0] if bad else len(recent) - 1)
            name = list(self.weights)[bad[0][1]] if bad else "latent"
            raise DraftError(
                f"The draft broke at iteration {first + 1}: the loss of {name} is not finite (NaN or infinite). Lower "
                "learning_rate, and check that the files of the VQGAN, CLIP and segmenters are whole."
            )

    def _is_plateau(self, patience: int) -> bool:
        if len(self._values) < 2 * patience:
            return False
        means = torch.stack(self._values[-2 * patience :]).unflatten(0, (2, patience)).mean(1)
        before, now = (means * self._factors).sum(1).tolist()
        return before - now < PROGRESS * abs(before)

    def history(self) -> dict[str, tuple[float, ...]]:
        """Every loss before every step, without its weight."""
        rows = rearrange(torch.stack(self._values), "i n -> n i").tolist()
        return {name: tuple(row) for name, row in zip(self.weights, rows, strict=True)}

    def factor_values(self) -> dict[str, float]:
        """The factors of the last step."""
        return dict(zip(self.weights, self._factors.tolist(), strict=True))
