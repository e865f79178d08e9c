"""The autoencoder: the TAESD layout (4 channels, f8), trained narrow and widened with zeros.

Stock loaders build TAESD at width 64 everywhere. On a CPU most of the time would go into its full-resolution blocks, so
those are trained with fewer channels; padding the weights with zeros gives the same function at the stock width.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..training.loop import pick_device, train
from ..world.concepts import CANVAS
from ..world.dataset import Scenes

LATENT_CHANNELS = 4
TAESD_WIDTH = 64
WIDTHS = (16, 48, 64, 64)  # trained channels at full, half, quarter and eighth resolution
CROP, BATCH = 128, 8
LATENT_NOISE = 0.05  # in units of the latents' standard deviation: keeps neighbours decodable


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # there is no normalisation to rescue a fading signal
    return layer


class Block(nn.Module):
    """TAESD's residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))
        nn.init.zeros_(self.conv[-1].weight)  # starts as the identity, so that depth does not blow the sum up
        nn.init.zeros_(self.conv[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """(b c h w) -> (b c h w)."""
        return F.relu(self.conv(x) + x)


def _blocks(width: int) -> list[Block]:
    """The three of a resolution."""
    return [Block(width) for _ in range(3)]


class SoftClamp(nn.Module):
    """TAESD's first decoder layer: keeps latents within +-3."""

    def forward(self, x: Tensor) -> Tensor:
        """(b c h w) -> (b c h w)."""
        return torch.tanh(x / 3) * 3


class Autoencoder(nn.Module):
    """TAESD with a width per resolution. Pictures are b 3 h w in 0..1, latents b 4 (h/8) (w/8) near unit scale."""

    def __init__(self, widths: tuple[int, int, int, int] = WIDTHS) -> None:
        super().__init__()
        a, b, c, d = widths
        self.taesd_encoder = nn.Sequential(
            *(_conv(3, a), Block(a)),
            *(_conv(a, b, stride=2, bias=False), *_blocks(b)),
            *(_conv(b, c, stride=2, bias=False), *_blocks(c)),
            *(_conv(c, d, stride=2, bias=False), *_blocks(d)),
            _conv(d, LATENT_CHANNELS),
        )
        self.taesd_decoder = nn.Sequential(
            *(SoftClamp(), _conv(LATENT_CHANNELS, d), nn.ReLU()),
            *(*_blocks(d), nn.Upsample(scale_factor=2), _conv(d, c, bias=False)),
            *(*_blocks(c), nn.Upsample(scale_factor=2), _conv(c, b, bias=False)),
            *(*_blocks(b), nn.Upsample(scale_factor=2), _conv(b, a, bias=False)),
            *(Block(a), _conv(a, 3)),
        )

    def encode(self, image: Tensor) -> Tensor:
        """(b 3 h w) in 0..1 -> (b 4 h/8 w/8)."""
        return self.taesd_encoder(image)

    def decode(self, latent: Tensor) -> Tensor:
        """(b 4 h w) -> (b 3 8h 8w), about 0..1, not clamped."""
        return self.taesd_decoder(latent)


def widen(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pad narrow weights with zeros to the stock width; the function stays the same."""
    stock = {key: torch.zeros_like(value) for key, value in Autoencoder((TAESD_WIDTH,) * 4).state_dict().items()}
    for key, value in weights.items():
        stock[key][tuple(slice(size) for size in value.shape)] = value
    return stock


def narrow(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo `widen`."""
    return {
        key: weights[key][tuple(slice(size) for size in value.shape)].clone()
        for key, value in Autoencoder().state_dict().items()
    }


def _gradients(image: Tensor) -> tuple[Tensor, Tensor]:
    return image[..., 1:, :] - image[..., :-1, :], image[..., :, 1:] - image[..., :, :-1]


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 + MSE + L1 of the finite differences, which keeps edges sharp."""
    edges = sum(F.l1_loss(a, b) for a, b in zip(_gradients(output), _gradients(target), strict=True))
    return F.l1_loss(output, target) + 4 * F.mse_loss(output, target) + edges


def draw_crops(scenes: Scenes, series: int, step: int, device: torch.device) -> Tensor:
    """Random crops for one step: (b 3 h w) in 0..1, channels last."""
    rng = np.random.default_rng([series, step])
    rows, corners = rng.integers(0, len(scenes), BATCH), rng.integers(0, CANVAS - CROP + 1, (BATCH, 2))
    crops = np.stack([scenes.images[i, y : y + CROP, x : x + CROP] for i, (y, x) in zip(rows, corners, strict=True)])
    image = rearrange(torch.from_numpy(crops).to(device), "b h w c -> b c h w").float() / 255
    return image.contiguous(memory_format=torch.channels_last)


def keep_layout(*tensors: Tensor) -> None:
    """Gradients that arrive in the other memory layout make the convolutions' backward pass crawl."""
    for tensor in tensors:
        if tensor.requires_grad:
            tensor.register_hook(lambda grad: grad.contiguous(memory_format=torch.channels_last))


def train_autoencoder(scenes: Scenes, folder: Path, steps: int) -> dict[str, Tensor]:
    """Train on random crops of the scenes; returns the averaged narrow weights."""
    device = pick_device()
    torch.manual_seed(0)
    model = Autoencoder().to(device, memory_format=torch.channels_last)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        image = draw_crops(scenes, 1, step, device)
        with torch.autocast(device.type, torch.bfloat16):
            latent = model.encode(image)
            output = model.decode(latent + LATENT_NOISE * torch.randn_like(latent))
        keep_layout(latent, output)
        latent, output = latent.float(), output.float()
        moments = latent.mean((0, 2, 3)).square().mean() + (latent.var((0, 2, 3)) - 1).square().mean()
        return reconstruction_loss(output, image) + 0.1 * moments, {"psnr": psnr(output, image)}

    return train("autoencoder", model, loss_of_step, folder=folder, steps=steps, peak_lr=1.5e-3)


def train_decoder(scenes: Scenes, folder: Path, weights: dict[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Go on with the decoder alone: the latents stay what they are, so a denoiser trained on them stays valid."""
    device = pick_device()
    torch.manual_seed(0)
    model = Autoencoder().to(device, memory_format=torch.channels_last)
    model.load_state_dict(weights)
    model.taesd_encoder.requires_grad_(False)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        image = draw_crops(scenes, 5, step, device)
        with torch.autocast(device.type, torch.bfloat16):
            latent = model.encode(image)
            output = model.decode(latent + LATENT_NOISE * torch.randn_like(latent))
        keep_layout(output)
        output = output.float()
        return reconstruction_loss(output, image), {"psnr": psnr(output, image)}

    return train("decoder", model, loss_of_step, folder=folder, steps=steps, peak_lr=1e-3)


def psnr(output: Tensor, target: Tensor) -> float:
    """In dB, of pictures in 0..1; what lies outside is clamped."""
    return -10 * float(torch.log10(F.mse_loss(output.detach().clamp(0, 1), target)))
