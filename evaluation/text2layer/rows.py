"""The rows of Text2Layer's tables (arXiv 2307.09781, tables I and II): U-Nets and the codecs of their latents.

All were trained for as many steps, from the same U-Net, on the same scenes. Only the first is shipped; the others are
read from the training folder. They paint here without a host, all with the same sampler, and so does the checkpoint.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce, repeat
from safetensors.torch import load_file
from torch import Tensor

from ...core.text2layer.autoencoder import LayeredAutoencoder
from ...core.text2layer.files import Text2LayerFile, read_text2layer
from ...sticker_world.checkpoint.autoencoder import LATENT_CHANNELS, Autoencoder
from ...sticker_world.checkpoint.diffusion import LATENT_SIZE, TIMESTEPS, StickerDiffusion
from ...sticker_world.checkpoint.export import ldm_names
from ...sticker_world.checkpoint.shipped_weights import latent_scale, load_autoencoder, load_diffusion
from ...sticker_world.shipped import CHECKPOINT_FILE, TEXT2LAYER_FILE
from ...sticker_world.text2layer.autoencoder import load_layered_autoencoder
from ...sticker_world.text2layer.diffusion import ROWS, make_layered_unet, read_latent_scale
from ...sticker_world.text2layer.latents import single_codec, stacked_codec
from ...sticker_world.training.loop import is_trained, weights_folder
from ...sticker_world.world.vocabulary import vocabulary
from ..graphs.builder import CFG, NEGATIVE, STEPS
from .scores import TwoLayers

SHIPPED = "t2l_layers"
STACKED, SINGLE = "stacked", "single"  # codecs of the stock autoencoder
CHECKPOINT = "checkpoint"  # not a row of the paper's: what the U-Nets start from, for what layers cost
NAMES = {  # of the paper's rows, as they are called in results
    SHIPPED: "shipped",
    "t2l_two": "CaT2I-AE-SD",
    "t2l_two_plain": "CaT2I-AE-SD (no-sup)",
    "t2l_stacked": "SD-AE-UNet (ft)",
    "t2l_single": "single picture",
    CHECKPOINT: "the checkpoint itself, without layers",
}
CODEC_NAMES = {  # of the codecs that have layers
    SHIPPED: "shipped",
    "t2l_autoencoder_plain": "CaT2I-AE (no-sup)",
    STACKED: "stacked stock latents",
}
AT_ONCE = 8  # pictures in a batch


def missing_parts(name: str) -> list[str]:
    """Parts of the training that a row or a codec of this name still needs, in the order in which they are trained.

    One that was broken off counts as missing: all rows have to be trained for as many steps.
    """
    weights, codec = weights_folder(), ROWS[name].codec if name in ROWS else name
    missing = [] if codec in (STACKED, SINGLE) or is_trained(_averages(codec)) else [codec]
    if name in ROWS and (not is_trained(_averages(name)) or read_latent_scale(weights, name) is None):
        missing.append(name)
    return missing


def _averages(part: str) -> Path:
    return weights_folder() / f"{part}.safetensors"


def trained_files() -> dict[str, Path]:
    """Files of the training folder that rows and codecs are read from, by their parts."""
    rows = [name for name in NAMES if name not in (SHIPPED, CHECKPOINT)]
    parts = dict.fromkeys([*rows, *(ROWS[name].codec for name in rows), *CODEC_NAMES])
    return {part: _averages(part) for part in parts if part not in (SHIPPED, STACKED, SINGLE)}


@dataclass(frozen=True)
class Decoded:
    """What a latent is: a picture, and its layers where the row has any."""

    picture: np.ndarray
    layers: TwoLayers | None


@dataclass(frozen=True)
class LayeredCodec:
    """Layers to raw latents and back.

    Attributes:
        encode: foreground and background (b 3 h w), mask (b 1 h w) -> latent.
        decode: latent -> a picture each.
    """

    encode: Callable[[Tensor, Tensor, Tensor], Tensor]
    decode: Callable[[Tensor], list[Decoded]]

    @torch.no_grad()
    def through(self, layers: Sequence[TwoLayers]) -> list[Decoded]:
        """Encode and decode layers."""
        found = []
        for start in range(0, len(layers), AT_ONCE):
            part = layers[start : start + AT_ONCE]
            pictures = (np.stack([getattr(each, name) for each in part]) for name in ("foreground", "background"))
            foreground, background = (rearrange(torch.from_numpy(x), "b h w c -> b c h w").float() for x in pictures)
            mask = torch.from_numpy(np.stack([each.mask for each in part]))[:, None].float()
            found += self.decode(self.encode(foreground, background, mask))
        return found


def _from_channels(foreground: Tensor, background: Tensor, mask: Tensor) -> list[Decoded]:
    """(b 3 h w), (b 3 h w), (b 1 h w) in 0..1 -> one each."""
    parts = (rearrange(x, "b c h w -> b h w c").numpy() for x in (foreground, background, mask))
    found = [TwoLayers(f, b, m[..., 0]) for f, b, m in zip(*parts, strict=True)]
    return [Decoded(_to_uint8(each.composite()), each) for each in found]


def _to_uint8(picture: np.ndarray) -> np.ndarray:
    return np.round(255 * picture.clip(0, 1)).astype(np.uint8)


def layered(model: LayeredAutoencoder) -> LayeredCodec:
    """A CaT2I-AE's codec."""

    def decode(latent: Tensor) -> list[Decoded]:
        found = model.decode(latent)
        return _from_channels(found.foreground, found.background, found.mask)

    return LayeredCodec(model.encode, decode)


