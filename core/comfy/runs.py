"""What every method asks of a run before it touches it: a latent that it can read, one GPU, the layout's shape."""

import logging
from typing import Any

from torch import Tensor

from ..layout.layout import LayoutError
from ..layout.masks import is_same_aspect

PICTURES, VIDEOS = 4, 5  # dimensions of a latent


def check_parts(
    noise: Tensor,
    latent_shapes: Any,  # noqa: ANN401
    needs: str,
    instead: str,
    *,
    videos: bool = True,
    error: type[ValueError] = ValueError,
) -> None:
    """Refuse latents without a picture plane, and those of several packed parts, such as a video with its sound.

    Args:
        noise: of the run, shaped as the latent.
        latent_shapes: what ComfyUI says of the parts, if it does.
        needs: begins the sentence, such as "Editing needs a latent of a picture or a video".
        instead: ends it: what to do.
        videos: whether latents of videos are read too.
        error: what is raised.

    Raises:
        ValueError: a latent of another kind.
    """
    parts = len(latent_shapes or [0])
    if noise.ndim not in ((PICTURES, VIDEOS) if videos else (PICTURES,)) or parts > 1:
        raise error(f"{needs}; found one of shape {tuple(noise.shape)} in {parts} parts. {instead}.")


def warn_of_plain_prompts(node: str, without: str) -> None:
    """Say that a run goes on without a node's work, because only its model reached the sampler."""
    logging.warning(
        "Stagecraft: the model comes from %s, but the prompts do not; sampling without %s. Connect its positive and "
        "negative outputs to the sampler too.", node, without,
    )  # fmt: skip


def check_one_gpu(guider: Any, method: str) -> None:  # noqa: ANN401 - ComfyUI's
    """Refuse runs that ComfyUI shares out among several GPUs, whose threads would meet in the state of one run.

    Raises:
        ValueError: it does.
    """
    if guider.model_options.get("multigpu_clones"):
        raise ValueError(f"{method} does not run on several GPUs at once. Remove the multi-GPU node.")


def check_canvas(noise: Tensor, height: int, width: int) -> None:
    """Refuse a latent (... h w) of another shape than the layout's canvas of so many pixels.

    Raises:
        LayoutError: it has another aspect ratio.
    """
    rows, columns = noise.shape[-2:]
    if not is_same_aspect(rows, columns, height, width):
        raise LayoutError(
            f"The latent is {columns} x {rows} cells, which is not the shape of the layout's canvas "
            f"({width} x {height} pixels). Give both the same width and height."
        )
