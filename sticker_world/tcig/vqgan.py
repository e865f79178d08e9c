"""The VQGAN (Esser et al. 2021, arXiv 2012.09841) as diffusers' VQModel, small enough for a CPU.

It is VQGAN's autoencoder with its code book, trained without the discriminator: drafts need right shapes and colours,
and a diffusion model paints the texture afterwards. The code book is filled by k-means once the encoder has settled
without it, and codes that nothing uses are moved to where latents are, so that nearly all of it is in use.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import VQModel
from einops import rearrange
from torch import Tensor, nn

from ..checkpoint.autoencoder import LATENT_NOISE, draw_crops, keep_layout, psnr, reconstruction_loss
from ..training.fast_norm import use_fast_norms
from ..training.loop import pick_device, train
from ..world.dataset import Scenes

PART = "vqgan"
WIDTHS = (16, 32, 64, 96)  # channels at full, half, quarter and eighth resolution: most time goes into the first
CODES, CHANNELS = 1024, 8
# In groups of two channels an even ground has no more than two values, whatever its colour; all channels together keep
# the colours of flat pictures.
NORM_GROUPS = 1
SERIES, SEARCH_SERIES = 9, 10  # of random crops: for the steps, and for the first code book
SETTLING = 0.15  # share of the steps before there is a code book
REVIVING = 0.7  # share of the steps up to which unused codes are moved
REVIVE_EVERY = 50  # steps
FORGETTING = 0.99  # of the counts of use, per step
UNUSED = 0.03  # of the mean use
SEARCH_BATCHES, SEARCH_ROUNDS = 12, 10  # of k-means
MOMENTS_WEIGHT = 0.1  # latents near unit scale, so that one learning rate suits all channels of a draft


class TaughtVQGAN(nn.Module):
    """The model and how often each of its codes was the nearest lately."""

    def __init__(self) -> None:
        super().__init__()
        self.model = make_vqgan()
        self.register_buffer("use", torch.ones(CODES))


def make_vqgan() -> VQModel:
    """Untrained: pictures (b 3 h w) in -1..1, latents (b 8 h/8 w/8)."""
    levels = len(WIDTHS)
    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=WIDTHS,
        latent_channels=CHANNELS,
        vq_embed_dim=CHANNELS,
        num_vq_embeddings=CODES,
        norm_num_groups=NORM_GROUPS,
        mid_block_add_attention=False,
    )


def train_vqgan(scenes: Scenes, folder: Path, steps: int) -> dict[str, Tensor]:
    """Train on random crops of the scenes; returns the averaged weights of `TaughtVQGAN`."""
    device = pick_device()
    torch.manual_seed(0)
    taught = TaughtVQGAN().to(device, memory_format=torch.channels_last)
    model = taught.model
    use_fast_norms(model)
    settled, revived = round(SETTLING * steps), round(REVIVING * steps)

    def encode(image: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            latent = model.encode(image * 2 - 1).latents
        keep_layout(latent)
        return latent.float()

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        if step == settled:
            with torch.no_grad():
                found = [encode(draw_crops(scenes, SEARCH_SERIES, i, device)) for i in range(SEARCH_BATCHES)]
                fill_code_book(model.quantize.embedding.weight, torch.cat([as_rows(each) for each in found]))
        image = draw_crops(scenes, SERIES, step, device)
        latent = encode(image)
        if step < settled:
            code, binding = latent + LATENT_NOISE * torch.randn_like(latent), latent.new_zeros(())
        else:
            code, binding, (_, _, nearest) = model.quantize(latent)
            taught.use.mul_(FORGETTING).add_(torch.bincount(nearest.flatten(), minlength=CODES))
            if step % REVIVE_EVERY == 0 and step < revived:
                revive(model.quantize.embedding.weight, taught.use, as_rows(latent.detach()))
        with torch.autocast(device.type, torch.bfloat16):
            output = model.decoder(model.post_quant_conv(code))
        keep_layout(output)
        output = (output.float() + 1) / 2
        moments = latent.mean((0, 2, 3)).square().mean() + (latent.var((0, 2, 3)) - 1).square().mean()
        loss = reconstruction_loss(output, image) + binding + MOMENTS_WEIGHT * moments
        used = (taught.use > UNUSED * taught.use.mean()).float().mean()
        return loss, {"psnr": psnr(output, image), "binding": float(binding.detach()), "used": float(used)}

    return train(PART, taught, loss_of_step, folder=folder, steps=steps, peak_lr=1.5e-3)


def as_rows(latent: Tensor) -> Tensor:
    """Latents (b c h w) -> (n c)."""
    return rearrange(latent, "b c h w -> (b h w) c")


@torch.no_grad()
def fill_code_book(codes: Tensor, rows: Tensor, rounds: int = SEARCH_ROUNDS) -> None:
    """Put the centres of k-means over latents into the code book, in place.

    Args:
        codes: (k c).
        rows: (n c), at least as many as there are codes; their order decides where the search begins.
        rounds: of Lloyd's algorithm; a centre that loses its last row stays where it is.
    """
    codes.copy_(rows[torch.linspace(0, len(rows) - 1, len(codes)).long()])
    for _ in range(rounds):
        nearest = torch.cdist(rows, codes).argmin(1)
        counts = torch.bincount(nearest, minlength=len(codes))
        sums = torch.zeros_like(codes).index_add_(0, nearest, rows)
        codes.copy_(torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), codes))


@torch.no_grad()
def revive(codes: Tensor, use: Tensor, rows: Tensor) -> None:
    """Move codes that nothing uses to latents, in place, and count them as used as much as the others.

    Args:
        codes: (k c).
        use: (k), how often each was the nearest lately.
        rows: (n c); those farthest from their nearest code are taken.
    """
    dead = (use < UNUSED * use.mean()).nonzero().flatten()[: len(rows)]
    farthest = torch.cdist(rows, codes).amin(1).argsort(descending=True)
    codes[dead] = rows[farthest[: len(dead)]]
    use[dead] = use.mean()


def export_vqgan(weights: dict[str, Tensor], folder: Path) -> None:
    """Write the model as a diffusers folder in half precision."""
    taught = TaughtVQGAN()
    taught.load_state_dict(weights)
    taught.model.half().save_pretrained(folder)


@torch.no_grad()
def vqgan_psnr(model: VQModel, images: Tensor) -> float:
    """Mean PSNR in dB of pictures (b 3 h w) in 0..1 after encoding, quantising and decoding."""
    outputs = torch.cat([(model(part * 2 - 1).sample + 1) / 2 for part in images.split(8)])
    errors = F.mse_loss(outputs.clamp(0, 1), images, reduction="none").mean((1, 2, 3))
    return float((-10 * errors.log10()).mean())
