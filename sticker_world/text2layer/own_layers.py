"""Training of Text2Layer on a user's own layers, for a checkpoint of the user's.

Text2Layer (Zhang et al. 2023, arXiv 2307.09781): the layered autoencoder from scratch, then the checkpoint's U-Net on
its latents. As in the embedded file the U-Net takes what lies below a layer besides, half of the time. The checkpoint
is loaded as ComfyUI loads it, so ComfyUI has to be on Python's path.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...core.compose_and_conquer.comfy.frozen import FrozenCheckpoint
from ...core.text2layer.autoencoder import LayeredAutoencoder, LayeredAutoencoderConfig
from ...core.text2layer.comfy.trainable import TrainableUNet
from ...core.text2layer.discriminator import PatchDiscriminator
from ...core.text2layer.files import EPS, Text2LayerFile, V, read_text2layer, write_text2layer
from ...core.text2layer.losses import Layers
from ..checkpoint.diffusion import CONTEXT, DROPPED_CAPTIONS, TIMESTEPS, WIDTHS
from ..compose_and_conquer.picture_folder import CAPTIONS, PictureFolderError
from ..own_settings import LAYER_STEPS, OwnLayers
from ..training.loop import train
from ..training.prepared import prepare
from .autoencoder import EMBEDDED, SETTLED_FROM, autoencoder_step
from .diffusion import NEXT_LAYERS
from .layer_folder import BACKGROUND, FOREGROUND, MASK, LayerFolder, open_layer_folder
from .perceptual import load_lpips
from .samples import to_tensors

AUTOENCODER, UNET = LAYER_STEPS
AT_ONCE = 8
# reconstructed: a fifth of the steps, as Stable Diffusion's autoencoder starts it at 50 000 of about 250 000.
ADVERSARIAL_FROM = 0.2
SAVE_EVERY = 900.0  # seconds: the state of SD 1.5's U-Net has 14 GB


class Opponents(nn.Module):
    """The layered autoencoder and the discriminator, in one module the way they are trained."""

    def __init__(self, config: LayeredAutoencoderConfig) -> None:
        super().__init__()
        self.autoencoder = LayeredAutoencoder(config)
        self.discriminator = PatchDiscriminator()


def train_own_layers(settings: OwnLayers) -> Path:
    """Train on a folder of layers; goes on where it stopped.

    Args:
        settings: what to train on and with.

    Returns:
        The file, for models/text2layer.

    Raises:
        ValueError: something is missing or wrong in the folder, the checkpoint or the file to start from.
    """
    layers = open_layer_folder(settings.data, settings.size)
    checkpoint = FrozenCheckpoint(settings.checkpoint)
    start = None if settings.start is None else read_text2layer(settings.start)
    config = start.config if start else _config_for(checkpoint)
    weights = start.autoencoder if start else _train_autoencoder(layers, config, checkpoint.device, settings)
    autoencoder = LayeredAutoencoder(config)
    autoencoder.load_state_dict(weights)
    autoencoder = autoencoder.float().to(checkpoint.device).eval().requires_grad_(False)
    encoded = _encode(layers, autoencoder, weights, checkpoint, settings)
    scale, shift = (start.scale, start.shift) if start else _latent_scale(encoded[0])
    unet = _train_unet(encoded, checkpoint, config, start, (scale, shift), settings)
    path = settings.folder / f"{settings.data.name}_text2layer_fp16.safetensors"
    write_text2layer(path, unet, weights, config, scale=scale, shift=shift, prediction=_prediction(checkpoint, start))
    return path


def _config_for(checkpoint: FrozenCheckpoint) -> LayeredAutoencoderConfig:
    """The published shapes, but for the embedded U-Net those of the embedded autoencoder."""
    is_embedded = (checkpoint.config.widths, checkpoint.config.context_dim) == (WIDTHS, CONTEXT)
    return EMBEDDED if is_embedded else LayeredAutoencoderConfig()


def _prediction(checkpoint: FrozenCheckpoint, start: Text2LayerFile | None) -> str:
    if start is not None:
        return start.prediction
    return V if checkpoint.predicts_velocity else EPS


def _train_autoencoder(
    layers: LayerFolder, config: LayeredAutoencoderConfig, device: torch.device, settings: OwnLayers
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    module = Opponents(config).to(device, memory_format=torch.channels_last)
    perceptual = None if settings.lpips is None else load_lpips(settings.lpips, device)
    steps = settings.steps or LAYER_STEPS[AUTOENCODER]

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([10, step])
        truth = Layers(*to_tensors(layers.stacks(rng.integers(0, len(layers), settings.batch))))
        module.autoencoder.heads.train(step < SETTLED_FROM * steps)
        discriminator = module.discriminator if step >= ADVERSARIAL_FROM * steps else None
        generator = torch.Generator().manual_seed(step)
        return autoencoder_step(module.autoencoder, truth, perceptual, generator, discriminator)

    weights = train(
        AUTOENCODER,
        module,
        loss_of_step,
        folder=settings.folder,
        steps=steps,
        peak_lr=settings.learning_rate,
        save_every=SAVE_EVERY,
    )
    prefix = "autoencoder."
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _encode(
    layers: LayerFolder,
    autoencoder: LayeredAutoencoder,
    weights: dict[str, Tensor],
    checkpoint: FrozenCheckpoint,
    settings: OwnLayers,
) -> tuple[np.ndarray, np.ndarray]:
    """Latents of every picture and of its background alone (n 2 4 h w), and contexts of the captions (n 77 d)."""
    files, device = layers.folder.files, checkpoint.device
    first = next(iter(weights.values())).float().sum().item()  # another training gives other latents

    def key(kinds: tuple[str, ...], *made_by: object) -> str:
        found = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for kind in kinds for path in files[kind]]
        return hashlib.sha256(repr((settings.size, found, made_by)).encode()).hexdigest()

    @torch.no_grad()
    def latents(rows: range) -> np.ndarray:
        foreground, background, mask = layers.layers(rows).to(device).split((3, 3, 1), 1)
        whole = autoencoder.encode(foreground, background, mask)
        alone = autoencoder.encode(torch.zeros_like(foreground), background, torch.zeros_like(mask))
        return torch.stack([whole, alone], 1).float().cpu().numpy()

    def contexts(rows: range) -> np.ndarray:
        return checkpoint.read(layers.folder.captions(rows)).numpy()

    side, channels = settings.size // autoencoder.config.downscale, autoencoder.config.latent_channels
    shape = (len(layers), 2, channels, side, side)
    stamp = (str(settings.checkpoint), settings.checkpoint.stat().st_mtime_ns)
    made_by = key((FOREGROUND, BACKGROUND, MASK), first, settings.start)
    width = checkpoint.config.context_dim
    return (
        prepare(settings.folder / "layer_latents.npy", made_by, shape, latents, rows_at_once=AT_ONCE),
        prepare(
            settings.folder / "layer_contexts.npy",
            key((CAPTIONS,), stamp),
            (len(layers), 77, width),
            contexts,
            rows_at_once=AT_ONCE,
        ),
    )


def _latent_scale(latents: np.ndarray) -> tuple[float, float]:
    """What brings the pictures' latents to zero mean and unit variance, see `Text2LayerFile`."""
    whole = latents[:, 0].astype(np.float32)
    return 1 / float(whole.std()), float(whole.mean())


