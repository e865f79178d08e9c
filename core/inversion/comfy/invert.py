"""Inversion as an ordinary ComfyUI sampler over rising noise levels, and which samplers cannot go back along one."""

import inspect
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...drawing.pictures import PAINTED_NAN, check_finite
from ..inversion import invert

EULER, DDIM = "euler", "ddim"
METHODS = (EULER, DDIM)
OURS = "stagecraft"  # what the keys of our wrappers begin with
# Guidance is the sampler's, not the model's: an inversion follows the model alone.
GUIDANCE_OPTIONS = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "disable_cfg1_optimization",
)
# They take a noise sampler that they never use.
DETERMINISTIC = ("sample_res_multistep", "sample_res_multistep_cfg_pp")
DETERMINISTIC_NAMES = "euler, heun, dpmpp_2m or ddim"


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
    return check_finite(found[0], "The inverted latent", PAINTED_NAN, batched=False)


def plain_guider(
    model: Any,  # noqa: ANN401 - ComfyUI's ModelPatcher
    positive: list[list[Any]],
    negative: list[list[Any]] | None = None,
    cfg: float = 1.0,
) -> Any:  # noqa: ANN401 - ComfyUI's CFGGuider
    """ComfyUI's guider for a run with the model alone: no other guidance than cfg, nothing of Stagecraft's own."""
    guider = comfy.samplers.CFGGuider(_unguided(model))
    guider.inner_set_conds({"positive": positive} | ({} if negative is None else {"negative": negative}))
    guider.set_cfg(cfg)
    return guider


def _progress(steps: int, disable: bool | None) -> Any:  # noqa: ANN401
    from tqdm.auto import tqdm

    return tqdm(total=steps, disable=disable, desc="inversion")


def _unguided(model: Any) -> Any:  # noqa: ANN401
    model = model.clone()
    for option in GUIDANCE_OPTIONS:
        model.model_options.pop(option, None)
    for of_kind in model.wrappers.values():
        for key in [key for key in of_kind if str(key).startswith(OURS)]:
            del of_kind[key]
    return model


def adds_noise(sampler: Any) -> str:  # noqa: ANN401 - ComfyUI's Sampler
    """Find out whether a sampler adds fresh noise on its way.

    ComfyUI's samplers do not say so; it follows from their functions' parameters and the options they were made with:
    eta or s_churn above 0, or a noise sampler that is always used.

    Args:
        sampler: any ComfyUI sampler.

    Returns:
        What adds the noise, such as "eta 1", or "" where nothing does or the sampler is of an unknown kind.
    """
    function = getattr(sampler, "sampler_function", None)
    if function is None:
        return ""
    name = getattr(inspect.unwrap(function), "__name__", type(function).__name__)
    defaults = {key: value.default for key, value in inspect.signature(function).parameters.items()}
    options = defaults | getattr(sampler, "extra_options", {})
    if "restart" in name:
        return "its restarts"
    if (options.get("s_churn") or 0) > 0:
        return f"s_churn {options['s_churn']:g}"
    if options.get("s_noise", 1.0) == 0:
        return ""
    if "eta" in options:
        return f"eta {options['eta']:g}" if (options["eta"] or 0) > 0 else ""
    return "its noise sampler" if "noise_sampler" in defaults and name not in DETERMINISTIC else ""


def sampler_name(sampler: Any) -> str:  # noqa: ANN401 - ComfyUI's Sampler
    """What a user calls a sampler, such as "euler_ancestral"."""
    function = getattr(sampler, "sampler_function", None)
    name = getattr(inspect.unwrap(function), "__name__", "") if function is not None else type(sampler).__name__
    return name.removeprefix("sample_").removesuffix("_function")


def require_deterministic(sampler: Any, purpose: str) -> None:  # noqa: ANN401 - ComfyUI's Sampler
    """Refuse a sampler that would lose what an inversion found.

    Raises:
        ValueError: the sampler adds noise; the message names others.
    """
    reason = adds_noise(sampler)
    if reason:
        raise ValueError(
            f'The sampler "{sampler_name(sampler)}" adds fresh noise at its steps ({reason}), but {purpose} follows an '
            f"inversion, which only a deterministic sampler can. Choose {DETERMINISTIC_NAMES}."
        )
