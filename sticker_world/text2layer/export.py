"""From training weights of Text2Layer to the shipped file."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ...core.text2layer.files import V, write_text2layer
from ..checkpoint.export import ldm_names
from .autoencoder import EMBEDDED
from .latents import LayeredLatents


def export_text2layer(
    unet: Mapping[str, Tensor], autoencoder: Mapping[str, Tensor], data: LayeredLatents, path: Path, bits: int | None
) -> None:
    """Write the U-Net and the layered autoencoder whose latents it paints.

    Args:
        unet: averaged weights by diffusers' names.
        autoencoder: averaged weights of the embedded `LayeredAutoencoder`.
        data: what the U-Net was trained on; its scale and shift are the file's.
        path: the file.
        bits: of a large weight; None for half precision.
    """
    named = {name: unet[key] for key, name in ldm_names(unet).items()}
    write_text2layer(path, named, autoencoder, EMBEDDED, scale=data.scale, shift=data.shift, prediction=V, bits=bits)
