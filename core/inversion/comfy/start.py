"""The end of an inversion as the start of a run: as ComfyUI's LATENT, as its NOISE, and on its MODEL.

ComfyUI starts a run from `noise_scaling(sigma, noise, latent)`. For eps and v models that is latent + sqrt(1 + sigma^2)
noise at the model's highest level and latent + sigma noise below it, so a state is a LATENT without noise. For flow
models it is (1 - sigma) latent + sigma noise, and nothing of a LATENT is left at their highest level, sigma = 1: there
the MODEL hands the state over. As NOISE a state works everywhere, whatever latent is sampled with it.
"""

import math
from dataclasses import dataclass, replace

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ...comfy.entries import prepared_by
from ...comfy.guider import Prompts, plain_guider
from ...comfy.runs import Run, around_runs
from ...comfy.types import Callback, LatentFormat, Model, ModelSampling, Options
from ..inversion import renormalised, rising_sigmas
from .invert import EULER, invert_latent
from .samplers import require_deterministic

WRAPPER = "stagecraft_inverted_start"
# reconstructed: how far the level of a LATENT may be from the one that a run starts at. A sampler that expects a
# hundredth more noise than there is paints a picture that nobody can tell from the right one.
LEVEL_TOLERANCE = 0.01
# reconstructed: how many times the model's lowest level a schedule may end at. The first step of an inversion goes from
# the picture to there at once; farther up, it would follow one guess of the model instead of its curve.
HIGHEST_END = 3.0


@dataclass(frozen=True, eq=False)
class InvertedStart:
    """Where an inversion ended.

    Attributes:
        state: (b c h w) or (b c t h w), in the model's own scale.
        sigma: (), its noise level.
        sampling: the model's `model_sampling`.
        latent_format: the model's.
    """

    state: Tensor
    sigma: Tensor
    sampling: ModelSampling
    latent_format: LatentFormat

    @classmethod
    def of(cls, model: Model, state: Tensor, sigma: Tensor) -> "InvertedStart":
        """Take what is needed of the model."""
        sampling, latent_format = (model.get_model_object(name) for name in ("model_sampling", "latent_format"))
        return cls(state.detach().float().cpu(), sigma.detach().float().cpu(), sampling, latent_format)

    def latent(self) -> Tensor:
        """What a sampler has to be given as latent, without noise: shaped as the state."""
        share = self.latent_share()
        return self.latent_format.process_out(self.state / share if share > 0 else self.state)

    def noise(self, latent: Tensor, rows: list[int] | None = None) -> Tensor:
        """What a sampler has to be given as noise to start exactly here.

        Args:
            latent: (b' c h w) that is sampled with it, empty or not; has more or fewer rows than the state where
                states repeat.
            rows: of the state, one for each of the latent's; None repeats them in turn.

        Raises:
            ValueError: a latent of another shape.
        """
        state = self._rows(latent, rows)
        latent = latent.to(state)
        if latent.any():  # as ComfyUI has it: an empty latent is not shifted
            latent = self._mixed(torch.zeros_like(state), self.latent_format.process_in(latent))
        return (state - latent) / self.deviation()

    def deviation(self) -> Tensor:
        """Deviation that pure noise has at this level, ()."""
        return self._mixed(torch.ones(()), torch.zeros(()))

    def _rows(self, latent: Tensor, rows: list[int] | None) -> Tensor:
        if latent.shape[1:] != self.state.shape[1:]:
            found, expected = ("x".join(map(str, x.shape[1:])) for x in (latent, self.state))
            raise ValueError(
                f"The latent of the run is {found} (channels, then cells), but the inversion is {expected}. Give the "
                "empty latent the size of the picture that was inverted."
            )
        return self.state[[row % len(self.state) for row in (rows or range(len(latent)))]]

    def _mixed(self, noise: Tensor, latent: Tensor) -> Tensor:
        highest = float(self.sampling.sigma_max)
        at_most = math.isclose(highest, float(self.sigma), rel_tol=1e-5) or float(self.sigma) > highest
        sampling = self.sampling
        return sampling.noise_scaling(self.sigma.to(noise), noise, latent, at_most)

    def latent_share(self) -> float:
        """Share of a LATENT that is left in a state at this level; 0 for pure noise of a flow model."""
        return float(self._mixed(torch.zeros(()), torch.ones(())))


