"""Start latents that know a layout (SALI, arXiv 2401.16157) for any ComfyUI sampler.

A reference picture has something like each thing in its place; its inversion with a finite number of steps keeps where
they are. What the inversion gives replaces the noise of a run; everything else of the run stays as it is.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...comfy.captions import embed_captions
from ...comfy.pictures import load_references
from ...comfy.progress import progress
from ...layout.layout import Layout
from ...layout.prompts import fill_prompt
from .cut_out_things import Checkpoint
from .reference_picture import Drawing, count_drawings, make_reference, reference_seeds
from .start import InvertedStart, falling_levels, invert_to_start

ODE, SDE = "inversion (ODE)", "forward noise (SDE)"
STARTS = (ODE, SDE)


def spatial_latent(
    model: Any,  # noqa: ANN401 - ComfyUI's ModelPatcher
    clip: Any,  # noqa: ANN401 - ComfyUI's CLIP
    vae: Any,  # noqa: ANN401 - ComfyUI's VAE
    layouts: Sequence[Layout],
    drawing: Drawing,
    *,
    start: str,
    steps: int,
    scheduler: str,
    method: str,
    refinements: int,
    inversion_prompt: str,
    forward_noise_first_k: int,
    renormalise: bool,
    seed: int,
    images: Tensor | None = None,
    masks: Tensor | None = None,
    background: Tensor | None = None,
) -> tuple[InvertedStart, Tensor]:
    """Make the start of a run from layouts, one for each picture of the batch.

    Args:
        model: to sample with; also draws the references.
        clip: encodes prompts.
        vae: encodes the references.
        layouts: of one canvas size; their regions' reference pictures are used.
        drawing: how the references are drawn.
        start: "inversion (ODE)", SALI's, or "forward noise (SDE)", what it is compared with.
        steps: S of the inversion.
        scheduler: of the inversion.
        method: of the inversion, see `invert_latent`.
        refinements: of the inversion, see `invert`.
        inversion_prompt: of the inversion; may hold {phrases}, {background} and {prompt}.
        forward_noise_first_k: see `invert_to_start`.
        renormalise: see `renormalised`.
        seed: of noise where there is any; the drawings have the ones behind it.
        images: see `make_reference`.
        masks: see `make_reference`.
        background: see `make_reference`.

    Returns:
        The start, and the references (b h w 3).

    Raises:
        ValueError: layouts of different canvases, a VAE of another model, a reference picture that is missing, or what
            `make_reference` refuses.
    """
    if len({(layout.height, layout.width) for layout in layouts}) != 1:
        raise ValueError("The layouts of one batch have different canvases. Give all of them the same size.")
    channels = model.get_model_object("latent_format").latent_channels
    if vae.latent_channels != channels:
        raise ValueError(
            f"The VAE has {vae.latent_channels} latent channels, but the model has {channels}. Connect the VAE that "
            "belongs to the model to vae."
        )
    own = {layout: load_references(layout) for layout in set(layouts)}
    captions = [fill_prompt(inversion_prompt, layout, None, "inversion prompt") for layout in layouts]
    sigmas = falling_levels(model, scheduler, steps)
    runs = 1 + sum(count_drawings(layout, drawing, images, background) for layout in layouts)
    done = iter(range(runs - 1))

    def watch() -> Any:  # noqa: ANN401 - ComfyUI's callback
        return progress(model, next(done, runs - 2), runs)  # a thing that is drawn again starts its share again

    references = torch.stack([
        make_reference(
            Checkpoint(model, clip, vae), layout, drawing, first, watch, own=own[layout], images=images, masks=masks,
            background=background,
        )
        for layout, first in zip(layouts, reference_seeds(seed, layouts), strict=True)
    ])  # fmt: skip
    found = invert_to_start(
        model, embed_captions(clip, captions), vae.encode(references), sigmas, method=method, refinements=refinements,
        forward_noise_first_k=len(sigmas) - 1 if start == SDE else forward_noise_first_k, renormalise=renormalise,
        seed=seed, callback=progress(model, runs - 1, runs),
    )  # fmt: skip
    return found, references
