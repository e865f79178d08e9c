"""Whether the blocks that are found are those whose maps lie on the things: the transformer's words on real scenes."""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from scipy.stats import mannwhitneyu
from torch import Tensor

from ...core.attention.block_choice import WordMaps, choose_blocks
from ...core.clip.vocabulary import END_ROW, START_ROW
from ...sticker_world.checkpoint.diffusion import noun_positions
from ...sticker_world.checkpoint.probe import held_out_scenes, pictures
from ...sticker_world.checkpoint.shipped_weights import load_encoder, load_transformer
from ...sticker_world.checkpoint.transformer import Watch
from ...sticker_world.checkpoint.transformer_probe import masks_of
from ...sticker_world.shipped import CHECKPOINT_FILE
from ...sticker_world.world.dataset import TOKEN_GRID
from ...sticker_world.world.vocabulary import vocabulary
from ..result_rows import measure

SCENES, NOISE = 32, 0.5
INSIDE = 0.5  # share of a cell from which on it belongs to a thing
FOUND, TARGET = "found blocks", 0.9


@torch.no_grad()
def word_map_measures(checkpoint: Path, scenes_wanted: int = SCENES) -> list[dict]:
    """Areas under the curve of words' maps against exact masks, at noise 0.5: found blocks, all, each.

    Args:
        checkpoint: the transformer's file.
        scenes_wanted: held-out scenes to look at.
    """
    model, encode = load_transformer(checkpoint), load_encoder(CHECKPOINT_FILE)
    scenes = held_out_scenes(scenes_wanted)
    masks, concepts = masks_of(scenes)
    blocks = range(model.transformer.size.double + model.transformer.size.single)
    areas: dict[str, list[float]] = {}
    chosen_blocks: list[int] = []
    for number, scene in enumerate(scenes):
        rows, watch = vocabulary().encode([scene.caption]), Watch(tuple(blocks))
        latent = encode(pictures([scene]))
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(number))
        model((1 - NOISE) * latent + NOISE * noise, torch.full((1,), NOISE), rows, watch)
        nouns = {k: noun for k, noun in enumerate(noun_positions(scene.caption, concepts[number].numpy())) if noun > 0}
        words = ((rows[0] != END_ROW) & (rows[0] != START_ROW)).nonzero()[:, 0].tolist()
        maps = [rearrange(each, "b (h w) t -> b t 1 h w", h=TOKEN_GRID) for each in watch.maps]
        told = WordMaps(maps, [[noun] for noun in nouns.values()], words)
        chosen = choose_blocks([told])
        chosen_blocks += chosen
        ways = {FOUND: chosen, "all blocks": blocks} | {f"block {block}": [block] for block in blocks}
        for thing, noun in nouns.items():
            inside = masks[number, thing] >= INSIDE
            if not inside.any() or inside.all():
                continue
            for name, among in ways.items():
                shown = torch.stack([maps[block][0, noun, 0] for block in among]).mean(0)
                areas.setdefault(name, []).append(area_under_curve(shown, inside))
    measures = [
        measure(
            f"AUC of words' maps, transformer, noise {NOISE}: {name}",
            float(np.mean(found)),
            "",
            TARGET if name == FOUND else None,
        )
        for name, found in areas.items()
    ]
    often = np.bincount(chosen_blocks, minlength=len(blocks)) / scenes_wanted
    return measures + [
        measure(f"share of scenes in which block {block} is found", float(share)) for block, share in enumerate(often)
    ]


def area_under_curve(shown: Tensor, inside: Tensor) -> float:
    """How often a cell of a thing (h w) has more of a map (h w) than a cell beside it has; ties count half."""
    statistic = mannwhitneyu(shown[inside].numpy(), shown[~inside].numpy()).statistic
    return float(statistic / (inside.sum() * (~inside).sum()))
