"""The denoiser: a small SD-layout U-Net with its own causal text encoder, trained together on cached latents."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from einops import rearrange, repeat
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ..training.fast_norm import use_fast_norms
from ..training.loop import pick_device, train
from ..world.concepts import CANVAS, CONCEPT_NAMES
from ..world.dataset import TOKEN_GRID, Scenes
from ..world.vocabulary import vocabulary
from .autoencoder import LATENT_CHANNELS

LATENT_SIZE = CANVAS // 8
CONTEXT = 128
HEAD_WIDTH = 32
WIDTHS = (64, 128, 192)
TIMESTEPS = 1000
BATCH = 16
DROPPED_CAPTIONS = 0.1  # classifier-free guidance needs the empty prompt
UNKNOWN_WORDS = 0.02  # share of words replaced by <unk>, so that a stranger word does little harm
ATTENTION_WEIGHT = 0.08
PEAK_LR, EMA = 8e-4, 0.9985  # from nothing
FURTHER_LR, FURTHER_EMA = 4e-4, 0.9995  # from weights that are trained already: lower, and over more steps
OBJECT_WEIGHT = 1.0  # extra weight of object cells, only where noise no longer hides the layout
OBJECT_WEIGHT_FROM = 0.3  # ... that is, from this cumulative alpha on


def make_unet() -> UNet2DConditionModel:
    """The U-Net: 64, 128, 192 channels at 32, 16, 8 cells; cross-attention at 16 and 8 cells and in the middle."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=WIDTHS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=CONTEXT,
        attention_head_dim=tuple(width // HEAD_WIDTH for width in WIDTHS),  # diffusers' name for the number of heads
    )


def make_text_encoder() -> CLIPTextModel:
    """CLIP's text transformer at width 128 with 2 layers; causal, so that a noun's token stays about that noun."""
    token_ids = vocabulary().token_ids
    config = CLIPTextConfig(
        vocab_size=len(token_ids),
        hidden_size=CONTEXT,
        intermediate_size=4 * CONTEXT,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        projection_dim=CONTEXT,
    )
    return CLIPTextModel(config)


def scaled_linear_alphas() -> Tensor:
    """SD 1's cumulative alphas, (1000,): betas scaled-linear from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64).square()
    return torch.cumprod(1 - betas, 0).float()


class MapRecorder:
    """A diffusers attention processor in plain matrix products that keeps cross-attention maps at one grid size.

    Fused attention has a slow backward pass on CPUs and gives no maps.
    """

    def __init__(self, cells: int) -> None:
        self.cells = cells
        self.maps: list[Tensor] = []  # b (h w) tokens, mean over heads, one per recorded site

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> Tensor:
        """(b n c) -> (b n c); the context of cross-attention is (b t d)."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (rearrange(x, "b n (h d) -> (b h) n d", h=attn.heads) for x in (q, k, v))
        weights = (torch.bmm(q, k.transpose(1, 2)) * attn.scale).softmax(-1)
        if encoder_hidden_states is not None and q.shape[1] == self.cells**2:
            self.maps.append(rearrange(weights, "(b h) n t -> b h n t", h=attn.heads).float().mean(1))
        out = rearrange(torch.bmm(weights.to(v.dtype), v), "(b h) n d -> b n (h d)", h=attn.heads)
        return attn.to_out[0](out)


