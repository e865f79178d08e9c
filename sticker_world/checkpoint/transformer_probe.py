"""What the transformer has learnt so far, on scenes that training never shows.

    python commands/launcher.py sticker_world.checkpoint.transformer_probe [FOLDER]

prints the error at fixed times, how many tokens know what they show and how much of a word's attention lies on its
thing, and writes a sheet of pictures beside the weights in the training folder.
"""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ..shipped import CHECKPOINT_FILE
from ..training.loop import training_folder, weights_folder
from ..world.concepts import BACKGROUND_NAMES, CANVAS, CONCEPT_NAMES
from ..world.dataset import MOST_OBJECTS, TOKEN_GRID
from ..world.scene import Scene
from ..world.vocabulary import vocabulary
from .diffusion import LATENT_SIZE, attention_loss, noun_positions
from .probe import familiar_scenes, pictures
from .shipped_weights import latent_scale, load_autoencoder, load_encoder
from .transformer import Watch
from .transformer_training import BEHIND, WORD_BLOCKS, TaughtTransformer, class_shares

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
SCENES = 32
CAPTIONS = (
    "a dog on a green meadow",
    "a red apple on the beach",
    "a house and a tree in the snow",
    "a panda and a sunflower on a green meadow",
    "a cat next to a bus in a room",
    "a rocket at night",
    "a penguin and a balloon in the mountains",
    "a frog, a donut and a car on a plain blue background",
)


def masks_of(scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    """Share of every cell that each thing visibly covers (b 3 16 16), and the things' indices (b 3), -1 for none."""
    masks, concepts = torch.zeros(len(scenes), MOST_OBJECTS, TOKEN_GRID, TOKEN_GRID), torch.full((len(scenes), 3), -1)
    cell = CANVAS // TOKEN_GRID
    for row, scene in enumerate(scenes):
        for k, thing in enumerate(scene.objects):
            visible = thing.visible.reshape(TOKEN_GRID, cell, TOKEN_GRID, cell).mean((1, 3))
            masks[row, k], concepts[row, k] = torch.from_numpy(visible), CONCEPT_NAMES.index(thing.concept)
    return masks, concepts


@torch.no_grad()
def errors(model: TaughtTransformer, latents: Tensor, rows: Tensor) -> dict[float, float]:
    """Mean squared error of the velocity at each of `TIMES`, with one fixed noise."""
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    found = {}
    for t in TIMES:
        velocity = model((1 - t) * latents + t * noise, torch.full((len(rows),), t), rows)
        found[t] = float((velocity - (noise - latents)).square().mean())
    return found


@torch.no_grad()
def knowledge(
    model: TaughtTransformer, latents: Tensor, rows: Tensor, scenes: list[Scene]
) -> tuple[float, list[float]]:
    """Share of tokens that know what they show, and per supervised block the share of a word inside its thing.

    Both at t = 0.5; the second is 1 less the root mean square of what lies outside.
    """
    masks, concepts = masks_of(scenes)
    places = torch.tensor([BACKGROUND_NAMES.index(scene.background) for scene in scenes])
    nouns = torch.tensor([noun_positions(s.caption, c.numpy()) for s, c in zip(scenes, concepts, strict=True)])
    watch = Watch(WORD_BLOCKS, BEHIND)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    model((latents + noise) / 2, torch.full((len(rows),), 0.5), rows, watch)
    shown = class_shares(masks, concepts, places).argmax(-1)
    hits = (model.classes(watch.tokens).argmax(-1) == shown).float().mean()
    return float(hits), [1 - float(attention_loss([each], nouns, masks)) ** 0.5 for each in watch.maps]


@torch.no_grad()
def paint(model: TaughtTransformer, captions: tuple[str, ...], steps: int = 20, scale: float = 4.0) -> Tensor:
    """Latents (b 4 32 32) of captions, by Euler steps with classifier-free guidance."""
    rows = vocabulary().encode([*captions, *[""] * len(captions)])
    x = torch.randn(len(captions), 4, LATENT_SIZE, LATENT_SIZE, generator=torch.Generator().manual_seed(7))
    times = torch.linspace(1, 0, steps + 1)
    for now, after in zip(times, times[1:], strict=False):
        for_prompt, for_nothing = model(x.repeat(2, 1, 1, 1), now.expand(len(rows)), rows).chunk(2)
        x = x + (after - now) * (for_nothing + scale * (for_prompt - for_nothing))
    return x


def main(arguments: list[str]) -> int:
    """Measure the averaged weights in a training folder."""
    folder = weights_folder(Path(arguments[0]) if arguments else training_folder())
    model = TaughtTransformer().requires_grad_(False)
    model.load_state_dict(load_file(folder / "transformer.safetensors"))
    scenes = familiar_scenes(SCENES)
    encode, (scale, shift) = load_encoder(CHECKPOINT_FILE), latent_scale(CHECKPOINT_FILE)
    latents = torch.cat([encode(pictures(scenes[i : i + 8])) for i in range(0, SCENES, 8)])
    rows = vocabulary().encode([scene.caption for scene in scenes])
    found = errors(model, latents, rows)
    print("velocity error", {t: round(error, 4) for t, error in found.items()}, round(np.mean([*found.values()]), 4))
    hits, shares = knowledge(model, latents, rows, scenes)
    print("tokens that know what they show", round(hits, 3), "words inside", [round(share, 3) for share in shares])
    decoded = load_autoencoder(CHECKPOINT_FILE).decode((paint(model, CAPTIONS) - shift) * scale).clamp(0, 1)
    sheet = rearrange((decoded * 255).round().byte(), "(r n) c h w -> (r h) (n w) c", n=4)
    Image.fromarray(sheet.numpy()).save(folder / "transformer.png")
    print(folder / "transformer.png")
    return 0
