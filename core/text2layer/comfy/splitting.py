"""Inpaints what an object hides with any model that ComfyUI samples, and saves split pictures for training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import folder_paths
import latent_preview
import node_helpers
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...comfy.pictures import leads_elsewhere
from ...drawing.pictures import PAINTED_NAN, check_finite
from ...layers.stored import to_bytes
from ..splitting import SplitError, hole_to_fill, join_background, without_object

Conditioning = list[Any]
SAMPLERS, SCHEDULERS = comfy.samplers.KSampler.SAMPLERS, comfy.samplers.KSampler.SCHEDULERS
GREY = 0.5  # what inpainting checkpoints see in the place of the hole
SUBFOLDERS = ("foreground", "background", "mask", "captions")


def fill_background(
    model: Any,  # noqa: ANN401 - ComfyUI's ModelPatcher
    vae: Any,  # noqa: ANN401 - ComfyUI's VAE
    positive: Conditioning,
    negative: Conditioning | None,
    images: Tensor,
    masks: Tensor,
    *,
    dilation: int,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
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
        seed: of the noise.
        steps: of the run.
        cfg: guidance scale.
        sampler_name: as in KSampler.
        scheduler: as in KSampler.

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
    extra = {"concat_latent_image": _encoded(vae, seen), "concat_mask": free}
    prompts = [node_helpers.conditioning_set_values(each, extra) for each in (positive, negative or positive)]
    latent = comfy.sample.fix_empty_latent_channels(model, _encoded(vae, without_object(padded, free[:, 0])))
    samples = comfy.sample.sample(
        model, comfy.sample.prepare_noise(latent, seed), steps, cfg if negative else 1.0, sampler_name, scheduler,
        *prompts, latent, noise_mask=free, callback=latent_preview.prepare_callback(model, steps), seed=seed,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
    )  # fmt: skip
    filled = torch.cat([_decoded(vae, each) for each in samples.split(1)])
    check_finite(filled, "What was painted behind the object", PAINTED_NAN, SplitError)
    return join_background(images, filled[:, :height, :width].to(images.device), holes)


def _padded(pictures: Tensor, cell: int) -> Tensor:
    """(b h w c) with its last row and column repeated up to whole latent cells."""
    height, width = pictures.shape[1:3]
    beyond = (0, -width % cell, 0, -height % cell)
    return F.pad(pictures.movedim(-1, 1), beyond, mode="replicate").movedim(1, -1)


def _encoded(vae: Any, pictures: Tensor) -> Tensor:  # noqa: ANN401
    # One by one: a video model's VAE takes a batch for the frames of one video.
    return torch.cat([vae.encode(each) for each in pictures.split(1)])


def _decoded(vae: Any, latent: Tensor) -> Tensor:  # noqa: ANN401
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
    """
    output = Path(folder_paths.get_output_directory()).resolve()
    # Judged before the disk is asked, as names of reference pictures are.
    root = output if leads_elsewhere(folder) else (output / folder).resolve()
    if not root.is_relative_to(output) or root == output:
        raise SplitError(f'The folder "{folder}" is not below ComfyUI\'s output folder. Give it a plain name.')
    for name in SUBFOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    first = 1 + max((int(path.stem) for path in (root / "mask").glob("*.png") if path.stem.isdecimal()), default=0)
    names = [f"{first + index:06}" for index in range(len(masks))]
    for index, name in enumerate(names):
        for kind, values in (("foreground", foregrounds), ("background", backgrounds), ("mask", masks)):
            Image.fromarray(to_bytes(values[index])).save(root / kind / f"{name}.png")
        (root / "captions" / f"{name}.txt").write_text(captions[index] + "\n", encoding="utf-8")
    return tuple(names)
