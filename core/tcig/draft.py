"""Stage one of TCIG: a VQGAN's latent is optimised until CLIP reads the prompts and segmenters see the layout.

Two-Stage Controlled Image Generation (arXiv 2403.01212), section 3: L_t = alpha_c L_clip + sum_i alpha_s,i L_seg,i over
the canonical VQGAN+CLIP loop, whose numbers these are where nothing else is said.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from einops import einsum, rearrange
from torch import Tensor

from ..clip.clip_guide import CLIPGuide
from ..weights.differentiable import differentiable, normal_copy
from .cut_outs import CutOuts
from .prompts import WeightedPrompt, prompt_loss
from .segmentation_loss import SegmentationTerm
from .vqgan import VQGAN

ITERATIONS = 500
FEW_ITERATIONS = 150  # of TCIG Draft: the embedded models' drafts change little after that
LEARNING_RATE = 0.1
# reconstructed: of TCIG Draft. With these, and flat colours to begin with, drafts look calm and like their things, not
# only to a segmenter, and stage two finds no things beside them to make more of; seen on layouts of the tuning set and
# of the workflow.
SEGMENTER_NOISE, START_WEIGHT, CLIP_WEIGHT = 0.3, 12.0, 0.5
CLIP, START = "CLIP", "start"  # names of losses
# reconstructed: the paper says nothing of balancing. So often the gradients are compared, which costs a pass through
# the decoder for each term.
BALANCE_EVERY = 10
CHECK_EVERY = 10  # iterations between looks at the losses' values, for which a GPU has to be waited for
# reconstructed: a stretch of iterations whose mean loss is not lower than the one's before by this share is a plateau.
PROGRESS = 0.005
CANONICAL = CutOuts()

OnStep = Callable[[int, Tensor], None]


class DraftError(ValueError):
    """A draft that cannot be made, or that broke."""


@dataclass(frozen=True)
class DraftResult:
    """What came out.

    Attributes:
        picture: (1 3 h w) in 0..1, on the VQGAN's device.
        latent: (1 c h/f w/f), not quantised.
        losses: for each term its unweighted loss before every step.
        factors: what each term's loss was multiplied with in the last step.
        stopped_early: whether a plateau ended it.
    """

    picture: Tensor
    latent: Tensor
    losses: dict[str, tuple[float, ...]]
    factors: dict[str, float]
    stopped_early: bool


def draft(
    vqgan: VQGAN,
    start: Tensor,
    guide: CLIPGuide | None,
    prompts: Sequence[WeightedPrompt],
    terms: Sequence[SegmentationTerm],
    *,
    seed: int,
    iterations: int = ITERATIONS,
    learning_rate: float = LEARNING_RATE,
    clip_weight: float = 1.0,
    cut_outs: CutOuts = CANONICAL,
    balanced: bool = True,
    patience: int = 0,
    segmenter_noise: float = 0.0,
    start_weight: float = 0.0,
    start_map: Tensor | None = None,
    on_step: OnStep | None = None,
) -> DraftResult:
    """Optimise one latent with Adam, keeping it inside the code-book's range. Works in inference mode too.

    Args:
        vqgan: paints; the same device as `guide` and the terms' segmenters.
        start: (1 c h w), where to begin; see `draft_starts`.
        guide: None, no prompts or a clip_weight of 0: CLIP is not asked.
        prompts: what the picture shall look like.
        terms: what lies where; none: plain VQGAN+CLIP.
        seed: of the cut-outs; on the CPU the same seed gives the same bits.
        iterations: steps of Adam, at the most.
        learning_rate: of Adam.
        clip_weight: alpha_c.
        cut_outs: what CLIP sees; all of them in one pass. Segmenters see the whole picture.
        balanced: whether a term's weight says how strong its gradient with respect to the latent is beside CLIP's
            (or the first term's, where CLIP is not asked); if not, it is alpha_s,i itself.
        patience: ends the draft when so many iterations were in the mean no better than as many before; 0: never.
        segmenter_noise: each step adds noise to what segmenters see, of a deviation drawn evenly from 0 to this.
            reconstructed: it keeps patterns away that only a segmenter sees.
        start_weight: times the mean squared distance from the start, in variances of the code-book's values; the
            canonical loop has such a term, towards 0 and fading. Balanced, its gradient at a distance of one deviation
            is so strong beside CLIP's. reconstructed: towards the start, so that what nothing asks for stays.
        start_map: (1 1 h w) in 0..1, how much each cell's distance counts; see `draft_starts.outside_regions`. None:
            all alike.
        on_step: called before every step with the iteration from 0 and the picture (1 3 h w); may raise to end it.

    Raises:
        DraftError: nothing to optimise for, wrong numbers, or the loss is not finite.
    """
    terms = [term for term in terms if term.weight]
    asks_clip = guide is not None and bool(prompts) and clip_weight != 0
    _check(iterations, learning_rate, clip_weight, patience, terms, asks_clip)
    _check_amounts(segmenter_noise=segmenter_noise, start_weight=start_weight)
    networks = [vqgan.network, *([guide.network] if asks_clip else []), *(term.segmenter.network for term in terms)]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for network in dict.fromkeys(networks):
            stack.enter_context(differentiable(network))
        stack.enter_context(torch.enable_grad())
        latent = normal_copy(start).detach().clone().requires_grad_()
        generator = torch.Generator(latent.device).manual_seed(seed)
        losses, weights = {}, {}
        if asks_clip:
            texts = guide.embed_texts([prompt.text for prompt in prompts])
            losses[CLIP] = lambda picture: prompt_loss(
                guide.embed_pictures(cut_outs(picture, guide.size, generator)), texts, prompts
            )
            weights[CLIP] = clip_weight
        for term in terms:
            target = normal_copy(term.target(vqgan.decode(latent).detach()))
            losses[term.name] = lambda picture, term=term, target=target: term.loss(
                _noised(picture, segmenter_noise, generator), target
            )
            weights[term.name] = term.weight
        if start_weight:
            weights[START] = start_weight
        hold = torch.ones_like(latent) if start_map is None else normal_copy(start_map).to(latent).expand_as(latent)
        run = _Run(vqgan, latent, losses, weights, balanced, hold)
        stopped = run.optimise(iterations, learning_rate, patience, on_step)
        with torch.no_grad():
            picture = vqgan.decode(latent)
        return DraftResult(picture, latent.detach(), run.history(), run.factor_values(), stopped)


def _check(
    iterations: int,
    learning_rate: float,
    clip_weight: float,
    patience: int,
    terms: Sequence[SegmentationTerm],
    asks_clip: bool,
) -> None:
    if iterations < 1:
        raise DraftError(f"iterations is {iterations}; expected 1 or more.")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise DraftError(f"learning_rate is {learning_rate}; expected a number above 0 such as {LEARNING_RATE}.")
    if patience < 0:
        raise DraftError(f"patience is {patience}; expected 0 (never stop early) or more.")
    for name, weight in ((CLIP, clip_weight), *((term.name, term.weight) for term in terms)):
        if not math.isfinite(weight) or weight < 0:
            raise DraftError(f"The weight of {name} is {weight}; expected a finite number, 0 or more.")
    if not asks_clip and not any(term.weight for term in terms):
        raise DraftError("There is nothing to draw for: connect a CLIP or a segmenter, and give it a weight above 0.")


def _check_amounts(**amounts: float) -> None:
    for name, amount in amounts.items():
        if not (math.isfinite(amount) and amount >= 0):
            raise DraftError(f"{name} is {amount}; expected a finite number, 0 or more.")


def _noised(picture: Tensor, most: float, generator: torch.Generator) -> Tensor:
    if not most:
        return picture
    share = torch.rand((), generator=generator, device=picture.device)
    return picture + most * share * torch.randn(picture.shape, generator=generator, device=picture.device)


@dataclass
class _Run:
    """One optimisation.

    Attributes:
        vqgan: paints.
        latent: (1 c h w), changed in place.
        losses: name -> loss of a picture.
        weights: name -> as given; with one for the distance from the start, behind those of the losses, if that counts.
        balanced: see `draft`.
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
