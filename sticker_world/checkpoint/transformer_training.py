"""Trains the transformer by flow matching on cached latents, with the text encoder of the U-Net, which stays as it is.

Flow matching (Lipman et al. 2022, arXiv 2210.02747) with times from a logit-normal distribution (Esser et al. 2024,
arXiv 2403.03206). What a transformer lacks against a U-Net is paid for with three things, each left off before training
ends: what a token shows (in the place of REPA's features, Yu et al. 2024, arXiv 2410.06940), which word it belongs to
(the token loss of TokenCompose, arXiv 2312.03626), and the U-Net's own prediction as the target of some samples.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ...core.clip.vocabulary import END_ROW, START_ROW
from ..training.loop import WARM_UP, pick_device, train
from ..world.concepts import BACKGROUND_NAMES, CONCEPT_NAMES
from ..world.vocabulary import vocabulary
from .diffusion import DROPPED_CAPTIONS, OBJECT_WEIGHT, UNKNOWN_WORDS, Latents, attention_loss, make_text_encoder
from .transformer import Size, StickerTransformer, Watch
from .velocity_teacher import FIRST, LAST, VelocityTeacher

BATCH = 16
PEAK_LR, EMA = 1e-3, 0.999
FURTHER_LR = 5e-4  # from weights that are trained already
EVEN_TIMES = 0.2  # share of samples whose time is drawn evenly, so that both ends are seen
OBJECTS_BELOW = 0.6  # time below which cells of things count more: noise no longer hides where they are
BEHIND = 3  # double block behind which a token has to know what it shows
WORD_BLOCKS = (1, 2, 3, 4)  # whose attention has to keep each thing's word to that thing
CLASS_WEIGHT, WORD_WEIGHT = 0.5, 0.3
TAUGHT = 0.5  # share of samples that the U-Net gives the target of
# Shares of the schedule up to which each of these lasts.
TEACHER_UNTIL, CLASSES_UNTIL, WORDS_UNTIL, SHORT_UNTIL = 0.5, 0.4, 0.6, 0.6
SHORT = 32  # text tokens that hold every caption; the rest of the 77 repeat the end


@dataclass(frozen=True)
class Shown:
    """Cached latents and what every scene shows.

    Attributes:
        data: latents, captions, masks.
        concepts: int64 (n 3), -1 for none.
        places: int64 (n), the background.
    """

    data: Latents
    concepts: np.ndarray
    places: np.ndarray


class TaughtTransformer(nn.Module):
    """The transformer with its frozen text encoder, and the layer that reads what a token shows."""

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.transformer = StickerTransformer(size)
        self.text = make_text_encoder().requires_grad_(False)
        self.classes = nn.Linear(self.transformer.size.width, len(CONCEPT_NAMES) + len(BACKGROUND_NAMES))

    @torch.no_grad()
    def embed(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the compact vocabulary (b t) -> tokens (b t 128) and the first end token's (b 128)."""
        hidden = self.text(input_ids=rows).last_hidden_state
        return hidden, hidden[torch.arange(len(rows)), (rows == END_ROW).int().argmax(1)]

    def forward(self, x: Tensor, t: Tensor, rows: Tensor, watch: Watch | None = None) -> Tensor:
        """Velocity at x (b 4 h w), t (b) in 0..1, rows of the compact vocabulary (b t) -> (b 4 h w)."""
        return self.transformer(x, t, *self.embed(rows), watch)


def draw_times(rng: np.random.Generator, number: int) -> Tensor:
    """Times in 0..1, logit-normal but for `EVEN_TIMES` of them; every batch has early and late ones."""
    even = (rng.permutation(number) + rng.uniform(size=number)) / number
    even = torch.from_numpy(even).float().clamp(1e-4, 1 - 1e-4)
    stays = torch.from_numpy(rng.uniform(size=number) < EVEN_TIMES)
    return torch.where(stays, even, torch.special.ndtri(even).sigmoid())


def class_shares(masks: Tensor, concepts: Tensor, places: Tensor) -> Tensor:
    """Which share of each cell every concept and every background has.

    Args:
        masks: (b k h w) in 0..1.
        concepts: (b k), -1 for none.
        places: (b).

    Returns:
        (b (h w) classes), concepts first; 1 in all.
    """
    things = rearrange(masks, "b k h w -> b (h w) k") * (concepts >= 0)[:, None]
    shares = things.new_zeros(*things.shape[:2], len(CONCEPT_NAMES) + len(BACKGROUND_NAMES))
    shares.scatter_add_(2, concepts.clamp(min=0)[:, None].expand_as(things), things)
    place = (len(CONCEPT_NAMES) + places)[:, None, None].expand(-1, shares.shape[1], -1)
    return shares.scatter_add_(2, place, (1 - things.sum(2, keepdim=True)).clamp(min=0))


