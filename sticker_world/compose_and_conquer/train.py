"""Depth disentanglement training of CnC's fusers on exact triplets: local alone, global alone, then both together.

Compose and Conquer (Lee et al., ICLR 2024, arXiv 2401.09048), section 3. The U-Net and the text encoder are frozen; the
U-Net's encoder and middle run without gradients, as published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ...core.compose_and_conquer.config import FuserConfig
from ...core.compose_and_conquer.files import GLOBAL as GLOBAL_PREFIX
from ...core.compose_and_conquer.files import LOCAL as LOCAL_PREFIX
from ...core.compose_and_conquer.files import write_fusers
from ...core.compose_and_conquer.global_fuser import TOKENS, GlobalFuser, TokenConfig
from ...core.compose_and_conquer.local_fuser import LocalFuser
from ...core.compose_and_conquer.sd1_blocks import Attend
from ...core.soft_guidance.soft_guidance import SoftGuidance, two_sides
from ..checkpoint.diffusion import CONTEXT, HEAD_WIDTH, TIMESTEPS, WIDTHS, scaled_linear_alphas
from ..readers.clip import WIDTH
from ..training.fast_norm import use_fast_norms
from ..training.loop import train
from ..world.vocabulary import vocabulary
from .frozen_denoiser import FrozenDenoiser, guided_attention, plain_attention
from .triplets import TripletBatch, Triplets

BATCH = 16
DROPPED = 0.1  # of captions, depths and looks, each by itself
# reconstructed: captions here say everything, unlike those of photographs; pictures have to teach without them too.
DROPPED_CAPTIONS = 0.5
TEXT_ONLY = 0.3  # reconstructed: share of the joint stage's steps without looks, so that depth alone stays a use
# reconstructed: the published widths are for 512 px; at 256 px they would cost more than the U-Net that they steer.
LOCAL = FuserConfig(
    model_channels=WIDTHS[0],
    channel_mult=tuple(width // WIDTHS[0] for width in WIDTHS),
    num_res_blocks=1,
    attention_levels=(1, 2),
    num_head_channels=HEAD_WIDTH,
    context_dim=CONTEXT,
    extractor_widths=(16, 24, 24, 32),
    stage_widths=(64, 96, 128),
)
LOOKS = TokenConfig(embedding=WIDTH, context=CONTEXT)
NOISIER = TIMESTEPS // 2  # reconstructed: half of all draws are at least this noisy, because layout is decided there
OBJECT_WEIGHT = 1.0  # reconstructed: extra weight of object cells, which are few
COVERED_WEIGHT = (
    4.0  # reconstructed: extra weight of cells where one object hides another; depth order shows nowhere else
)


@dataclass(frozen=True)
class Stage:
    """One stage of the training.

    Attributes:
        depths: whether the local fuser takes part.
        looks: whether the global fuser takes part.
        peak_lr: learning rate after the warm-up.
        dropped_captions: share of captions replaced by the empty one.
        text_only: share of steps without the global fuser.
        single: the local fuser sees the whole scene's depth in place of the foreground's and nothing behind it: the
            control with one depth that CnC is measured against.
    """

    depths: bool
    looks: bool
    peak_lr: float  # reconstructed: 1e-5 is published for SD 1.5; a few million parameters need larger steps
    dropped_captions: float = DROPPED
    text_only: float = 0.0
    single: bool = False


STAGES = {
    "cnc_local": Stage(depths=True, looks=False, peak_lr=5e-4),
    "cnc_single": Stage(depths=True, looks=False, peak_lr=5e-4, single=True),
    "cnc_global": Stage(depths=False, looks=True, peak_lr=5e-4, dropped_captions=DROPPED_CAPTIONS),
    "cnc_joint": Stage(depths=True, looks=True, peak_lr=1e-4, dropped_captions=DROPPED_CAPTIONS, text_only=TEXT_ONLY),
}


class Fusers(nn.Module):
    """Both fusers, or one of them, under the names of the published file."""

    def __init__(
        self,
        *,
        depths: bool,
        looks: bool,
        local: FuserConfig = LOCAL,
        tokens: TokenConfig = LOOKS,
        attention: Attend = plain_attention,
    ) -> None:
        super().__init__()
        self.local_adapter = LocalFuser(local, attention=attention) if depths else None
        self.global_adapter = GlobalFuser(tokens) if looks else None

    def clone_encoder(self, unet: Mapping[str, Tensor]) -> None:
        """Start the local fuser as an exact clone of the U-Net's encoder.

        The normalisations of the injected blocks have no weights of their own; the published fuser starts without the
        U-Net's. Here they become the biases of the denormalisation, which costs nothing and loses nothing.

        Args:
            unet: its weights by their original (ldm) names.
        """
        local = self.local_adapter
        local.load_encoder(unet)
        own = local.state_dict()
        for name in [name for name in own if name.endswith(".conv_gamma.bias")]:
            block, norm = name.removesuffix(".conv_gamma.bias").rsplit(".", 1)
            layer = {"norm_in": "in_layers.0", "norm_out": "out_layers.0"}[norm]
            own[name].copy_(unet[f"{block}.{layer}.weight"] - 1)
            own[f"{block}.{norm}.conv_beta.bias"].copy_(unet[f"{block}.{layer}.bias"])


@dataclass(frozen=True)
class Noised:
    """A batch of triplets at noise levels, with what of it the fusers get to see.

    Attributes:
        batch: the triplets; captions and conditions already dropped where they are to be.
        t: time steps (b).
        x: noised latents (b 4 h w).
        target: velocity (b 4 h w).
        weight: of the squared error (b 1 h w).
    """

    batch: TripletBatch
    t: Tensor
    x: Tensor
    target: Tensor
    weight: Tensor


def noise_triplets(
    batch: TripletBatch, rng: np.random.Generator, generator: torch.Generator, device: torch.device, stage: Stage
) -> Noised:
    """Drop conditions, draw noise and noise levels, and weigh the error.

    Args:
        batch: triplets with everything in them.
        rng: of the drop-out and the levels.
        generator: of the noise, on the CPU.
        device: where the result lives.
        stage: of the training.
    """
    number = len(batch.latents)
    dropped = np.array([stage.dropped_captions, DROPPED, DROPPED, DROPPED, DROPPED])
    keep = torch.from_numpy(rng.uniform(size=(5, number)) >= dropped[:, None])
    t = rng.integers(0, TIMESTEPS, number)
    t = torch.from_numpy(np.where(rng.uniform(size=number) < 0.5, t, rng.integers(NOISIER, TIMESTEPS, number)))
    rows = torch.where(keep[0][:, None], batch.rows, vocabulary().encode([""]))
    foreground_there, background_there = (rearrange(k, "b -> b 1 1 1").float() for k in keep[1:3])
    known = foreground_there if stage.single else foreground_there * background_there
    foreground = (batch.whole if stage.single else batch.foreground) * foreground_there
    background = torch.zeros_like(foreground) if stage.single else batch.background * background_there
    seen = TripletBatch(
        latents=batch.latents.to(device),
        rows=rows.to(device),
        foreground=foreground.to(device),
        background=background.to(device),
        whole=batch.whole.to(device),
        mask=batch.mask.to(device),
        objects=batch.objects.to(device),
        covered=batch.covered.to(device),
        foreground_look=(batch.foreground_look * keep[3][:, None]).to(device),
        background_look=(batch.background_look * keep[4][:, None]).to(device),
    )
    noise = torch.randn(batch.latents.shape, generator=generator).to(device)
    alpha = rearrange(scaled_linear_alphas()[t], "b -> b 1 1 1").to(device)
    size = batch.latents.shape[-2:]
    special = OBJECT_WEIGHT * seen.objects + COVERED_WEIGHT * seen.covered
    # Where a depth tells the place of the objects, it may count more; where none does, that would pull objects there.
    places = 1 + known.to(device) * F.adaptive_avg_pool2d(special, size)
    # Nothing but noise is left to predict at the lowest noise levels, whatever the depth.
    return Noised(
        batch=seen,
        t=t.to(device),
        x=alpha.sqrt() * seen.latents + (1 - alpha).sqrt() * noise,
        target=alpha.sqrt() * noise - (1 - alpha).sqrt() * seen.latents,
        weight=(5 * (1 - alpha)).clamp(max=1) * places,
    )


def predict(denoiser: FrozenDenoiser, fusers: Fusers, noised: Noised, *, looks: bool = True) -> Tensor:
    """v-prediction (b 4 h w) of the frozen U-Net with what the fusers add to it; without `looks` of one only."""
    batch = noised.batch
    context, guidance, attend = denoiser.read(batch.rows), None, None
    if fusers.global_adapter is not None and looks:
        tokens = fusers.global_adapter(batch.foreground_look, batch.background_look)
        context = torch.cat([context, *tokens], 1)
        guidance = SoftGuidance([batch.mask[:, 0]], two_sides(TOKENS))
        attend = guided_attention(guidance)
    x = noised.x.contiguous(memory_format=torch.channels_last)
    residuals = None
    if fusers.local_adapter is not None:
        depths = (repeat(d, "b 1 h w -> b c h w", c=3) for d in (batch.foreground, batch.background))
        depths = (d.contiguous(memory_format=torch.channels_last) for d in depths)
        residuals = fusers.local_adapter(x, noised.t, context, *depths, attend=attend)
    return denoiser(x, noised.t, context, residuals, guidance)


def make_fusers(stage: Stage, denoiser: FrozenDenoiser, start: Mapping[str, Tensor]) -> Fusers:
    """Fusers at the start of a stage: those of the stages before it, or a clone of the U-Net's encoder.

    Args:
        stage: which fusers.
        denoiser: the U-Net that they steer.
        start: averaged weights of the stages before, by their published names; may be empty.
    """
    torch.manual_seed(0)
    fusers = Fusers(depths=stage.depths, looks=stage.looks)
    if start:
        fusers.load_state_dict(start)
    elif stage.depths:
        fusers.clone_encoder(denoiser.ldm_weights())
    fusers = fusers.to(denoiser.device).train()
    if stage.depths:
        fusers.local_adapter.to(memory_format=torch.channels_last)
        if denoiser.device.type == "cpu":
            use_fast_norms(fusers.local_adapter)
    return fusers


def train_fusers(
    part: str,
    triplets: Triplets,
    weights: Mapping[str, Tensor],
    folder: Path,
    steps: int,
    start: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Train one stage; returns the averaged weights of its fusers.

    Args:
        part: a key of `STAGES`.
        triplets: to train on.
        weights: averaged weights of `StickerDiffusion`.
        folder: of states and averaged weights.
        steps: length of the schedule.
        start: averaged weights of the stages before it.
    """
    stage = STAGES[part]
    denoiser = FrozenDenoiser(weights)
    fusers = make_fusers(stage, denoiser, start or {})

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([6, step])
        torch.manual_seed(step)  # of the global fuser's drop-out
        batch = triplets.draw(rng, BATCH)
        generator = torch.Generator().manual_seed(step)
        noised = noise_triplets(batch, rng, generator, denoiser.device, stage)
        looks = rng.uniform() >= stage.text_only
        with torch.autocast(denoiser.device.type, torch.bfloat16):
            output = predict(denoiser, fusers, noised, looks=looks)
        error = (output.float() - noised.target).square()
        loss = (noised.weight * error).mean()
        return loss, {"loss": loss.item(), "v": error.mean().item()}

    return train(part, fusers, loss_of_step, folder=folder, steps=steps, peak_lr=stage.peak_lr, ema=0.9985)


def export_fusers(
    weights: Mapping[str, Tensor], path: Path, *, head_width: int = HEAD_WIDTH, bits: int | None = None
) -> None:
    """Write averaged weights of a stage, or of several, by the published names.

    Args:
        weights: with their prefixes.
        path: the file.
        head_width: the local fuser's `FuserConfig.num_head_channels`.
        bits: of every weight, see `write_fusers`; None for half precision.
    """
    parts = {prefix: {} for prefix in (LOCAL_PREFIX, GLOBAL_PREFIX)}
    for name, value in weights.items():
        prefix = next(prefix for prefix in parts if name.startswith(prefix))
        parts[prefix][name.removeprefix(prefix)] = value
    write_fusers(path, parts[LOCAL_PREFIX] or None, parts[GLOBAL_PREFIX] or None, head_width, bits)
