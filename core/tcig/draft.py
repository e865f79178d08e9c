"""Stage one of TCIG: a VQGAN's latent is optimised until CLIP reads the prompts and segmenters see the layout.

Two-Stage Controlled Image Generation (arXiv 2403.01212), section 3: L_t = alpha_c L_clip + sum_i alpha_s,i L_seg,i over
the canonical VQGAN+CLIP loop, whose numbers these are where nothing else is said.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from ..clip.clip_guide import CLIPGuide
from ..weights.differentiable import differentiable, normal_copy
from .cut_outs import CutOuts
from .optimisation import START, DraftError, OnStep, Optimisation
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
CLIP = "CLIP"  # name of a loss
CANONICAL = CutOuts()


def require_amount(what: str, amount: float) -> None:
    """Refuse an amount that is negative or not finite.

    Raises:
        DraftError: it is.
    """
    if not (math.isfinite(amount) and amount >= 0):
        raise DraftError(f"{what} is {amount}; expected a finite number, 0 or more.")


@dataclass(frozen=True)
class DraftSettings:
    """How a draft is optimised; the defaults are those of the canonical loop.

    Attributes:
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

    Raises:
        DraftError: numbers that cannot be meant.
    """

    iterations: int = ITERATIONS
    learning_rate: float = LEARNING_RATE
    clip_weight: float = 1.0
    cut_outs: CutOuts = CANONICAL
    balanced: bool = True
    patience: int = 0
    segmenter_noise: float = 0.0
    start_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise DraftError(f"iterations is {self.iterations}; expected 1 or more.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise DraftError(
                f"learning_rate is {self.learning_rate}; expected a number above 0 such as {LEARNING_RATE}."
            )
        if self.patience < 0:
            raise DraftError(f"patience is {self.patience}; expected 0 (never stop early) or more.")
        require_amount(f"The weight of {CLIP}", self.clip_weight)
        require_amount("segmenter_noise", self.segmenter_noise)
        require_amount("start_weight", self.start_weight)


PUBLISHED = DraftSettings()


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
    settings: DraftSettings = PUBLISHED,
    *,
    seed: int,
    start_map: Tensor | None = None,
    on_step: OnStep | None = None,
) -> DraftResult:
    """Optimise one latent with Adam, keeping it inside the code-book's range. Works in inference mode too.

    Args:
        vqgan: paints; the same device as `guide` and the terms' segmenters.
        start: (1 c h w), where to begin; see `starts`.
        guide: None, no prompts or a clip_weight of 0: CLIP is not asked.
        prompts: what the picture shall look like.
        terms: what lies where; none: plain VQGAN+CLIP.
        settings: of the loop.
        seed: of the cut-outs; on the CPU the same seed gives the same bits.
        start_map: (1 1 h w) in 0..1, how much each cell's distance from the start counts; see
            `starts.outside_regions`. None: all alike.
        on_step: called before every step with the iteration from 0 and the picture (1 3 h w); may raise to end it.

    Raises:
        DraftError: nothing to optimise for, wrong weights, or the loss is not finite.
    """
    terms = [term for term in terms if term.weight]
    asks_clip = guide is not None and bool(prompts) and settings.clip_weight != 0
    for term in terms:
        require_amount(f"The weight of {term.name}", term.weight)
    if not asks_clip and not terms:
        raise DraftError("There is nothing to draw for: connect a CLIP or a segmenter, and give it a weight above 0.")
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
                guide.embed_pictures(settings.cut_outs(picture, guide.size, generator)), texts, prompts
            )
            weights[CLIP] = settings.clip_weight
        for term in terms:
            target = normal_copy(term.target(vqgan.decode(latent).detach()))
            losses[term.name] = lambda picture, term=term, target=target: term.loss(
                _noised(picture, settings.segmenter_noise, generator), target
            )
            weights[term.name] = term.weight
        if settings.start_weight:
            weights[START] = settings.start_weight
        hold = torch.ones_like(latent) if start_map is None else normal_copy(start_map).to(latent).expand_as(latent)
        run = Optimisation(vqgan, latent, losses, weights, settings.balanced, hold)
        stopped = run.optimise(settings.iterations, settings.learning_rate, settings.patience, on_step)
        with torch.no_grad():
            picture = vqgan.decode(latent)
        return DraftResult(picture, latent.detach(), run.history(), run.factor_values(), stopped)


def _noised(picture: Tensor, most: float, generator: torch.Generator) -> Tensor:
    if not most:
        return picture
    share = torch.rand((), generator=generator, device=picture.device)
    return picture + most * share * torch.randn(picture.shape, generator=generator, device=picture.device)