def word_loss(maps: list[Tensor], nouns: Tensor, words: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of a thing's word among the caption's words, at the cells of that thing.

    Args:
        maps: (b (h w) t) a block, the shares of attention.
        nouns: (b k) token positions, 0 for none.
        words: (b t), which tokens are words of the caption.
        masks: (b k h w) in 0..1.
    """
    weight = rearrange(masks, "b k h w -> b (h w) k") * (nouns > 0)[:, None]
    losses = []
    for map_ in maps:
        shares = torch.gather(map_, 2, nouns[:, None].expand(-1, map_.shape[1], -1))
        among = shares / (map_ * words[:, None]).sum(-1, keepdim=True).clamp(min=1e-8)
        losses.append(-(weight * among.clamp(1e-8, 1).log()).sum() / weight.sum().clamp(min=1))
    return torch.stack(losses).mean()


def train_transformer(
    shown: Shown,
    unet: dict[str, Tensor],
    folder: Path,
    steps: int,
    start: dict[str, Tensor] | None = None,
    size: Size | None = None,
) -> dict[str, Tensor]:
    """Train the transformer.

    Args:
        shown: cached latents and what they show.
        unet: averaged weights of `StickerDiffusion`: the text encoder and the teacher.
        folder: of the state and of the averaged weights.
        steps: length of the schedule.
        start: weights of `TaughtTransformer` to go on from, or None to begin with none.
        size: of the transformer; None for the shipped one's.

    Returns:
        The averaged weights of `TaughtTransformer`.
    """
    device = pick_device()
    torch.manual_seed(0)
    model = TaughtTransformer(size)
    if start is not None:
        model.load_state_dict(start)
    # Going on from weights, other batches and other noise than those that made them.
    stream, peak_lr = (6, PEAK_LR) if start is None else (7, FURTHER_LR)
    model.text.load_state_dict({k.removeprefix("text."): v for k, v in unet.items() if k.startswith("text.")})
    model = model.to(device)
    teacher, data = VelocityTeacher(unet, device), shown.data
    empty = vocabulary().encode([""])[0]
    blocks = [block for block in WORD_BLOCKS if block < model.transformer.size.double + model.transformer.size.single]
    behind = min(BEHIND, model.transformer.size.double)

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        rng, at = np.random.default_rng([stream, step]), step / steps
        chosen = np.sort(rng.integers(0, len(data.latents), BATCH))
        x0 = torch.from_numpy(data.latents[chosen]).to(device).float()
        masks = torch.from_numpy(data.masks[chosen]).to(device).float() / 255
        rows, nouns = data.rows[chosen].clone(), data.nouns[chosen].clone()
        rows[torch.from_numpy(rng.uniform(size=rows.shape) < UNKNOWN_WORDS) & (rows > END_ROW)] = 0
        dropped = torch.from_numpy(rng.uniform(size=BATCH) < DROPPED_CAPTIONS)
        rows[dropped], nouns[dropped] = empty, 0
        rows, nouns, t = rows.to(device), nouns.to(device), draw_times(rng, BATCH).to(device)
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(stream * 10_000_000 + step)).to(device)
        wide = rearrange(t, "b -> b 1 1 1")
        x, target = (1 - wide) * x0 + wide * noise, noise - x0
        if at < TEACHER_UNTIL:
            taught = torch.from_numpy(rng.uniform(size=BATCH) < TAUGHT).to(device) & (t > FIRST) & (t < LAST)
            target[taught] = teacher.velocity(x[taught], t[taught], rows[taught])
        watch = Watch(blocks if at < WORDS_UNTIL else (), behind if at < CLASSES_UNTIL else 0)
        if at < SHORT_UNTIL:
            rows = rows[:, :SHORT]
        with torch.autocast(device.type, torch.bfloat16):
            output = model(x, t, rows, watch).float()
            read = None if watch.tokens is None else model.classes(watch.tokens).float()
        objects = F.interpolate(masks.amax(1, keepdim=True), size=x0.shape[-2:])
        weight = 1 + OBJECT_WEIGHT * objects * (wide < OBJECTS_BELOW)
        loss = (weight * (output - target).square()).mean()
        numbers = {"v": loss.item()}
        if watch.maps:
            within = attention_loss(watch.maps, nouns, masks)
            among = word_loss(watch.maps, nouns, (rows != END_ROW) & (rows != START_ROW), masks)
            loss = loss + WORD_WEIGHT * (within + among)
            numbers |= {"within": within.item(), "among": among.item()}
        if read is not None:
            places, concepts = (torch.from_numpy(each[chosen]).to(device) for each in (shown.places, shown.concepts))
            shares = class_shares(masks, concepts, places)
            surprise = -(shares * read.log_softmax(-1)).sum(-1).mean(1)
            loss = loss + CLASS_WEIGHT * ((1 - t) * surprise).mean()
            clear = t < OBJECTS_BELOW
            hits = (read.argmax(-1) == shares.argmax(-1))[clear].float()
            numbers["classes"] = hits.mean().item() if len(hits) else 0.0
        return loss, numbers

    return train(
        "transformer",
        model,
        loss_of_step,
        folder=folder,
        steps=steps,
        peak_lr=peak_lr,
        ema=EMA,
        weight_decay=0.0,
        warm_up=min(WARM_UP, max(1, steps // 20)),
    )
