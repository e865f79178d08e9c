"""Which of ComfyUI's samplers add noise on their way, so that they cannot follow an inversion."""

import inspect

from ...comfy.types import Sampler

# They take a noise sampler that they never use.
DETERMINISTIC = ("sample_res_multistep", "sample_res_multistep_cfg_pp")
DETERMINISTIC_NAMES = "euler, heun, dpmpp_2m or ddim"


def adds_noise(sampler: Sampler) -> str:
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


def sampler_name(sampler: Sampler) -> str:
    """What a user calls a sampler, such as "euler_ancestral"."""
    function = getattr(sampler, "sampler_function", None)
    name = getattr(inspect.unwrap(function), "__name__", "") if function is not None else type(sampler).__name__
    return name.removeprefix("sample_").removesuffix("_function")


def require_deterministic(sampler: Sampler, purpose: str) -> None:
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