@dataclass(frozen=True, eq=False)
class InvertedNoise:
    """ComfyUI's NOISE: starts a run of SamplerCustomAdvanced where an inversion ended.

    Attributes:
        start: where that is.
        seed: of a sampler that adds noise on its way, if one follows.
    """

    start: InvertedStart
    seed: int = 0

    def generate_noise(self, input_latent: Options) -> Tensor:
        """Give the noise for a LATENT, empty or not; a part of a batch gets its own rows."""
        return self.start.noise(input_latent["samples"], input_latent.get("batch_index"))


def falling_levels(model: Model, scheduler: str, steps: int) -> Tensor:
    """Noise levels of a scheduler as a sampler gets them, (steps + 1), falling.

    Raises:
        ValueError: more steps than the model has noise levels.
    """
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)
    if len(sigmas) < 2 or not bool((sigmas.diff() < 0).all()):
        raise ValueError(
            f'The scheduler "{scheduler}" has no {steps} different noise levels for this model. Lower steps.'
        )
    return sigmas


@dataclass(frozen=True)
class Inversion:
    """How a picture is inverted to the start of a run.

    Attributes:
        method: see `invert_latent`.
        refinements: see `invert`.
        forward_noise_first_k: so many of the first steps, the least noisy ones, are replaced by ordinary noising
            (Staniszewski et al., arXiv 2410.23530: these steps leave too little noise in plain areas); all of them
            make it plain noising, the SDE start that SALI is compared with.
        renormalise: see `renormalised`.
        seed: of the noise of the replaced steps.
    """

    method: str = EULER
    refinements: int = 0
    forward_noise_first_k: int = 0
    renormalise: bool = False
    seed: int = 0


PLAIN_INVERSION = Inversion()


def invert_to_start(
    model: Model,
    prompts: Prompts,
    latent: Tensor,
    sigmas: Tensor,
    how: Inversion = PLAIN_INVERSION,
    *,
    callback: Callback | None = None,
    disable_pbar: bool = False,
) -> InvertedStart:
    """Invert latents to the first level of a sampler's schedule.

    Args:
        model: the model that shall paint the picture again.
        prompts: of the picture.
        latent: (b c h w) or (b c t h w) as a VAE gives it.
        sigmas: (s), falling, as the sampler will have them.
        how: it is inverted.
        callback: called after every step.
        disable_pbar: show no progress bar on the console.

    Raises:
        ValueError: an empty latent, a prompt that another node of ours has prepared for its own run, a schedule that
            does not fall or ends far above 0, or more replaced steps than there are.
    """
    if not latent.any():
        raise ValueError("The latent is empty. Connect the latent of a picture, from VAE Encode.")
    for name, prompt in (("positive", prompts.positive), ("negative", prompts.negative or [])):
        if node := prepared_by(prompt):
            raise ValueError(
                f"The {name} prompt comes from {node}, which has shared it out among the parts of a run; an inversion "
                f"needs one for the whole picture. Connect the prompt's own CONDITIONING, before {node}; the model and "
                f"the prompts of {node} go to the sampler."
            )
    if prompts.cfg != 1 and prompts.negative is None:
        raise ValueError(f"cfg is {prompts.cfg:g}, which needs a negative prompt. Connect one, or set cfg to 1.")
    rising, replaced = rising_sigmas(sigmas), how.forward_noise_first_k
    steps = len(rising) - 1
    if not 0 <= replaced <= steps:
        raise ValueError(
            f"forward_noise_first_k is {replaced}, but the schedule has {steps} steps. Lower it, or raise steps."
        )
    if not replaced:
        _check_end(model, sigmas)
    states = invert_latent(
        model,
        prompts,
        latent,
        rising[replaced:],
        refinements=how.refinements,
        noise=comfy.sample.prepare_noise(latent, how.seed) if replaced else None,
        method=how.method,
        callback=callback,
        disable_pbar=disable_pbar,
    )
    start = InvertedStart.of(model, states[-1], rising[-1])
    return replace(start, state=renormalised(start.state, start.deviation())) if how.renormalise else start


