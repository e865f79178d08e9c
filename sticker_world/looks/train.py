"""Training of a look's LoRA on the frozen U-Net, and its file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor

from ..checkpoint.diffusion import DROPPED_CAPTIONS, TIMESTEPS, MapRecorder, make_unet, scaled_linear_alphas
from ..compose_and_conquer.frozen_denoiser import FrozenDenoiser
from ..training.loop import pick_device, train
from ..world.vocabulary import vocabulary
from .drawing import LOOKS
from .lora import Adapters
from .samples import batch_of, open_samples

BATCH = 8
PEAK_LR, EMA, WARM_UP = 2e-3, 0.99, 40
OBJECT_WEIGHT = 2.0  # extra weight of the stickers' cells, which alone wear the look
STREAM = 5  # of batches and noise; others than those of the U-Net's training


def train_lora(look: str, folder: Path, weights: Path, denoiser: Mapping[str, Tensor], steps: int) -> None:
    """Train the LoRA of a look, or go on where an earlier call stopped.

    Args:
        look: a key of `LOOKS`.
        folder: of the drawn scenes.
        weights: of the state and of the averaged weights, `lora_<look>`.
        denoiser: weights of `StickerDiffusion`; they do not change.
        steps: length of the schedule.
    """
    samples = open_samples(folder, look)
    torch.manual_seed(0)
    model, device = FrozenDenoiser(denoiser), pick_device()
    unet = model.model.unet
    unet.set_attn_processor(MapRecorder(0))  # in plain matrix products; no site has so few cells
    adapters = Adapters(unet).to(device, memory_format=torch.channels_last)
    alphas = scaled_linear_alphas().to(device)
    empty, number = vocabulary().encode([""])[0], list(LOOKS).index(look)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([STREAM, number, step])
        noise_rng = torch.Generator().manual_seed(step + (STREAM + number) * 10_000_000)
        x0, masks, rows = (each.to(device) for each in batch_of(samples, rng.integers(0, len(samples), BATCH)))
        rows[torch.from_numpy(rng.uniform(size=BATCH) < DROPPED_CAPTIONS)] = empty.to(device)
        t = torch.from_numpy(rng.integers(0, TIMESTEPS, BATCH)).to(device)
        alpha = rearrange(alphas[t], "b -> b 1 1 1")
        noise = torch.randn(x0.shape, generator=noise_rng).to(device)
        x = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
        context = model.read(rows)
        with torch.autocast(device.type, torch.bfloat16):
            output = unet(x.contiguous(memory_format=torch.channels_last), t, context).sample
        error = (output.float() - target).square()
        weight = alpha.sqrt() * (5 * (1 - alpha)).clamp(max=1) * (1 + OBJECT_WEIGHT * masks)
        loss = (weight * error).mean()
        return loss, {"v": loss.item()}

    train(
        f"lora_{look}",
        adapters,
        loss_of_step,
        folder=weights,
        steps=steps,
        peak_lr=PEAK_LR,
        ema=EMA,
        weight_decay=0.0,
        warm_up=WARM_UP,
        save_every=60.0,
    )


def export_lora(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write averaged weights in half precision, as ComfyUI reads LoRAs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(Adapters(make_unet()).in_file(weights), path, metadata={"format": "pt", "stagecraft": "sticker_world"})
