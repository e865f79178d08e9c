"""Pictures as they come: their colours whatever their channels, and numbers that are no picture."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# What helps where a model paints NaN.
PAINTED_NAN = (
    "Run the model or its VAE in float32, lower cfg or the LoRAs' strengths, or choose another scheduler or more steps"
)
GREY_CHANNELS = 2  # up to so many: grey, and grey with opacity


def colours_of(image: Tensor) -> Tensor:
    """Pictures of one (grey) to four channels (... c) as colours (... 3), float32; opacity does not count."""
    colours = image[..., :1] if image.shape[-1] <= GREY_CHANNELS else image[..., :3]
    return colours.expand(*image.shape[:-1], 3).float()


def check_finite(
    values: Tensor, what: str, remedy: str, error: type[ValueError] = ValueError, *, batched: bool = True
) -> Tensor:
    """Give pictures, latents or depths back if all of their numbers are finite; a black picture tells nobody why.

    Args:
        values: (b ...), or anything.
        what: begins the sentence, such as "What the model painted".
        remedy: ends it: what to do.
        error: what is raised.
        batched: whether the first dimension counts pictures, so that the first bad one of several is named.

    Raises:
        ValueError: NaN or infinite numbers.
    """
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return values
    which = ""
    if batched and len(values) > 1:
        first = finite.flatten(1).all(1).tolist().index(False)
        which = f" in picture {first + 1} of {len(values)}"
    raise error(f"{what} has pixels that are not finite numbers (NaN or infinite){which}. {remedy}.")


@contextmanager
def of_picture(number: int, pictures: int) -> Iterator[None]:
    """Let errors about one picture of several say which one it is, counted from 1."""
    try:
        yield
    except ValueError as error:
        if pictures > 1:
            error.args = (f"Picture {number} of {pictures}: {error}",)
        raise
