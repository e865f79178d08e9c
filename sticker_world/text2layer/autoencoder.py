"""Training of the embedded CaT2I-AE on exact layers: Text2Layer (Zhang et al. 2023, arXiv 2307.09781), section 4.1.

The adversarial part is left out: a discriminator would double the time of a step on a CPU.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...core.segmentation.segmenter import Segmenter
from ...core.text2layer.autoencoder import LayeredAutoencoder, LayeredAutoencoderConfig
from ...core.text2layer.discriminator import PatchDiscriminator, adversarial_loss
from ...core.text2layer.losses import (
    Layers,
    Perceptual,
    feature_distance,
    kl_loss,
    layered_loss,
    seen_pictures,
    stack_pictures,
)
from ..checkpoint.autoencoder import keep_layout
from ..shipped import SEGMENTER_FOLDER
from ..training.fast_norm import use_fast_norms
from ..training.loop import pick_device, train
from .samples import draw_crops, to_tensors

# reconstructed: the published widths are for photographs of 512 px; patches save a CPU the work at full resolution.
EMBEDDED = LayeredAutoencoderConfig(
    block_out_channels=(48, 64, 96),
    layers_per_block=1,
    norm_num_groups=8,
    group_norm=False,
    head_width=32,
    mid_block_add_attention=False,
    patch_size=2,
)
SHIPPED = "t2l_autoencoder"
PARTS = {SHIPPED: EMBEDDED, "t2l_autoencoder_plain": replace(EMBEDDED, auxiliary=False)}
CROP, BATCH = 128, 8
PEAK_LR = 1e-3
# reconstructed: Stable Diffusion's 1e-6 hardly acts on a mean; this one keeps latents near unit scale and their noise
# at the size where a denoiser's errors do little harm.
KL_WEIGHT = 3e-3
# reconstructed: of the distance in the embedded segmenter's features, which stands for LPIPS, whose weights need
# another download.
PERCEPTUAL_WEIGHT = 0.2
# reconstructed: share of the steps after which the heads' batch normalisation keeps its averages. The mean of a few
# crops is mostly a colour, which would be taken out of them.
SETTLED_FROM = 0.15


def segmenter_distance(size: int) -> Perceptual:
    """Weighted distance of pictures of `size` pixels in the features of the embedded segmenter's encoder."""
    segmenter = Segmenter.load(SEGMENTER_FOLDER, pick_device())
    segmenter = replace(segmenter, network=segmenter.network.base_model, size=(size, size))

    def distance(predicted: Tensor, true: Tensor) -> Tensor:
        with torch.no_grad():
            expected = segmenter.features(rearrange(true, "b c h w -> b h w c"))
        found = segmenter.features(rearrange(predicted, "b c h w -> b h w c"))
        return PERCEPTUAL_WEIGHT * feature_distance([x.float() for x in found], [x.float() for x in expected])

    return distance


def keep_layouts(model: LayeredAutoencoder) -> None:
    """Make gradients arrive channels last where losses of other layouts meet the network."""

    def watch(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        keep_layout(output)

    for part in (*model.heads.values(), model.quant_conv):
        part.register_forward_hook(watch)


def autoencoder_step(
    model: LayeredAutoencoder,
    truth: Layers,
    perceptual: Perceptual | None,
    generator: torch.Generator,
    discriminator: PatchDiscriminator | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of one batch through a sampled latent, the discriminator's own included, and what to print."""
    device = truth.mask.device.type
    with torch.autocast(device, torch.bfloat16):
        mean, logvar = model.posterior(truth.foreground, truth.background, truth.mask)
        noise = torch.randn(mean.shape, generator=generator).to(truth.mask.device)
        mean, logvar = mean.float(), logvar.float()
        output = model.predict(mean + (0.5 * logvar).exp() * noise)
        loss, parts = layered_loss(output, truth, perceptual)
        if discriminator is not None:
            last = [head[-1].weight for name, head in model.heads.items() if name != "mask"]
            pictures = stack_pictures(seen_pictures(output, truth))
            fooled, found_out = adversarial_loss(discriminator, *pictures, loss, last)
            parts |= {"adversarial": fooled.detach(), "discriminator": found_out.detach()}
            loss = loss + fooled + found_out
    numbers = {name: part.item() for name, part in parts.items()}
    numbers |= {"std": mean.detach().std().item(), "noise": (0.5 * logvar.detach()).exp().mean().item()}
    numbers["psnr"] = -10 * float(torch.log10(F.mse_loss(output.composite().detach().clamp(0, 1), truth.composite())))
    return loss + KL_WEIGHT * kl_loss(mean, logvar), numbers


def train_layered_autoencoder(part: str, layers: np.ndarray, folder: Path, steps: int) -> dict[str, Tensor]:
    """Train on random crops of layers; returns the averaged weights.

    Args:
        part: a key of `PARTS`.
        layers: see `open_layers`.
        folder: of states and averaged weights.
        steps: length of the schedule.
    """
    device = pick_device()
    torch.manual_seed(0)
    model = LayeredAutoencoder(PARTS[part]).to(device, memory_format=torch.channels_last)
    keep_layouts(model)
    if device.type == "cpu":
        use_fast_norms(model)
    perceptual = segmenter_distance(CROP)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        model.heads.train(step < SETTLED_FROM * steps)
        truth = Layers(*to_tensors(draw_crops(layers, np.random.default_rng([8, step]), BATCH, CROP)))
        return autoencoder_step(model, truth, perceptual, torch.Generator().manual_seed(step))

    return train(part, model, loss_of_step, folder=folder, steps=steps, peak_lr=PEAK_LR)


def load_layered_autoencoder(part: str, weights: dict[str, Tensor]) -> LayeredAutoencoder:
    """A trained autoencoder, ready to encode and decode."""
    model = LayeredAutoencoder(PARTS[part])
    model.load_state_dict({name: value.to(model.state_dict()[name].dtype) for name, value in weights.items()})
    return model.to(pick_device(), memory_format=torch.channels_last).eval().requires_grad_(False)