def stacked(stock: Autoencoder) -> LayeredCodec:
    """Foreground, background and mask each through the stock autoencoder (SD-AE-UNet)."""

    def decode(latent: Tensor) -> list[Decoded]:
        pictures = stock.decode(rearrange(latent, "b (p c) h w -> (p b) c h w", c=LATENT_CHANNELS)).clamp(0, 1)
        foreground, background, mask = pictures.chunk(3)
        return _from_channels(foreground, background, reduce(mask, "b c h w -> b 1 h w", "mean"))

    return LayeredCodec(stacked_codec(stock).encode, decode)


def single(stock: Autoencoder) -> LayeredCodec:
    """The composed picture alone; nothing tells what of it is the foreground."""

    def decode(latent: Tensor) -> list[Decoded]:
        pictures = rearrange(stock.decode(latent), "b c h w -> b h w c").numpy()
        return [Decoded(_to_uint8(picture), None) for picture in pictures]

    return LayeredCodec(single_codec(stock).encode, decode)


@dataclass(frozen=True)
class LayerPainter:
    """A row of the table.

    Attributes:
        unet: which it is measured by.
        codec: of its latents.
        channels: of these.
        takes_below: whether the U-Net has channels for what lies below, which are zeros here.
        scale: what the U-Net sees is (z - shift) * scale.
        shift: see `scale`.
    """

    unet: torch.nn.Module
    codec: LayeredCodec
    channels: int
    takes_below: bool
    scale: float
    shift: float

    @torch.no_grad()
    def paint(self, prompts: Sequence[str], seeds: Sequence[int], steps: int = STEPS) -> list[Decoded]:
        """Paint a picture of each prompt with DDIM (Song et al. 2021, arXiv 2010.02502), eta 0.

        The paper samples so too (section 5), but with 50 steps and a CFG of 7.5. Ours are those of all our evaluations.
        """
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler(
            TIMESTEPS,
            0.00085,
            0.012,
            "scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            prediction_type="v_prediction",
            timestep_spacing="trailing",
        )
        scheduler.set_timesteps(steps)
        context = _read([NEGATIVE] * len(prompts) + list(prompts))
        shape = (self.channels, LATENT_SIZE, LATENT_SIZE)
        x = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        for t in scheduler.timesteps:
            seen = torch.cat([x, torch.zeros_like(x)], 1) if self.takes_below else x
            negative, positive = self.unet(repeat(seen, "b ... -> (2 b) ..."), t, context).sample.chunk(2)
            x = scheduler.step(negative + CFG * (positive - negative), t, x).prev_sample
        return self.codec.decode(x / self.scale + self.shift)


@cache
def _checkpoint() -> StickerDiffusion:
    return load_diffusion(CHECKPOINT_FILE)


def _read(prompts: Sequence[str]) -> Tensor:
    """Prompts as the checkpoint's text encoder reads them: (b 77 d)."""
    return _checkpoint().text(input_ids=vocabulary().encode(list(prompts))).last_hidden_state


@cache
def _stock() -> Autoencoder:
    return load_autoencoder(CHECKPOINT_FILE)


def shipped_codec(file: Text2LayerFile) -> LayeredCodec:
    """The shipped file's codec, with its weights as they are packed there."""
    model = LayeredAutoencoder(file.config)
    model.load_state_dict(file.autoencoder)
    return layered(model.float().eval().requires_grad_(False).to(memory_format=torch.channels_last))


def open_codec(name: str) -> LayeredCodec | None:
    """The codec of this name, a key of `CODEC_NAMES` or a row's; None where its weights are missing."""
    if name == STACKED:
        return stacked(_stock())
    if name == SINGLE:
        return single(_stock())
    if name == SHIPPED:
        return shipped_codec(read_text2layer(TEXT2LAYER_FILE)) if TEXT2LAYER_FILE.is_file() else None
    if missing_parts(name):
        return None
    return layered(load_layered_autoencoder(name, load_file(_averages(name))).cpu())


def open_painter(name: str) -> LayerPainter | None:
    """The row of this name, a key of `NAMES`; None where its weights or their codec's are missing."""
    if name == CHECKPOINT:
        unet, (scale, shift) = _checkpoint().unet.to(memory_format=torch.channels_last), latent_scale(CHECKPOINT_FILE)
        return LayerPainter(unet, single(_stock()), LATENT_CHANNELS, False, 1 / scale, -scale * shift)
    row = ROWS[name]
    unet = make_layered_unet(row).eval().requires_grad_(False)
    if name == SHIPPED:
        if not TEXT2LAYER_FILE.is_file():
            return None
        file = read_text2layer(TEXT2LAYER_FILE)
        names = ldm_names(unet.state_dict())
        unet.load_state_dict({key: file.unet[names[key]].float() for key in names})
        codec, scale, shift = shipped_codec(file), file.scale, file.shift
    else:
        if missing_parts(name):
            return None
        unet.load_state_dict(load_file(_averages(name)))
        codec, (scale, shift) = open_codec(row.codec), read_latent_scale(weights_folder(), name)
    unet.to(memory_format=torch.channels_last)
    return LayerPainter(unet, codec, row.channels, row.takes_below, scale, shift)
