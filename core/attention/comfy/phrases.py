"""Where prompts' phrases look in one evaluation of the model at a noisy state, as dynamic vectors need it (LRDiff)."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import comfy.samplers
import torch
from einops import reduce
from torch import Tensor

from ...clip.comfy.columns import PromptColumns
from ...comfy.guider import OURS
from ...comfy.types import BaseModel, Entry, Options
from ..block_choice import pooled_map
from ..maps import average_maps, in_frames, phrase_map, smoothed
from ..recorder import AttentionRecorder
from ..sites import ALL_BLOCKS, FIRST_DOWN, Site
from .families import UNET, Family, known_family
from .found_blocks import chosen_sites, told_columns, word_maps
from .prompts import length_in
from .recording import PLACE_OPTIONS, recording


@dataclass(frozen=True)
class SaidWhere:
    """Where one prompt says one phrase.

    Attributes:
        phrase: positions (m) of its tokens, for each picture of the batch, or one for all; may be empty.
        words: of all words, by which a transformer's blocks are chosen; none for a U-Net.
        length: of the embedded prompt in tokens; for transformers only.
    """

    phrase: Sequence[Tensor]
    words: Sequence[Tensor] = ()
    length: int = 0

    def columns(self, row: int) -> PromptColumns:
        """Of one picture of the batch."""
        phrase, words = (each[row % len(each)].tolist() for each in (self.phrase, self.words))
        return PromptColumns([phrase] if phrase else [], words, self.length)


def read_phrase_attention(
    inner_model: BaseModel,
    entries: Sequence[Entry],
    said: Mapping[Hashable, SaidWhere],
    x: Tensor,
    sigma: Tensor,
    model_options: Options,
) -> dict[Hashable, Tensor]:
    """Evaluate prompts once at a noisy state and read where their phrases look (LRDiff, Eq. 6).

    As the paper has it, each down stage of a U-Net gives one map, that of the first cross-attention after its
    down-sampling, averaged over heads; the stages are averaged on the grid of the latent. A transformer has no stages:
    there the blocks count whose maps agree best, see `block_choice`, smoothed.

    Args:
        inner_model: the loaded model.
        entries: processed conditioning entries, evaluated on the whole canvas.
        said: for each entry's uuid, where it says the phrase.
        x: (b c h w) or (b c f h w), the sampler's state.
        sigma: (b).
        model_options: of the run; an override that is there keeps working.

    Returns:
        For each entry's uuid (b h w), or (b f h w) of a video; a picture without the phrase has zeros.

    Raises:
        ValueError: no cross-attention could be read.
    """
    size: tuple[int, int] = tuple(x.shape[-2:])
    family = known_family(inner_model.diffusion_model) or UNET
    whole = [{key: value for key, value in entry.items() if key not in PLACE_OPTIONS} for entry in entries]
    if family is not UNET:
        whole = [{**entry, "model_conds": _text_alone(entry["model_conds"])} for entry in whole]
    recorders = {
        entry["uuid"]: _recorder(family, entry, said[entry["uuid"]], size, len(x))
        for entry in whole
        if entry["uuid"] in said
    }
    options = recording(model_options, recorders, leave_early=family is UNET)
    comfy.samplers.calc_cond_batch(inner_model, [whole], x, sigma, options)
    if not all(recorder.maps for recorder in recorders.values()):
        raise ValueError(
            "No attention to the prompt could be read in this model, which dynamic vision guidance needs. Choose the "
            'source "colour", "reference" or "vector".'
        )
    read = _of_unet if family is UNET else _of_transformer
    shape = len(x), *x.shape[2:]
    return {
        uuid: torch.cat(
            [in_frames(read(recorder, row, said[uuid], size), 1, math.prod(x.shape[2:-2])) for row in range(len(x))]
        ).reshape(shape)
        for uuid, recorder in recorders.items()
    }


def _text_alone(conds: Options) -> Options:
    """Without what our other methods have put beside a prompt's text, whose tokens would move its words."""
    return {name: cond for name, cond in conds.items() if not name.startswith(OURS)}


def _recorder(family: Family, entry: Entry, said: SaidWhere, size: tuple[int, int], rows: int) -> AttentionRecorder:
    if family is UNET:
        length = entry["model_conds"]["c_crossattn"].cond.shape[1]
        return AttentionRecorder(FIRST_DOWN, size, said.phrase, lengths=[length])
    columns = [said.columns(row) for row in range(rows)]
    asked = [torch.tensor(told_columns(each), dtype=torch.int64) for each in columns]
    lengths = [length_in(family, each, entry) for each in columns]
    return AttentionRecorder(ALL_BLOCKS, size, asked, lengths=lengths, keep=_mean)


def _mean(_: Site, found: Tensor) -> Tensor:
    return reduce(found, "b heads n m -> b 1 n m", "mean")


def _of_unet(recorder: AttentionRecorder, row: int, said: SaidWhere, size: tuple[int, int]) -> Tensor:
    """(1 h w) of one picture."""
    count = len(said.phrase[row % len(said.phrase)])
    if count == 0:
        return next(iter(recorder.maps.values())).new_zeros(1, *size)
    maps = [phrase_map(each[row : row + 1], site.grid, range(count)) for site, each in recorder.maps.items()]
    return average_maps(maps, *size)


def _of_transformer(recorder: AttentionRecorder, row: int, said: SaidWhere, size: tuple[int, int]) -> Tensor:
    """(f h w) of one picture or video."""
    columns = said.columns(row)
    found = {site: each[row : row + 1] for site, each in recorder.maps.items()}
    site = next(iter(found))
    if not columns.phrases:
        return found[site].new_zeros(site.frames, *size)
    told = word_maps([pooled_map(each, site.grid) for site, each in found.items()], columns)
    chosen = chosen_sites(recorder, [told], size)
    own = [told_columns(columns).index(column) for column in columns.phrases[0]]
    maps = [smoothed(phrase_map(each, site.grid, own)) for site, each in found.items() if site in chosen]
    return average_maps(maps, *size)
