"""Reads the shipped checkpoint back into the modules that it was trained as: to measure them, or to train from them."""

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from ..shipped import CHECKPOINT_FILE, TRANSFORMER_FILE
from .autoencoder import TAESD_WIDTH, Autoencoder, narrow
from .diffusion import StickerDiffusion
from .export import ldm_names
from .transformer_training import TaughtTransformer

FIRST_STAGE = "first_stage_model."
UNET = "model.diffusion_model."
TEXT = "cond_stage_model.transformer.text_model."


def _load(module: nn.Module, checkpoint: Path, name_in_file: Callable[[str], str]) -> None:
    """Fill a module in float32 and freeze it; every one of its weights must be in the file."""
    with safe_open(checkpoint, "pt") as file:
        module.load_state_dict({key: file.get_tensor(name_in_file(key)).float() for key in module.state_dict()})
    module.eval().requires_grad_(False)


def load_autoencoder(checkpoint: Path) -> Autoencoder:
    """The autoencoder at TAESD's stock width; its latents are raw, before the file's own scale."""
    model = Autoencoder((TAESD_WIDTH,) * 4)
    _load(model, checkpoint, lambda key: FIRST_STAGE + key)
    return model


def load_encoder(checkpoint: Path) -> Callable[[Tensor], Tensor]:
    """Pictures (b 3 h w) in 0..1 -> latents (b 4 h/8 w/8) as the U-Net expects them, at unit scale."""
    model, (scale, shift) = load_autoencoder(checkpoint), latent_scale(checkpoint)
    return lambda pictures: model.encode(pictures) / scale + shift


def latent_scale(checkpoint: Path) -> tuple[float, float]:
    """Scale and shift that give a raw latent z the unit scale that the U-Net expects: z / scale + shift."""
    with safe_open(checkpoint, "pt") as file:
        return tuple(float(file.get_tensor(f"{FIRST_STAGE}vae_{name}")) for name in ("scale", "shift"))


def load_diffusion(checkpoint: Path) -> StickerDiffusion:
    """U-Net and text encoder with the compact vocabulary's rows."""
    model = StickerDiffusion()
    names = ldm_names(model.unet.state_dict())
    _load(model.unet, checkpoint, lambda key: UNET + names[key])
    _load(model.text, checkpoint, lambda key: TEXT + key.removeprefix("text_model."))
    return model


def load_transformer(checkpoint: Path) -> TaughtTransformer:
    """Transformer and text encoder with the compact vocabulary's rows; the layer that reads tokens is in no file."""
    model = TaughtTransformer().requires_grad_(False)
    _load(model.transformer, checkpoint, lambda key: UNET + key)
    _load(model.text, checkpoint, lambda key: TEXT + key.removeprefix("text_model."))
    return model


def shipped_average(part: str) -> dict[str, Tensor] | None:
    """What the shipped files have of a part of the training, up to their half precision.

    Args:
        part: "autoencoder" or "diffusion", which every later model is trained with, or "transformer", whose training
            can go on; others are in no file as they were.

    Returns:
        Weights by the names of the part's averages, or None.
    """
    if part == "autoencoder":
        return narrow(load_autoencoder(CHECKPOINT_FILE).state_dict())
    if part == "diffusion":
        return load_diffusion(CHECKPOINT_FILE).state_dict()
    if part == "transformer" and TRANSFORMER_FILE.is_file():
        return load_transformer(TRANSFORMER_FILE).state_dict()
    return None