def _check_end(model: Model, sigmas: Tensor) -> None:
    last, lowest = float(sigmas[-1]), float(model.get_model_object("model_sampling").sigma_min)
    if last > HIGHEST_END * lowest:
        raise ValueError(
            f"The noise levels end at {last:.4g}, but an inversion begins with a picture without noise, and the "
            f"model's lowest level is {lowest:.4g}. Connect a schedule that falls to 0: the whole one, or the "
            "low_sigmas of SplitSigmas in place of its high_sigmas."
        )


def start_runs(model: Model, start: InvertedStart, *, refuse_noise: bool) -> Model:
    """Give a clone of the model that knows the start, and looks after the runs that begin there.

    A run begins there if its noise is what `InvertedNoise` gives, or if it has no noise and the latent is the start's.
    Such a run is checked; for a flow model the LATENT becomes the start that it cannot be by itself. Every other run
    of the model, such as a second pass, is left alone.

    Args:
        model: as it will be sampled with.
        start: where an inversion ended.
        refuse_noise: whether a sampler that adds fresh noise is refused.
    """

    def begin(run: Run) -> Tensor:
        by_latent = _is_latent_of(start, run.noise, run.latent)
        if refuse_noise and (by_latent or _is_noise_of(start, run.noise, run.latent)):
            require_deterministic(run.sampler, "the run")
        if not by_latent:
            return run.go()
        _check_level(start, run.sigmas)
        return run.go(noise=start.noise(run.latent).to(run.noise)) if start.latent_share() == 0 else run.go()

    # Each of several starts on one model: a run begins at one of them at most.
    return around_runs(model, WRAPPER, begin, beside="add")


def _is_latent_of(start: InvertedStart, noise: Tensor, latent: Tensor) -> bool:
    if noise.any() or latent.shape[1:] != start.state.shape[1:]:
        return False
    own = start.latent()
    return torch.equal(latent.to(own), own[[row % len(own) for row in range(len(latent))]])


def _is_noise_of(start: InvertedStart, noise: Tensor, latent: Tensor) -> bool:
    if latent.shape[1:] != start.state.shape[1:]:
        return False
    own = start.noise(latent)
    return torch.equal(noise.to(own), own)


def _check_level(start: InvertedStart, sigmas: Tensor) -> None:
    if abs(float(sigmas[0]) - float(start.sigma)) > LEVEL_TOLERANCE * float(start.sigma):
        raise ValueError(
            f"The inversion ends at noise level {float(start.sigma):.4g}, but the run starts at {float(sigmas[0]):.4g}."
            " Give both the same scheduler; set denoise to 1 and start_at_step to 0, or connect the run's SIGMAS to "
            "the inversion."
        )


def reconstruct(
    model: Model,
    start: InvertedStart,
    sigmas: Tensor,
    prompts: Prompts,
    callback: Callback | None = None,
    disable_pbar: bool = False,
) -> Tensor:
    """Sample back from an inversion with Euler's method and the model alone.

    Args:
        model: that was inverted with.
        start: where the inversion ended.
        sigmas: (s), falling, from the start's level.
        prompts: of the inversion.
        callback: called after every step.
        disable_pbar: show no progress bar on the console.

    Returns:
        (b c h w), as a VAE decodes it.
    """
    empty, euler = torch.zeros_like(start.state), comfy.samplers.sampler_object("euler")
    how = {"callback": callback, "disable_pbar": disable_pbar, "seed": 0}
    samples = plain_guider(model, prompts).sample(start.noise(empty), empty, euler, sigmas, **how)
    return samples.to(comfy.model_management.intermediate_device())
