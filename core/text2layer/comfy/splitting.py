"""Inpaints what an object hides with any model that ComfyUI samples, and saves split pictures for training."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import comfy.sample
import folder_paths
import latent_preview
import node_helpers
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...comfy.pictures import encode_pictures, leads_elsewhere
from ...comfy.sampling import Sampling
from ...comfy.types import Conditioning, Model, Vae
from ...drawing.pictures import PAINTED_NAN, check_finite
from ...layers.stored import to_bytes
from ...weights.whole_files import whole_files
from ..splitting import SplitError, hole_to_fill, join_background, without_object

GREY = 0.5  # what inpainting checkpoints see in the place of the hole
SUBFOLDERS = ("foreground", "background", "mask", "captions")


def fill_background(
    model: Model,
    vae: Vae,
    positive: Conditioning,
    negative: Conditioning | None,
    images: Tensor,
    masks: Tensor,
    *,
    dilation: int,
    sampling: Sampling,
) -> Tensor:
    """Inpaint what lies behind an object, in an ordinary ComfyUI run with a noise mask (Text2Layer, data step 4).

    Inpainting checkpoints get their mask and masked picture, as from InpaintModelConditioning; others ignore them.

    Args:
        model: to sample with.
        vae: of the same checkpoint.
        positive: the empty prompt, as in the paper.
        negative: None samples without one, at cfg 1.
        images: (b h w 3) in 0..1, of any size.
        masks: (b h w) in 0..1, 1 on the object.
        dilation: pixels around the object that are inpainted too.
        sampling: of the run.

    Returns:
        (b h w 3), the pictures themselves bit for bit outside the hole.
    """
    height, width = images.shape[1:3]
    cell = int(vae.spacial_compression_encode())
    holes = hole_to_fill(masks, dilation)
    padded, padded_holes = _padded(images, cell), _padded(holes[..., None], cell)[..., 0]
    # Whole cells, so that none keeps half of the object.
    touched = F.max_pool2d((padded_holes > 0).float()[:, None], cell)
    free = F.interpolate(touched, scale_factor=cell, mode="nearest")
    seen = torch.where(free[:, 0, ..., None] > 0, torch.full_like(padded, GREY), padded)
    extra = {"concat_latent_image": encode_pictures(vae, seen), "concat_mask": free}
    prompts = [node_helpers.conditioning_set_values(each, extra) for each in (positive, negative or positive)]
    latent = comfy.sample.fix_empty_latent_channels(model, encode_pictures(vae, without_object(padded, free[:, 0])))
    if not negative:
        sampling = replace(sampling, cfg=1.0)
    show = latent_preview.prepare_callback(model, sampling.steps)
    samples = sampling.sample(model, *prompts, latent, mask=free, callback=show)
    filled = torch.cat([_decoded(vae, each) for each in samples.split(1)])
    check_finite(filled, "What was painted behind the object", PAINTED_NAN, SplitError)
    return join_background(images, filled[:, :height, :width].to(images.device), holes)


def _padded(pictures: Tensor, cell: int) -> Tensor:
    """(b h w c) with its last row and column repeated up to whole latent cells."""
    height, width = pictures.shape[1:3]
    beyond = (0, -width % cell, 0, -height % cell)
    return F.pad(pictures.movedim(-1, 1), beyond, mode="replicate").movedim(1, -1)


def _decoded(vae: Vae, latent: Tensor) -> Tensor:
    """(1 h w 3), the only or the first frame."""
    pictures = vae.decode(latent)
    return pictures.reshape(-1, *pictures.shape[-3:])[:1]


def save_split(
    folder: str,
    foregrounds: Tensor,
    backgrounds: Tensor,
    masks: Tensor,
    captions: Sequence[str],
) -> tuple[str, ...]:
    """Save split pictures below the output folder as `stage.py train text2layer --data` reads them.

    Args:
        folder: below ComfyUI's output folder; more pictures can be added to it later.
        foregrounds: (b h w 3) in 0..1.
        backgrounds: (b h w 3) in 0..1.
        masks: (b h w) in 0..1.
        captions: one for each picture.

    Returns:
        The pictures' names, without suffix.

    Raises:
        SplitError: a folder outside the output folder.
        UnwritableError: the disk is full, or lets nobody write there; none of these pictures is left.
    """
    output = Path(folder_paths.get_output_directory()).resolve()
    try:
        # Judged before the disk is asked, as names of reference pictures are.
        root = output if leads_elsewhere(folder) else (output / folder).resolve()
    except (OSError, ValueError, RuntimeError):  # a name too long, a NUL, a link to itself
        root = output
    if not root.is_relative_to(output) or root == output:
        raise SplitError(f'The folder "{folder}" is not below ComfyUI\'s output folder. Give it a plain name.')
    first = 1 + max((int(path.stem) for path in (root / "mask").glob("*.png") if path.stem.isdecimal()), default=0)
    names = [f"{first + index:06}" for index in range(len(masks))]
    with whole_files() as beside:
        for index, name in enumerate(names):
            for kind, values in (("foreground", foregrounds), ("background", backgrounds), ("mask", masks)):
                Image.fromarray(to_bytes(values[index])).save(beside(root / kind / f"{name}.png"), "PNG")
            beside(root / "captions" / f"{name}.txt").write_text(captions[index] + "\n", encoding="utf-8")
    return tuple(names)
