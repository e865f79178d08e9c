"""Files with a Text2Layer model: a U-Net and the layered autoencoder whose latents it paints, in one safetensors file.

The weights have Stable Diffusion's original (ldm) names behind `model.diffusion_model.`, and those of
`LayeredAutoencoder` behind `layered_autoencoder.`; what shapes do not tell lies in the metadata.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..weights.packed import pack_weights, unpack_weights
from ..weights.whole_files import whole_files
from .autoencoder import LayeredAutoencoder, LayeredAutoencoderConfig

UNET, AUTOENCODER = "model.diffusion_model.", "layered_autoencoder."
CONFIG = "layered_autoencoder"  # metadata: JSON of `LayeredAutoencoderConfig.to_dict`
SCALE, SHIFT = "latent_scale", "latent_shift"  # metadata: what the U-Net sees is (z - shift) * scale
PREDICTION = "prediction"  # metadata: what the U-Net predicts
EPS, V = "eps", "v"
SAFE = (".safetensors", ".sft")
FIRST, LAST = "input_blocks.0.0.weight", "out.2.weight"  # of the U-Net
# Of the autoencoder that every Stable Diffusion checkpoint has.
STOCK = ("first_stage_model.", "vae.")

Weights = dict[str, Tensor]


class Text2LayerFileError(ValueError):
    """A file that does not hold a Text2Layer model."""


@dataclass(frozen=True)
class Text2LayerFile:
    """What a file holds.

    Attributes:
        unet: weights by their original (ldm) names.
        autoencoder: weights of a `LayeredAutoencoder`.
        config: its shapes.
        scale: what the autoencoder's latents are multiplied by after the shift is taken off, so that they have unit
            variance.
        shift: their mean.
        prediction: `EPS` or `V`.
    """

    unet: Weights
    autoencoder: Weights
    config: LayeredAutoencoderConfig
    scale: float
    shift: float
    prediction: str

    @property
    def takes_below(self) -> bool:
        """Whether the U-Net can be told what lies below the layer that it paints."""
        return self.unet[FIRST].shape[1] == 2 * self.config.latent_channels


def write_text2layer(
    path: str | Path,
    unet: Mapping[str, Tensor],
    autoencoder: Mapping[str, Tensor],
    config: LayeredAutoencoderConfig,
    *,
    scale: float,
    shift: float,
    prediction: str,
    bits: int | None = None,
) -> None:
    """Write a Text2Layer model.

    Args:
        path: the file; it appears when it is complete.
        unet: weights by their original (ldm) names, without a prefix.
        autoencoder: weights of a `LayeredAutoencoder`.
        config: its shapes.
        scale: see `Text2LayerFile`.
        shift: see `Text2LayerFile`.
        prediction: `EPS` or `V`.
        bits: of a large weight of the U-Net, see `pack_weights`; the autoencoder's, whose errors would show in every
            pixel, get 8. None for half precision.
    """
    path = Path(path)
    named = {UNET + key: value for key, value in unet.items()}
    named |= {AUTOENCODER + key: value for key, value in autoencoder.items()}
    metadata = {
        "format": "pt",
        CONFIG: json.dumps(config.to_dict()),
        SCALE: repr(float(scale)),
        SHIFT: repr(float(shift)),
        PREDICTION: prediction,
    }
    if bits is None:
        tensors = {name: value.detach().cpu().to(torch.float16).contiguous() for name, value in named.items()}
    else:
        tensors, packed = pack_weights(named, bits, exact=(AUTOENCODER,))
        metadata |= packed
    with whole_files() as beside:
        save_file(tensors, beside(path), metadata=metadata)


def read_text2layer(path: str | Path) -> Text2LayerFile:
    """Open a file with a Text2Layer model.

    Raises:
        Text2LayerFileError: not safetensors, damaged, another model's file, or settings that cannot be meant.
    """
    path = Path(path)
    if path.suffix.lower() not in SAFE:
        raise Text2LayerFileError(
            f"{path.name} is no safetensors file. Text2Layer has no other files; train one with: stage.py train "
            "text2layer"
        )
    try:
        with safe_open(path, framework="pt") as file:
            names, metadata = list(file.keys()), file.metadata() or {}
            _require_both(path.name, names)
            found = {name: file.get_tensor(name) for name in names if name.startswith((UNET, AUTOENCODER))}
    except Text2LayerFileError:
        raise
    except Exception as error:  # over damaged bytes the reader stumbles anywhere
        raise Text2LayerFileError(
            f"{path.name} cannot be read as safetensors ({error}). Copy the file again."
        ) from error
    try:
        weights = unpack_weights(found, metadata)
        config = LayeredAutoencoderConfig.from_dict(json.loads(metadata[CONFIG]))
        unet, autoencoder = (
            {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            for prefix in (UNET, AUTOENCODER)
        )
        _require_unet(unet, config)
        _require_autoencoder(autoencoder, config)
        return Text2LayerFile(
            unet, autoencoder, config, _number(metadata, SCALE), _number(metadata, SHIFT), _prediction(metadata)
        )
    except KeyError as error:
        raise Text2LayerFileError(
            f"{path.name} does not say its {error.args[0]} in its metadata, where stage.py train text2layer writes it. "
            "Some tools drop metadata when they save a file: take the original one."
        ) from error
    except Exception as error:  # whatever a wrong setting does inside
        raise Text2LayerFileError(f"{path.name} cannot be used: {error}.") from error


def _require_both(name: str, names: list[str]) -> None:
    has_unet, has_autoencoder = (any(each.startswith(prefix) for each in names) for prefix in (UNET, AUTOENCODER))
    if has_unet and has_autoencoder:
        return
    if has_unet and any(each.startswith(STOCK) for each in names):
        raise Text2LayerFileError(
            f"{name} is an ordinary checkpoint, which paints pictures without layers. Load it with Load Checkpoint; "
            "here choose a Text2Layer file, as stage.py train text2layer writes it."
        )
    missing = AUTOENCODER if not has_autoencoder else UNET
    raise Text2LayerFileError(
        f'{name} holds no Text2Layer model: no weight begins with "{missing}". Choose a file that stage.py train '
        "text2layer has written."
    )


def _require_unet(unet: Weights, config: LayeredAutoencoderConfig) -> None:
    channels = config.latent_channels
    if FIRST not in unet or LAST not in unet or unet[FIRST].ndim != 4 or unet[LAST].ndim != 4:
        raise ValueError("its U-Net does not have the names of Stable Diffusion's original files")
    given, made = unet[FIRST].shape[1], unet[LAST].shape[0]
    if given not in (channels, 2 * channels) or made != channels:
        raise ValueError(
            f"its U-Net takes {given} channels and gives {made}; expected {channels} (a layer's latent) or "
            f"{2 * channels} (with what lies below), and {channels}"
        )


def _require_autoencoder(weights: Weights, config: LayeredAutoencoderConfig) -> None:
    with torch.device("meta"):
        expected = LayeredAutoencoder(config).state_dict()
    wrong = sorted(
        name
        for name in expected.keys() | weights.keys()
        if name not in weights or name not in expected or weights[name].shape != expected[name].shape
    )
    if wrong:
        raise ValueError(f"{len(wrong)} weights of its autoencoder do not fit its settings, {wrong[0]} first")


def _number(metadata: Mapping[str, str], key: str) -> float:
    value = float(metadata[key])
    if not math.isfinite(value) or (key == SCALE and value <= 0):
        raise ValueError(f"its {key} is {metadata[key]}; expected a finite number, above 0 for {SCALE}")
    return value


def _prediction(metadata: Mapping[str, str]) -> str:
    if (found := metadata[PREDICTION]) not in (EPS, V):
        raise ValueError(f'its U-Net predicts "{found}"; known: {EPS}, {V}')
    return found