class StickerDiffusion(nn.Module):
    """U-Net and text encoder in one module, the way they are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = make_unet()
        self.text = make_text_encoder()

    def forward(self, x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        """v-prediction: x (b 4 h w), t (b), rows of the compact vocabulary (b 77) -> (b 4 h w)."""
        return self.unet(x, t, self.text(input_ids=rows).last_hidden_state).sample


@dataclass(frozen=True)
class Latents:
    """Cached latents float16 (n 4 32 32) with what training needs to know about each scene."""

    latents: np.ndarray
    rows: Tensor  # n 77, compact vocabulary
    nouns: Tensor  # n 3, token position of each object's noun, 0 for none
    masks: np.ndarray  # n 3 16 16, uint8


def noun_positions(caption: str, concepts: np.ndarray) -> list[int]:
    """Token positions of the scene's nouns in painter's order; 0 where there is no object."""
    known = vocabulary()
    return [known.find(caption, CONCEPT_NAMES[c]) if c >= 0 else 0 for c in concepts]


def collect(scenes: Scenes, latents: np.ndarray) -> Latents:
    """Join cached latents with captions and masks."""
    nouns = [noun_positions(c, k) for c, k in zip(scenes.captions, scenes.concepts, strict=True)]
    return Latents(latents, vocabulary().encode(scenes.captions), torch.tensor(nouns), np.asarray(scenes.masks))


def attention_loss(maps: list[Tensor], nouns: Tensor, masks: Tensor) -> Tensor:
    """Share of every noun's attention that falls outside its own visible mask, squared.

    The token loss of TokenCompose (Wang et al. 2023, arXiv 2312.03626), with Sticker World's exact masks.

    Args:
        maps: per site (b (h w) tokens).
        nouns: (b k) token positions, 0 for none.
        masks: (b k h w) in 0..1.
    """
    inside = rearrange(masks, "b k h w -> b k (h w)")
    there = ((nouns > 0) & (inside.sum(-1) > 1)).float()
    losses = []
    for map_ in maps:
        words = torch.gather(map_, 2, repeat(nouns, "b k -> b n k", n=map_.shape[1]))
        words = rearrange(words, "b n k -> b k n")
        share = (words * inside).sum(-1) / words.sum(-1).clamp(min=1e-6)
        losses.append(((1 - share).square() * there).sum() / there.sum().clamp(min=1))
    return torch.stack(losses).mean()


def train_diffusion(
    data: Latents, folder: Path, steps: int, start: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Train U-Net and text encoder.

    Args:
        data: cached latents with their captions.
        folder: of the state and of the averaged weights.
        steps: length of the schedule.
        start: weights of both to go on from, or None to begin with none.

    Returns:
        The averaged weights of both.
    """
    device = pick_device()
    torch.manual_seed(0)
    model = StickerDiffusion()
    if start is not None:
        model.load_state_dict(start)
    model = model.to(device)
    # Going on from weights, other batches and other noise than those that made them.
    stream, peak_lr, ema = (2, PEAK_LR, EMA) if start is None else (3, FURTHER_LR, FURTHER_EMA)
    model.unet.to(memory_format=torch.channels_last)
    recorder = MapRecorder(TOKEN_GRID)
    model.unet.set_attn_processor(recorder)
    if device.type == "cpu":
        use_fast_norms(model.unet)
    alphas = scaled_linear_alphas().to(device)
    unknown, empty = 0, vocabulary().encode([""])[0]

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([stream, step])
        noise_rng = torch.Generator().manual_seed(step + (stream - 2) * 10_000_000)
        chosen = np.sort(rng.integers(0, len(data.latents), BATCH))
        x0 = torch.from_numpy(data.latents[chosen]).to(device).float()
        masks = torch.from_numpy(data.masks[chosen]).to(device).float() / 255
        rows, nouns = data.rows[chosen].clone(), data.nouns[chosen].clone()
        rows[torch.from_numpy(rng.uniform(size=rows.shape) < UNKNOWN_WORDS) & (rows > 2)] = unknown
        dropped = torch.from_numpy(rng.uniform(size=BATCH) < DROPPED_CAPTIONS)
        rows[dropped], nouns[dropped] = empty, 0
        t = torch.from_numpy(rng.integers(0, TIMESTEPS, BATCH)).to(device)
        alpha = rearrange(alphas[t], "b -> b 1 1 1")
        noise = torch.randn(x0.shape, generator=noise_rng).to(device)
        x = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
        recorder.maps.clear()
        with torch.autocast(device.type, torch.bfloat16):
            output = model(x.contiguous(memory_format=torch.channels_last), t, rows.to(device))
        error = (output.float() - target).square()
        # Nearly flat where the layout is decided, falling off where only noise is left to predict.
        weight = alpha.sqrt() * (5 * (1 - alpha)).clamp(max=1)
        objects = F.interpolate(masks.amax(1, keepdim=True), size=x0.shape[-2:])
        weight = weight * (1 + OBJECT_WEIGHT * objects * (alpha > OBJECT_WEIGHT_FROM))
        denoising = (weight * error).mean()
        attention = attention_loss(recorder.maps, nouns.to(device), masks)
        return denoising + ATTENTION_WEIGHT * attention, {"v": denoising.item(), "attention": attention.item()}

    return train("diffusion", model, loss_of_step, folder=folder, steps=steps, peak_lr=peak_lr, ema=ema)