def _train_unet(
    encoded: tuple[np.ndarray, np.ndarray],
    checkpoint: FrozenCheckpoint,
    config: LayeredAutoencoderConfig,
    start: Text2LayerFile | None,
    latent_scale: tuple[float, float],
    settings: OwnLayers,
) -> dict[str, Tensor]:
    """Averaged weights by their original (ldm) names."""
    torch.manual_seed(0)
    weights = start.unet if start else checkpoint.ldm_weights()
    try:
        unet = TrainableUNet(checkpoint.shapes, weights, 2 * config.latent_channels).to(checkpoint.device)
    except RuntimeError as error:
        raise PictureFolderError(
            f"The U-Net in {settings.start} is not built like that of {settings.checkpoint}. Give the checkpoint that "
            "the file was trained from, or leave --start out."
        ) from error
    unet.train()
    predicts_velocity = _prediction(checkpoint, start) == V
    loss_of_step = _denoising(unet, encoded, checkpoint, latent_scale, predicts_velocity, settings.batch)
    steps = settings.steps or LAYER_STEPS[UNET]
    averaged = train(
        UNET,
        unet,
        loss_of_step,
        folder=settings.folder,
        steps=steps,
        peak_lr=settings.learning_rate,
        save_every=SAVE_EVERY,
    )
    return {name.removeprefix("network."): value for name, value in averaged.items()}


def _denoising(
    unet: TrainableUNet,
    encoded: tuple[np.ndarray, np.ndarray],
    checkpoint: FrozenCheckpoint,
    latent_scale: tuple[float, float],
    predicts_velocity: bool,
    batch: int,
) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    latents, contexts = encoded
    scale, shift = latent_scale
    device, alphas, no_caption = checkpoint.device, checkpoint.alphas.cpu(), checkpoint.read([""])

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([11, step])
        rows, t = rng.integers(0, len(latents), batch), torch.from_numpy(rng.integers(0, TIMESTEPS, batch))
        told, unsaid = (torch.from_numpy(rng.uniform(size=batch) < p) for p in (NEXT_LAYERS, DROPPED_CAPTIONS))
        clean, below = ((torch.from_numpy(latents[rows]).float() - shift) * scale).unbind(1)
        below = below * rearrange(told, "b -> b 1 1 1")
        context = torch.where(rearrange(unsaid, "b -> b 1 1"), no_caption, torch.from_numpy(contexts[rows]).float())
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(step))
        alpha = rearrange(alphas[t], "b -> b 1 1 1")
        x = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean if predicts_velocity else noise
        with torch.autocast(device.type, torch.bfloat16):
            output = unet(torch.cat([x, below], 1).to(device), t.to(device), context.to(device))
        loss = F.mse_loss(output.float(), target.to(device))
        return loss, {"loss": loss.item()}

    return loss_of_step
