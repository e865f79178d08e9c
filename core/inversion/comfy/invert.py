"""Inversion as an ordinary ComfyUI sampler over rising noise levels."""

from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...comfy.guider import plain_guider
from ..inversion import invert

EULER, DDIM = "euler", "ddim"
METHODS = (EULER, DDIM)


def invert_latent(
    model: Any,  # noqa: ANN401 - ComfyUI's ModelPatcher
    conditioning: list[list[Any]],
    latent: Tensor,
    sigmas: Tensor,
    *,
    refinements: int = 0,
    negative: list[list[Any]] | None = None,
    cfg: float = 1.0,
    noise: Tensor | None = None,
    method: str = EULER,
    callback: Any = None,  # noqa: ANN401 - ComfyUI's: (step, clean prediction, state, number of steps)
    disable_pbar: bool = False,
) -> Tensor:
    """Follow latents to rising noise levels with a model's own prediction.

    It is a run of its own through ComfyUI's guider and sampler, so the prompt's hooks and ControlNets, offloading and
    interruption work as ever. The model's LoRAs and attention patches count; guidance on top of the prediction other
    than `cfg`, and what Stagecraft's other nodes put on the model, do not.

    Args:
        model: the model that shall paint the picture again.
        conditioning: prompt of the picture.
        latent: (b c h w) or (b c t h w) as a VAE gives it.
        sigmas: (s), rising, all above 0; see `rising_sigmas`. With noise one level is enough.
        refinements: see `invert`.
        negative: negative prompt; only used where cfg is not 1.
        cfg: classifier-free guidance; away from 1 the inversion drifts from the picture.
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
        denoise: Any,  # noqa: ANN401
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Any = None,  # noqa: ANN401
        disable: bool | None = None,
        **_: object,
    ) -> Tensor:
        rows = x.new_ones(len(x))
        steps = _progress(len(sigmas) - 1, disable)

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

    guider = plain_guider(model, conditioning, negative, cfg)
    sampler = comfy.samplers.KSAMPLER(follow)
    noise = torch.zeros_like(latent) if noise is None else noise
    guider.sample(noise, latent, sampler, sigmas, callback=callback, disable_pbar=disable_pbar, seed=0)
    return found[0]


def _progress(steps: int, disable: bool | None) -> Any:  # noqa: ANN401
    from tqdm.auto import tqdm

    return tqdm(total=steps, disable=disable, desc="inversion")
