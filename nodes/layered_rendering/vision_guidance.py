"""Inputs that say where the vectors of vision guidance come from and how they are used."""

from torch import Tensor

from ...core.layered_rendering.vision_guidance import (
    AS_SEEN,
    AUTO,
    EVERY_STEP,
    INJECTIONS,
    PUBLISHED_TOP_K,
    READINGS,
    REFERENCE,
    SOURCES,
    VECTOR,
    VisionGuidance,
)
from ..api import io
from ..inputs import advanced


def source_input() -> io.Combo.Input:
    """Where the vectors come from."""
    return io.Combo.Input(
        "source",
        options=list(SOURCES),
        default=AUTO,
        tooltip="What calls a thing into its region. auto: its reference picture, else its colour, else dynamic on "
        "U-Nets (SD 1.x, SD 2.x, SDXL), else nothing but the mask. dynamic: for all regions the mean noise where the "
        "name is looked at most in the first step. colour: their colours alone. reference: one connected picture for "
        "each. vector: the numbers below, for all.",
    )


def guidance_inputs() -> list[io.Input]:
    """How the vectors are used, for those who want to know; the editor folds them away."""
    return [
        advanced(each)
        for each in (
            io.Int.Input(
                "top_k",
                default=PUBLISHED_TOP_K,
                min=1,
                max=65536,
                optional=True,
                tooltip="Only for dynamic: from how many latent cells the vector is averaged. Higher gives a "
                "steadier average of more places; lower the sharpest spots alone, which depend more on the seed.",
            ),
            io.Float.Input(
                "inside",
                default=1.0,
                min=-10.0,
                max=10.0,
                step=0.05,
                optional=True,
                tooltip="Factor of the vector inside a region. Higher calls the thing into its region more "
                "strongly; 0 does not call it. The authors' script has 0.05, the paper's equation 1.",
            ),
            io.Float.Input(
                "outside",
                default=1.0,
                min=-10.0,
                max=10.0,
                step=0.05,
                optional=True,
                tooltip="Factor of the vector outside a region, where it is taken off. Higher keeps the thing out "
                "of the rest more strongly; 0 does not. The authors' script has 0.20, the paper's equation 1.",
            ),
            io.Combo.Input(
                "inject",
                options=list(INJECTIONS),
                default=EVERY_STEP,
                optional=True,
                tooltip="every step: the layers see the vector as long as they are painted; strongest. first "
                "step: in the first step, and in mode trajectories in the initial noise. as published: like the "
                "authors' script, initial noise and a little after each of five steps; mode trajectories only.",
            ),
            io.String.Input(
                "vector",
                default="",
                optional=True,
                tooltip="Only for vector: one number for each latent channel of the model, such as 0.5, -0.2, 0, "
                "1. Larger numbers push harder.",
            ),
            io.Combo.Input(
                "reading",
                options=list(READINGS),
                default=AS_SEEN,
                optional=True,
                tooltip="For experts: how Eq. 7 and 8 are read, which no source shows legibly. as seen: a layer's "
                "clean picture as the network saw it with the vector, our reading of Algorithm 1. without the "
                "vector: the network's output applied to the latent without it, which makes the vector push the "
                "wrong way at high noise.",
            ),
        )
    ]


def read_vector(text: str) -> tuple[float, ...]:
    """Numbers of a text, divided by commas or spaces; empty for none.

    Raises:
        ValueError: something that is no finite number.
    """
    try:
        numbers = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f'vector is "{text}"; expected numbers such as 0.5, -0.2, 0, 1. ({error})') from None
    if not all(abs(number) < float("inf") for number in numbers):
        raise ValueError(f'vector is "{text}"; expected finite numbers.')
    return numbers


def chosen_vector(source: str, vector: str) -> tuple[float, ...]:
    """The numbers of a source that is a vector, or none.

    Raises:
        ValueError: none where there should be some, or something else than numbers.
    """
    numbers = read_vector(vector) if source == VECTOR else ()
    if source == VECTOR and not numbers:
        raise ValueError('source is "vector", but vector is empty. Write one number for each latent channel.')
    return numbers


def chosen_guidance(
    source: str,
    vector: str = "",
    references: Tensor | None = None,
    *,
    top_k: int = PUBLISHED_TOP_K,
    inside: float = 1.0,
    outside: float = 1.0,
    inject: str = EVERY_STEP,
    reading: str = AS_SEEN,
) -> VisionGuidance:
    """The settings out of the node's inputs.

    Raises:
        ValueError: a vector or pictures are missing, or something that is no vector.
    """
    numbers = chosen_vector(source, vector)
    pictures = references if source in (AUTO, REFERENCE) else None
    return VisionGuidance(source, top_k, inside, outside, inject, reading, numbers, pictures)
