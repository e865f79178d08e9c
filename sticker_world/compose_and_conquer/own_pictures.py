"""Training of CnC's fusers on a user's own pictures for a checkpoint of the user's, as published.

Compose and Conquer (Lee et al., ICLR 2024, arXiv 2401.09048), section 3 and the authors' scripts: the local fuser, the
global fuser, then both; plain squared error, all time steps alike, every condition dropped by itself. The checkpoint is
loaded as ComfyUI loads it, so ComfyUI has to be on Python's path.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from safetensors.torch import load_file
from torch import Tensor

from ...core.compose_and_conquer.comfy.frozen import FrozenCheckpoint
from ...core.compose_and_conquer.files import GLOBAL, LOCAL, read_fusers, recognise
from ...core.compose_and_conquer.files import Fusers as ReadFusers
from ...core.compose_and_conquer.global_fuser import TokenConfig
from ...core.compose_and_conquer.sd1_blocks import fused_attention
from ...core.soft_guidance.soft_guidance import SoftGuidance, two_sides
from ..own_settings import EPOCHS, OwnPictures
from ..shipped import CLIP_FOLDER
from ..training.loop import train
from .frozen_denoiser import guided_attention
from .picture_encoding import EncodedPictures, PictureBatch, encode_pictures
from .picture_folder import PictureFolderError, open_pictures
from .train import DROPPED, STAGES, Fusers, export_fusers
from .train import LOCAL as EMBEDDED

BEFORE = {"cnc_joint": ("cnc_local", "cnc_global")}
TIMESTEPS = 1000
SAVE_EVERY = 900.0  # seconds: the state of SD 1.5's fusers has 8 GB


def train_own_pictures(parts: list[str], settings: OwnPictures) -> list[Path]:
    """Train stages on a folder of pictures; every stage goes on where it stopped.

    Args:
        parts: keys of `EPOCHS`, in any order.
        settings: what to train on and with.

    Returns:
        The CnC file of every stage, for models/cnc.

    Raises:
        ValueError: something is missing or wrong in the folder, the checkpoint or the file to start from.
    """
    stages = [part for part in EPOCHS if part in parts]
    needs = {name: any(getattr(STAGES[part], name) for part in stages) for name in ("depths", "looks")}
    pictures = open_pictures(settings.data, settings.size, **needs)
    checkpoint = FrozenCheckpoint(settings.checkpoint)
    clip = _clip_folder(checkpoint, settings) if needs["looks"] else None
    encoded = encode_pictures(pictures, checkpoint, settings.checkpoint, clip, settings.folder)
    checkpoint.prepare()
    return [_train_stage(part, encoded, checkpoint, settings) for part in stages]


def _is_embedded(checkpoint: FrozenCheckpoint) -> bool:
    shapes = checkpoint.config
    return (shapes.widths, shapes.context_dim) == (EMBEDDED.widths, EMBEDDED.context_dim)


def _clip_folder(checkpoint: FrozenCheckpoint, settings: OwnPictures) -> Path:
    if settings.clip_vision is not None:
        return settings.clip_vision
    if _is_embedded(checkpoint):
        return CLIP_FOLDER
    raise PictureFolderError(
        "Looks are embedded by a CLIP. Give its folder in the Hugging Face layout in --clip-vision, for SD 1.5 that of "
        "clip-vit-large-patch14, or train cnc_local alone."
    )


def _train_stage(part: str, encoded: EncodedPictures, checkpoint: FrozenCheckpoint, settings: OwnPictures) -> Path:
    stage, number = STAGES[part], len(encoded.folder)
    fusers = _make_fusers(part, encoded, checkpoint, settings)
    steps = settings.steps or EPOCHS[part] * -(-number // settings.batch)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([7, step])
        torch.manual_seed(step)  # of the noise and of the global fuser's drop-out
        rows = rng.integers(0, number, settings.batch)
        batch = encoded.take(rows, depths=stage.depths, looks=stage.looks)
        with torch.autocast(checkpoint.device.type, torch.bfloat16):
            loss = denoising_loss(checkpoint, fusers, batch, encoded.no_caption, rng)
        return loss, {"loss": loss.item()}

    weights = train(
        part,
        fusers,
        loss_of_step,
        folder=settings.folder,
        steps=steps,
        peak_lr=settings.learning_rate,
        save_every=SAVE_EVERY,
    )
    path = settings.folder / f"{settings.data.name}_{part}_fp16.safetensors"
    local = fusers.local_adapter
    export_fusers(weights, path, head_width=local.config.num_head_channels if local else 0)
    return path


def denoising_loss(
    checkpoint: FrozenCheckpoint, fusers: Fusers, batch: PictureBatch, no_caption: Tensor, rng: np.random.Generator
) -> Tensor:
    """Squared error of the frozen U-Net with what the fusers add to it, at random time steps.

    Args:
        checkpoint: the U-Net.
        fusers: those that are trained.
        batch: triplets with everything in them.
        no_caption: context of the empty caption (1 77 d).
        rng: of the drop-out and the time steps; the noise is torch's own.
    """
    device, number = checkpoint.device, len(batch.latents)
    keep = torch.from_numpy(rng.uniform(size=(5, number)) >= DROPPED)
    t = torch.from_numpy(rng.integers(0, TIMESTEPS, number))
    alpha = rearrange(checkpoint.alphas.cpu()[t], "b -> b 1 1 1")
    noise = torch.randn(batch.latents.shape)
    x = (alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * noise).to(device)
    target = alpha.sqrt() * noise - (1 - alpha).sqrt() * batch.latents if checkpoint.predicts_velocity else noise
    context = torch.where(rearrange(keep[0], "b -> b 1 1"), batch.contexts, no_caption).to(device)
    t, guidance, attend, residuals = t.to(device), None, None, None
    if fusers.global_adapter is not None:
        looks = (batch.looks * rearrange(keep[3:5], "k b -> b k 1")).to(device)
        context = torch.cat([context, *fusers.global_adapter(looks[:, 0], looks[:, 1])], 1)
        guidance = SoftGuidance([batch.mask[:, 0].to(device)], two_sides(fusers.global_adapter.config.tokens))
        attend = guided_attention(guidance)
    if fusers.local_adapter is not None:
        depths = zip((batch.foreground, batch.background), keep[1:3], strict=True)
        maps = [repeat(d * rearrange(k, "b -> b 1 1 1"), "b 1 h w -> b c h w", c=3).to(device) for d, k in depths]
        residuals = fusers.local_adapter(x, t, context, *maps, attend=attend)
    return F.mse_loss(checkpoint(x, t, context, residuals, guidance).float(), target.to(device))


def _make_fusers(part: str, encoded: EncodedPictures, checkpoint: FrozenCheckpoint, settings: OwnPictures) -> Fusers:
    """Fusers at the start of a stage: those of the stages before it, a file's, or a clone of the U-Net's encoder."""
    stage, config = STAGES[part], checkpoint.config
    # The published shapes, but for the embedded U-Net those of the embedded fuser.
    local = EMBEDDED if _is_embedded(checkpoint) else config
    width = encoded.looks.shape[-1] if stage.looks else TokenConfig().embedding
    tokens = TokenConfig(width, config.context_dim)
    weights: dict[str, Tensor] = {}
    if (found := _start_of(part, checkpoint, settings)) is not None:
        parts = ((stage.depths, LOCAL, found.local), (stage.looks, GLOBAL, found.global_))
        for is_wanted, prefix, those in parts:
            if is_wanted and those is None:
                raise PictureFolderError(
                    f"{settings.start} has no {prefix}* weights, which {part} trains. Give another."
                )
            if is_wanted:
                weights |= {prefix + name: weight.float() for name, weight in those.items()}
        expected = [(local.widths, local.context_dim, tokens)[: 3 if stage.looks else 2]]
        local = found.config or local
        given = [(local.widths, local.context_dim, found.tokens)[: 3 if stage.looks else 2]]
        if given != expected:
            raise PictureFolderError(
                f"The weights to go on from were made for a U-Net and a CLIP of {given}; those at hand are {expected}. "
                "Give the checkpoint and the CLIP folder that they were made for."
            )
    torch.manual_seed(0)
    fusers = Fusers(depths=stage.depths, looks=stage.looks, local=local, tokens=tokens, attention=fused_attention)
    if weights:
        fusers.load_state_dict(weights)
    elif stage.depths:
        fusers.clone_encoder(checkpoint.ldm_weights())
    return fusers.to(checkpoint.device).train()


def _start_of(part: str, checkpoint: FrozenCheckpoint, settings: OwnPictures) -> ReadFusers | None:
    """What a stage goes on from, if it does."""
    paths = {before: settings.folder / f"{before}.safetensors" for before in BEFORE.get(part, ())}
    missing = [before for before, path in paths.items() if not path.exists()]
    if paths and not missing:
        weights = {name: weight for path in paths.values() for name, weight in load_file(path).items()}
        return recognise(weights, " and ".join(paths), checkpoint.config.num_head_channels)
    if settings.start is not None:
        return read_fusers(settings.start)
    if missing:
        raise PictureFolderError(f"The stage {part} goes on from {missing[0]}, which is not trained yet: name it too.")
    return None
