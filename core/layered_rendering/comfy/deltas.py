"""Constant deltas of vision guidance: the latent of a colour, of a picture, or a given vector."""

import torch
from einops import reduce
from torch import Tensor

from ...comfy.types import Model, Vae
from ...drawing.pictures import check_finite, colours_of
from ...layout.region import colour_to_rgb

FLAT_PICTURE = 256  # pixels; large enough that its centre does not see the encoder's padding


def colour_latent(model: Model, vae: Vae | None, colour: str, phrase: str) -> Tensor:
    """Latent of a plain picture of one colour, (c), in the model's own latent space.

    As in the paper nothing is subtracted from it: xi is measured against the model's zero, which for the usual
    autoencoders is close to a middle grey.

    Args:
        model: whose latent space it is.
        vae: encodes the colour.
        colour: name or #rrggbb.
        phrase: the region's, for errors.

    Raises:
        ValueError: no VAE, or one of another model.
    """
    if vae is None:
        raise ValueError(
            f'The region "{phrase}" has the colour "{colour}". Connect the model\'s VAE to vae, or set strength to 0.'
        )
    picture = torch.tensor(colour_to_rgb(colour)).expand(1, FLAT_PICTURE, FLAT_PICTURE, 3)
    plane = _encode(model, vae, picture.contiguous())
    return plane[:, plane.shape[1] // 2, plane.shape[2] // 2]


def reference_latents(model: Model, vae: Vae | None, pictures: Tensor) -> Tensor:
    """Mean latents of pictures, (n c), in the model's own latent space.

    Args:
        model: whose latent space it is.
        vae: encodes the pictures.
        pictures: (n h w 3) in 0..1.

    Raises:
        ValueError: no VAE, or one of another model.
    """
    if vae is None:
        raise ValueError(
            "Regions have reference pictures, but no VAE is connected. Connect the model's VAE to vae, or set strength "
            "to 0."
        )
    return torch.stack(
        [reduce(_encode(model, vae, picture[None, ..., :3]), "c h w -> c", "mean") for picture in pictures]
    )


def checked_vector(model: Model, numbers: tuple[float, ...]) -> Tensor:
    """Give a vector, (c), if it has the model's number of latent channels.

    Raises:
        ValueError: another number.
    """
    channels = model.get_model_object("latent_format").latent_channels
    if len(numbers) != channels:
        raise ValueError(
            f"The vector has {len(numbers)} numbers, but the model has {channels} latent channels. Write one for each."
        )
    return torch.tensor(numbers, dtype=torch.float32)


def _encode(model: Model, vae: Vae, picture: Tensor) -> Tensor:
    """(1 h w 3) in 0..1 -> (c h w) in the model's latent space; of a video its first frame."""
    latent_format = model.get_model_object("latent_format")
    if vae.latent_channels != latent_format.latent_channels:
        raise ValueError(
            f"The VAE has {vae.latent_channels} latent channels, but the model has {latent_format.latent_channels}. "
            "Connect the VAE that belongs to the model to vae."
        )
    picture = check_finite(colours_of(picture), "A reference of vision guidance", "Connect one that shows something")
    latent = latent_format.process_in(vae.encode(picture))
    plane = latent[0, :, 0] if latent.ndim == 5 else latent[0]
    return plane.detach().float().cpu()
