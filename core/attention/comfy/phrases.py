"""Where prompts' phrases look in one evaluation of the model at a noisy state, as dynamic vectors need it (LRDiff)."""

from collections.abc import Hashable, Sequence

import comfy.samplers
import torch
from torch import Tensor

from ...comfy.types import BaseModel, Entry, Options
from ..maps import average_maps, phrase_map
from ..recorder import AttentionRecorder
from ..sites import FIRST_DOWN
from .recording import PLACE_OPTIONS, recording


def read_phrase_attention(
    inner_model: BaseModel,
    entries: Sequence[Entry],
    words: dict[Hashable, list[Tensor]],
    x: Tensor,
    sigma: Tensor,
    model_options: Options,
) -> dict[Hashable, Tensor]:
    """Evaluate prompts once at a noisy state and read where their phrases look (LRDiff, Eq. 6).

    As the paper has it, each down stage gives one map, that of the first cross-attention after its down-sampling,
    averaged over heads; the stages are averaged on the grid of the latent.

    Args:
        inner_model: the loaded model.
        entries: processed conditioning entries, evaluated on the whole canvas.
        words: for each entry's uuid, the token positions (m) for each picture, or one for all of them; may be empty.
        x: (b c h w), the sampler's state.
        sigma: (b).
        model_options: of the run; an override that is there keeps working.

    Returns:
        For each entry's uuid (b h w); a picture without words has zeros.

    Raises:
        ValueError: no cross-attention could be read.
    """
    height, width = x.shape[-2:]
    lengths = {entry["uuid"]: entry["model_conds"]["c_crossattn"].cond.shape[1] for entry in entries}
    recorders = {
        uuid: AttentionRecorder(FIRST_DOWN, (height, width), columns, lengths=[lengths[uuid]])
        for uuid, columns in words.items()
    }
    whole = [{key: value for key, value in entry.items() if key not in PLACE_OPTIONS} for entry in entries]
    options = recording(model_options, recorders, leave_early=True)
    comfy.samplers.calc_cond_batch(inner_model, [whole], x, sigma, options)
    if not all(recorder.maps for recorder in recorders.values()):
        raise ValueError(
            "No cross-attention could be read in this model, which dynamic vision guidance needs. Choose the delta "
            '"colour", "reference" or "vector".'
        )
    return {
        uuid: torch.stack([_mean_map(recorder, row, words[uuid], height, width) for row in range(len(x))])
        for uuid, recorder in recorders.items()
    }


def _mean_map(recorder: AttentionRecorder, row: int, words: list[Tensor], height: int, width: int) -> Tensor:
    """(h w) of one picture."""
    count = len(words[row % len(words)])
    if count == 0:
        return next(iter(recorder.maps.values())).new_zeros(height, width)
    maps = [phrase_map(each[row : row + 1], site.grid, range(count)) for site, each in recorder.maps.items()]
    return average_maps(maps, height, width)[0]
