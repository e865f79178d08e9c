"""Text2Layer's U-Nets on cached latents of layers: Zhang et al. 2023, arXiv 2307.09781, sections 4.2 and 5.

All start from the embedded checkpoint's U-Net and read its frozen text encoder. The shipped one is told besides what
lies below the layer that it is to paint, in as many input channels again, or that nothing does; the paper leaves more
than two layers as future work.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from einops import rearrange, repeat
from torch import Tensor

from ..checkpoint.autoencoder import LATENT_CHANNELS
from ..checkpoint.diffusion import (
    DROPPED_CAPTIONS,
    OBJECT_WEIGHT,
    OBJECT_WEIGHT_FROM,
    TIMESTEPS,
    UNKNOWN_WORDS,
    MapRecorder,
    make_text_encoder,
    make_unet,
    scaled_linear_alphas,
)
from ..training.fast_norm import use_fast_norms
from ..training.loop import pick_device, train
from ..world.vocabulary import vocabulary
from .latents import LayeredLatents, take

BATCH = 16
PEAK_LR = 5e-4
NEXT_LAYERS = 0.5  # share of a batch that paints one layer over what lies below; the others are whole scenes


@dataclass(frozen=True)
class Row:
    """One U-Net of the table.

    Attributes:
        codec: name of the latents that it paints.
        channels: of these.
        takes_below: whether it is told what lies below.
    """

    codec: str
    channels: int = LATENT_CHANNELS
    takes_below: bool = False


ROWS = {
    "t2l_layers": Row("t2l_autoencoder", takes_below=True),
    "t2l_two": Row("t2l_autoencoder"),  # CaT2I-AE-SD
    "t2l_two_plain": Row("t2l_autoencoder_plain"),  # ... (no-sup)
    "t2l_stacked": Row("stacked", channels=3 * LATENT_CHANNELS),  # SD-AE-UNet (ft)
    "t2l_single": Row("single"),  # SD-LAION-L2I, but for the start
}


def make_layered_unet(row: Row, start: Mapping[str, Tensor] | None = None) -> UNet2DConditionModel:
    """The checkpoint's U-Net with the channels of a row.

    Args:
        row: of the table.
        start: weights of the checkpoint's U-Net by diffusers' names. Where there are more channels, its own first and
            last convolution serve every picture of a stack alike; channels for what lies below start at zero.
    """
    inputs = row.channels * (2 if row.takes_below else 1)
    unet = UNet2DConditionModel.from_config(make_unet().config | {"in_channels": inputs, "out_channels": row.channels})
    if start is None:
        return unet
    weights, pictures = dict(start), row.channels // LATENT_CHANNELS
    first = repeat(weights["conv_in.weight"], "o i h w -> o (p i) h w", p=pictures) / pictures
    weights["conv_in.weight"] = torch.cat([first, first.new_zeros(len(first), inputs - row.channels, 3, 3)], 1)
    weights["conv_out.weight"] = repeat(weights["conv_out.weight"], "o i h w -> (p o) i h w", p=pictures)
    weights["conv_out.bias"] = repeat(weights["conv_out.bias"], "o -> (p o)", p=pictures)
    unet.load_state_dict(weights)
    return unet


@dataclass(frozen=True)
class Batch:
    """What a step trains on.

    Attributes:
        latents: at unit scale (b c h w).
        below: the same of what lies below, zeros where the U-Net is not told; None for one that never is.
        rows: captions in the compact vocabulary (b 77), some of them dropped.
        masks: the foreground (b 1 h w) in 0..1.
    """

    latents: Tensor
    below: Tensor | None
    rows: Tensor
    masks: Tensor


def draw_batch(row: Row, data: LayeredLatents, rng: np.random.Generator, number: int) -> Batch:
    """Draw latents and captions; those of a U-Net that takes what lies below are half of them next layers."""
    nexts = round(NEXT_LAYERS * number) if row.takes_below else 0
    latents, below, rows, masks = [], [], [], []
    for part, count in ((data.whole, number - nexts), (data.layers, nexts)):
        if not count:
            continue
        chosen = np.sort(rng.integers(0, len(part.latents), count))
        latents.append(data.scaled(part.latents[chosen]))
        below.append(torch.zeros_like(latents[-1]) if part.below is None else data.scaled(part.below[chosen]))
        captions, covered = take(part, chosen)
        rows.append(captions)
        masks.append(covered)
    captions = torch.cat(rows)
    unknown, empty = 0, vocabulary().encode([""])[0]
    captions[torch.from_numpy(rng.uniform(size=captions.shape) < UNKNOWN_WORDS) & (captions > 2)] = unknown
    captions[torch.from_numpy(rng.uniform(size=number) < DROPPED_CAPTIONS)] = empty
    return Batch(torch.cat(latents), torch.cat(below) if row.takes_below else None, captions, torch.cat(masks))


def denoising_loss(unet: UNet2DConditionModel, text: torch.nn.Module, batch: Batch, t: Tensor, noise: Tensor) -> Tensor:
    """Squared error of the velocity, weighted as the checkpoint's own training weighs it.

    Args:
        unet: see `make_layered_unet`.
        text: the frozen text encoder.
        batch: to paint.
        t: time steps (b).
        noise: as `batch.latents`.
    """
    device = next(unet.parameters()).device
    alpha = rearrange(scaled_linear_alphas()[t], "b -> b 1 1 1")
    x = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * noise
    target = (alpha.sqrt() * noise - (1 - alpha).sqrt() * batch.latents).to(device)
    if batch.below is not None:
        x = torch.cat([x, batch.below], 1)
    with torch.no_grad():
        context = text(input_ids=batch.rows.to(device)).last_hidden_state
    with torch.autocast(device.type, torch.bfloat16):
        output = unet(x.to(device).contiguous(memory_format=torch.channels_last), t.to(device), context).sample
    weight = alpha.sqrt() * (5 * (1 - alpha)).clamp(max=1)
    weight = weight * (1 + OBJECT_WEIGHT * batch.masks * (alpha > OBJECT_WEIGHT_FROM))
    return (weight.to(device) * (output.float() - target).square()).mean()


def _scale_file(folder: Path, part: str) -> Path:
    return folder / f"{part}.latents.json"


def read_latent_scale(folder: Path, part: str) -> tuple[float, float] | None:
    """Scale and shift of the latents that a U-Net was trained on, see `LayeredLatents`; None where none was."""
    path = _scale_file(folder, part)
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    return found["scale"], found["shift"]


def train_layered_diffusion(
    part: str, data: LayeredLatents, checkpoint: Mapping[str, Tensor], folder: Path, steps: int
) -> dict[str, Tensor]:
    """Train one U-Net; returns its averaged weights by diffusers' names. `read_latent_scale` reads what they are for.

    Args:
        part: a key of `ROWS`.
        data: latents of its codec.
        checkpoint: averaged weights of `StickerDiffusion`.
        folder: of states and averaged weights.
        steps: length of the schedule.
    """
    device, row = pick_device(), ROWS[part]
    torch.manual_seed(0)
    parts = {
        prefix: {key.removeprefix(prefix): value for key, value in checkpoint.items() if key.startswith(prefix)}
        for prefix in ("unet.", "text.")
    }
    unet = make_layered_unet(row, parts["unet."]).to(device, memory_format=torch.channels_last)
    unet.set_attn_processor(MapRecorder(0))  # plain matrix products; of no grid are maps kept
    if device.type == "cpu":
        use_fast_norms(unet)
    text = make_text_encoder()
    text.load_state_dict(parts["text."])
    text = text.to(device).eval().requires_grad_(False)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([9, step])
        batch = draw_batch(row, data, rng, BATCH)
        t = torch.from_numpy(rng.integers(0, TIMESTEPS, BATCH))
        noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(step))
        loss = denoising_loss(unet, text, batch, t, noise)
        return loss, {"loss": loss.item()}

    folder.mkdir(parents=True, exist_ok=True)
    _scale_file(folder, part).write_text(json.dumps({"scale": data.scale, "shift": data.shift}))
    return train(part, unet, loss_of_step, folder=folder, steps=steps, peak_lr=PEAK_LR, ema=0.9985)
