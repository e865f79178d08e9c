"""How a sampler runs, as KSampler names it: one noun for every method that runs samplers of its own; and its states."""

from dataclasses import dataclass, replace

import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from .types import Callback, Conditioning, Model, ModelSampling

SAMPLERS, SCHEDULERS = comfy.samplers.KSampler.SAMPLERS, comfy.samplers.KSampler.SCHEDULERS
SEEDS = 2**64


@dataclass(frozen=True)
class Sampling:
    """A sampler's settings.

    Attributes:
        seed: of the noise, from 0 to `SEEDS` - 1.
        steps: of a whole run from pure noise.
        cfg: scale of classifier-free guidance.
        sampler: one of `SAMPLERS`.
        scheduler: one of `SCHEDULERS`.
        denoise: share of the run that is taken, 0..1; 1 from pure noise.
    """

    seed: int
    steps: int = 20
    cfg: float = 5.0
    sampler: str = "euler"
    scheduler: str = "normal"
    denoise: float = 1.0

    def later(self, number: int) -> "Sampling":
        """The same with the seed so many behind this one; behind the last comes 0."""
        return replace(self, seed=(self.seed + number) % SEEDS)

    def noise(self, latent: Tensor) -> Tensor:
        """ComfyUI's noise of this seed, in the latent's shape."""
        return comfy.sample.prepare_noise(latent, self.seed)

    def sigmas(self, model: Model, steps: int) -> Tensor:
        """Noise levels of the run's last steps: (steps + 1) from the highest down to 0; none for no steps."""
        if steps == 0:
            return torch.tensor([])
        settings = {"sampler": self.sampler, "scheduler": self.scheduler, "denoise": self.denoise}
        run = comfy.samplers.KSampler(
            model, self.steps, model.load_device, **settings, model_options=model.model_options
        )
        return run.sigmas[-steps - 1 :].cpu()

    def sample(
        self,
        model: Model,
        positive: Conditioning,
        negative: Conditioning,
        latent: Tensor,
        *,
        noise: Tensor | None = None,
        mask: Tensor | None = None,
        start_step: int | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Run ComfyUI's sampler.

        Args:
            model: to sample with.
            positive: prompt.
            negative: negative prompt.
            latent: (b c h w) or (b c t h w), as the VAE gives it.
            noise: shaped as the latent; None: that of the seed.
            mask: (b 1 h w), 1 where the latent may change; None: everywhere.
            start_step: of the run's steps, the first that is taken; None: all that `denoise` leaves.
            callback: told of every step.

        Returns:
            Shaped as the latent.
        """
        return comfy.sample.sample(
            model,
            self.noise(latent) if noise is None else noise,
            self.steps,
            self.cfg,
            self.sampler,
            self.scheduler,
            positive,
            negative,
            latent,
            denoise=self.denoise,
            start_step=start_step,
            noise_mask=mask,
            callback=callback,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=self.seed,
        )


def signal_and_noise(sampling: ModelSampling, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Shares a and b of states a x0 + b eps, as a model's own sampling mixes them.

    Args:
        sampling: ComfyUI's model_sampling.
        x: (b c ...), for shape and type.
        sigma: (b), noise levels as samplers count them.

    Returns:
        (b 1 1 ...) each: 1 and sigma of eps and v models, 1 - sigma and sigma of flows.
    """
    one = x.new_ones((len(x),) + (1,) * (x.ndim - 1))
    zero = torch.zeros_like(one)
    return sampling.noise_scaling(sigma, zero, one), sampling.noise_scaling(sigma, one, zero)
