"""Finds the blocks of a transformer whose attention shows where phrases look, in one evaluation of the model."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import comfy.samplers
import torch
from torch import Tensor

from ...clip.comfy.columns import PromptColumns
from ...comfy.types import BaseModel, Entry, Options
from ..block_choice import WordMaps, choose_blocks, pooled_map
from ..recorder import AttentionRecorder
from ..sites import ALL_BLOCKS, CROSS, FOUND, MIDDLE_BLOCKS, OF_UNETS, SELF, Site, choose_sites
from .families import UNET, known_family
from .prompts import length_in
from .recording import recording


def is_found(which: str) -> bool:
    """Whether a choice of sites is one that a transformer has to be measured for."""
    return which == FOUND or which in OF_UNETS


def find_blocks(
    inner_model: BaseModel,
    entries: Sequence[Entry],
    prompts: Mapping[Hashable, Sequence[PromptColumns]],
    x: Tensor,
    sigma: Tensor,
    model_options: Options,
    *,
    keeps_self: bool = False,
) -> frozenset[Site]:
    """Evaluate prompts once, without a gradient, and choose.

    Args:
        inner_model: the loaded model, a transformer.
        entries: processed conditioning entries, for the whole canvas.
        prompts: for each entry's uuid where its words are, for each picture, or once for all.
        x: (b c h w) or (b c f h w), the sampler's state.
        sigma: (b).
        model_options: of the run.
        keeps_self: whether self-attention of the same blocks is wanted too.

    Returns:
        The sites of the chosen blocks, for `AttentionRecorder`'s `known`.

    Raises:
        ValueError: no attention could be read.
    """
    logging.info("Stagecraft: looks at all blocks of the model once, to find those that show where phrases look.")
    family = known_family(inner_model.diffusion_model) or UNET
    recorders = {
        entry["uuid"]: AttentionRecorder(
            ALL_BLOCKS,
            tuple(x.shape[-2:]),
            [torch.tensor(told_columns(each)) for each in prompts[entry["uuid"]]],
            lengths=[length_in(family, each, entry) for each in prompts[entry["uuid"]]],
            keep=pooled_map_of,
        )
        for entry in entries
    }
    with torch.no_grad():
        comfy.samplers.calc_cond_batch(inner_model, [list(entries)], x, sigma, recording(model_options, recorders))
    for uuid, recorder in recorders.items():
        if recorder.maps:
            maps, columns = list(recorder.maps.values()), prompts[uuid]
            told = [
                word_maps([each if len(columns) == 1 else each[row : row + 1] for each in maps], prompt)
                for row, prompt in enumerate(columns)
            ]
            chosen = chosen_sites(recorder, told, tuple(x.shape[-2:]))
            return chosen | frozenset(replace(site, stream=SELF) for site in chosen if keeps_self)
    raise ValueError(
        "No attention to the prompt could be read in this model: another node has replaced its attention, or given it "
        "tokens that Stagecraft does not know."
    )


def told_columns(prompt: PromptColumns) -> list[int]:
    """Columns of all words and phrases, each once."""
    return sorted({*prompt.words, *prompt.recorded})


def word_maps(maps: Sequence[Tensor], prompt: PromptColumns) -> WordMaps:
    """Maps (b m f h w) of `told_columns`, with what their m are."""
    place = {column: i for i, column in enumerate(told_columns(prompt))}
    words = prompt.words or prompt.recorded
    return WordMaps(maps, [[place[c] for c in each] for each in prompt.phrases], [place[c] for c in words])


def pooled_map_of(site: Site, found: Tensor) -> Tensor:
    """What a recorder keeps for the choice."""
    return pooled_map(found, site.grid)


def chosen_sites(recorder: AttentionRecorder, told: Sequence[WordMaps], latent: tuple[int, int]) -> frozenset[Site]:
    """The sites of the blocks that were found in a whole pass, or those in the middle where nothing can be found."""
    sites = [site for site in recorder.maps if site.stream == CROSS]
    numbers = choose_blocks(told)
    if not numbers:
        return choose_sites(sites, MIDDLE_BLOCKS, latent) or frozenset(sites)
    return frozenset(sites[number] for number in numbers)
