"""Start latents that know a layout (SALI, arXiv 2401.16157) for any ComfyUI sampler.

A reference picture has something like each thing in its place; its inversion with a finite number of steps keeps where
they are. What the inversion gives replaces the noise of a run; everything else of the run stays as it is.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...attention.comfy.families import takes_repeated_text
from ...comfy.captions import captions_of_rows, embed_captions, rows_of_one_length
from ...comfy.guider import Prompts
from ...comfy.pictures import encode_pictures, load_references
from ...comfy.progress import progress
from ...comfy.types import Callback
from ...layout.layout import Layout
from ...layout.prompts import fill_prompt
from .cut_out_things import Checkpoint
from .reference_picture import NONE_GIVEN, Drawing, GivenPictures, count_drawings, make_reference, reference_seeds
from .start import Inversion, InvertedStart, falling_levels, invert_to_start

ODE, SDE = "inversion (ODE)", "forward noise (SDE)"
STARTS = (ODE, SDE)


def spatial_latent(
    checkpoint: Checkpoint,
    layouts: Sequence[Layout],
    drawing: Drawing,
    inversion: Inversion,
    *,
    start: str,
    steps: int,
    inversion_prompt: str,
    given: GivenPictures = NONE_GIVEN,
) -> tuple[InvertedStart, Tensor]:
    """Make the start of a run from layouts, one for each picture of the batch.

    Args:
        checkpoint: samples, and draws the references.
        layouts: of one canvas size; their regions' reference pictures are used.
        drawing: how the references are drawn; its scheduler is the inversion's too.
        inversion: how they are inverted; its seed is of noise where there is any, the drawings have the ones behind it.
        start: "inversion (ODE)", SALI's, or "forward noise (SDE)", what it is compared with.
        steps: S of the inversion.
        inversion_prompt: of the inversion; may hold {phrases}, {background} and {prompt}.
        given: pictures in place of drawn ones.

    Returns:
        The start, and the references (b h w 3).

    Raises:
        ValueError: layouts of different canvases, a VAE of another model, a reference picture that is missing, or what
            `make_reference` refuses.
    """
    model, clip, vae = checkpoint.model, checkpoint.clip, checkpoint.vae
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
    sigmas = falling_levels(model, drawing.scheduler, steps)
    if start == SDE:
        inversion = replace(inversion, forward_noise_first_k=len(sigmas) - 1)
    # Where no text may be repeated, captions of each length are inverted by themselves.
    together = takes_repeated_text(model) or len(set(captions)) == 1
    groups = [list(range(len(layouts)))] if together else rows_of_one_length(clip, captions)
    runs = len(groups) + sum(count_drawings(layout, drawing, given) for layout in layouts)
    drawings = runs - len(groups)
    done = iter(range(drawings))

    def watch() -> Callback:
        return progress(model, next(done, drawings - 1), runs)  # a thing that is drawn again starts its share again

    references = torch.stack(
        [
            make_reference(checkpoint, layout, drawing, first, watch, own=own[layout], given=given)
            for layout, first in zip(layouts, reference_seeds(inversion.seed, layouts), strict=True)
        ]
    )
    latents = encode_pictures(vae, references)
    found: InvertedStart | None = None
    for number, rows in enumerate(groups, start=drawings):
        prompts = Prompts(embed_captions(clip, captions_of_rows(captions, rows)))
        inverted = invert_to_start(model, prompts, latents, sigmas, inversion, callback=progress(model, number, runs))
        found = found or inverted
        found.state[rows] = inverted.state[rows]
    return found, references
