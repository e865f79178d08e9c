"""The noise that a sampler adds on its way, where its run is sampled in pieces: one run has one noise at each step."""

import inspect
from collections.abc import Callable
from types import FunctionType

import comfy.k_diffusion.sampling
from torch import Tensor

from ...comfy.types import Sampler
from ...inversion.comfy.samplers import adds_noise, sampler_name

Draw = Callable[[Tensor, Tensor], Tensor]  # noise level of departure and of arrival -> unit noise, shaped as the state
GIVEN = "noise_sampler"  # the parameter by which samplers take it
BROWNIAN = "BrownianTreeNoiseSampler"


class FreshNoise:
    """What a sampler draws, kept while several trajectories shall see the same.

    All layers start from one noise; what is added on their way is one noise too, step by step, and the steps after
    them see noise that no layer has seen.

    Args:
        draw: gives fresh noise.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._kept: list[Tensor] = []
        self._next = 0

    def start_again(self) -> None:
        """Let the next trajectory see from its first step what the last one saw."""
        self._next = 0

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """The noise of the coming step."""
        if self._next == len(self._kept):
            self._kept.append(self._draw(sigma, sigma_next))
        self._next += 1
        return self._kept[self._next - 1]


def fresh_noise(sampler: Sampler, x: Tensor, sigmas: Tensor, seed: int | None) -> FreshNoise | None:
    """The noise of a whole run for a sampler that will sample it in pieces; None where it adds none.

    Args:
        sampler: ComfyUI's KSAMPLER.
        x: (b c h w) or (b c t h w), the state at the start.
        sigmas: of the whole run.
        seed: of the run.

    Raises:
        ValueError: the sampler adds noise and takes none from outside, so every piece would begin with the same.
    """
    function = sampler.sampler_function
    takes_noise = GIVEN in inspect.signature(function).parameters
    if sampler.extra_options.get(GIVEN) is not None:
        return FreshNoise(sampler.extra_options[GIVEN])
    if takes_noise:
        sampling, name = comfy.k_diffusion.sampling, sampler_name(sampler)
        if not _draws_brownian(inspect.unwrap(function)):
            return FreshNoise(sampling.default_noise_sampler(x, seed=seed))
        lowest, highest = sigmas[sigmas > 0].min(), sigmas.max()
        on_cpu = not name.endswith("_gpu")
        return FreshNoise(sampling.BrownianTreeNoiseSampler(x, lowest, highest, seed=seed, cpu=on_cpu))
    if reason := adds_noise(sampler):
        raise ValueError(
            f'The sampler "{sampler_name(sampler)}" adds fresh noise at its steps ({reason}) and cannot be given that '
            'of the whole run, which the mode "trajectories" samples in pieces. Choose another sampler, such as euler '
            'or euler_ancestral, or the mode "paper".'
        )
    return None


def _draws_brownian(function: FunctionType) -> bool:
    """Whether a sampler's own noise belongs to intervals of noise levels instead of to a sequence of steps."""
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    known = getattr(function, "__globals__", {})
    inner = (known[name] for name in names if name.startswith("sample_") and name in known)
    return BROWNIAN in names or any(_draws_brownian(inspect.unwrap(each)) for each in inner if each is not function)
