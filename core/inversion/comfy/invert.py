"""Inversion as an ordinary ComfyUI sampler over rising noise levels."""

from collections.abc import Callable

import comfy.samplers
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...comfy.guider import Prompts, plain_guider
from ...comfy.types import Callback, Denoiser, Model, Options
from ...drawing.pictures import PAINTED_NAN, check_finite
from ..inversion import invert

EULER, DDIM = "euler", "ddim"
METHODS = (EULER, DDIM)


def invert_latent(
    model: Model,
    prompts: Prompts,
    latent: Tensor,
    sigmas: Tensor,
    *,
    refinements: int = 0,
    noise: Tensor | None = None,
    method: str = EULER,
    callback: Callback | None = None,
    disable_pbar: bool = False,
) -> Tensor:
    """Follow latents to rising noise levels with a model's own prediction.

    It is a run of its own through ComfyUI's guider and sampler, so the prompt's hooks and ControlNets, offloading and
    interruption work as ever. The model's LoRAs and attention patches count; guidance on top of the prediction other
    than the prompts' cfg, and what Stagecraft's other nodes put on the model, do not.

    Args:
        model: the model that shall paint the picture again.
        prompts: of the picture; with a cfg away from 1 the inversion drifts from it.
        latent: (b c h w) or (b c t h w) as a VAE gives it.
        sigmas: (s), rising, all above 0; see `rising_sigmas`. With noise one level is enough.
        refinements: see `invert`.
        noise: like latent; the latent is brought to the first level by this noise, as a sampler would do it.
        method: "euler" takes the slope where a step departs; "ddim" shows the network the state that departs at the
            noise level of arrival; see `invert`.
        callback: called after every step.
        disable_pbar: show no progress bar on the console.

    Returns:
        (s b c ...), the state at every noise level in the model's own scale, on its device.
    """
    found: list[Tensor] = []
    sampling = model.get_model_object("model_sampling")

    def rescale(sigma: Tensor, following: Tensor) -> Tensor:
        # What a network sees is the state times a factor of its noise level.
        one = sigma.new_ones(1)
        return sampling.calculate_input(sigma, one) / sampling.calculate_input(following, one)

    def follow(
        denoise: Denoiser,
        x: Tensor,
        sigmas: Tensor,
        extra_args: Options | None = None,
        callback: Callable[[dict[str, object]], None] | None = None,
        disable: bool | None = None,
        **_: object,
    ) -> Tensor:
        rows = x.new_ones(len(x))
        steps = tqdm(total=len(sigmas) - 1, disable=disable, desc="inversion")

        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            return denoise(x, sigma * rows, **(extra_args or {}))

        def report(number: int, clean: Tensor, state: Tensor) -> None:
            steps.update()
            if callback is not None:
                callback({"i": number, "denoised": clean, "x": state, "sigma": sigmas[number]})

        with steps:
            if len(sigmas) == 1:
                found.append(x[None])
            else:
                arriving = rescale if method == DDIM else None
                found.append(invert(predict, x, sigmas, refinements, report, arriving))
        # ComfyUI rescales what a sampler returns by the last noise level, which for flow models divides pure noise by
        # nothing; the states are in `found`.
        return torch.zeros_like(x)

    guider = plain_guider(model, prompts)
    sampler = comfy.samplers.KSAMPLER(follow)
    noise = torch.zeros_like(latent) if noise is None else noise
    guider.sample(noise, latent, sampler, sigmas, callback=callback, disable_pbar=disable_pbar, seed=0)
    return check_finite(found[0], "The inverted latent", PAINTED_NAN, batched=False)
