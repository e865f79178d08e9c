"""Reads a phrase's cross-attention in ComfyUI's U-Nets, through the chained attention override."""

from collections.abc import Callable, Sequence
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ..attention import average_maps, phrase_attention

OVERRIDE = "optimized_attention_override"
PLACES = ("mask", "mask_strength", "area", "strength", "timestep_start", "timestep_end")


def read_phrase_attention(
    inner_model: Any,  # noqa: ANN401 - ComfyUI's BaseModel, loaded
    entries: Sequence[dict[str, Any]],
    words: dict[Any, list[Tensor]],
    x: Tensor,
    sigma: Tensor,
    model_options: dict[str, Any],
) -> dict[Any, Tensor]:
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
        For each entry's uuid (b h w).

    Raises:
        ValueError: no cross-attention could be read.
    """
    maps: dict[Any, list[Tensor]] = {uuid: [] for uuid in words}
    lengths = {entry["uuid"]: entry["model_conds"]["c_crossattn"].cond.shape[1] for entry in entries}
    options = dict(model_options)
    transformer = options["transformer_options"] = dict(options.get("transformer_options", {}))
    transformer[OVERRIDE] = _record(maps, words, lengths, transformer.get(OVERRIDE))
    whole = [{key: value for key, value in entry.items() if key not in PLACES} for entry in entries]
    comfy.samplers.calc_cond_batch(inner_model, [whole], x, sigma, options)
    if not all(maps.values()):
        raise ValueError(
            "No cross-attention could be read in this model, which dynamic vision guidance needs. Choose the delta "
            '"colour", "reference" or "vector".'
        )
    return {uuid: average_maps(found, *x.shape[-2:]) for uuid, found in maps.items()}


def _record(
    maps: dict[Any, list[Tensor]],
    words: dict[Any, list[Tensor]],
    lengths: dict[Any, int],
    before: Callable[..., Tensor] | None,
) -> Callable[..., Tensor]:
    """Attention override that appends the first cross-attention map of every down stage to `maps`, by uuid."""
    calls: dict[tuple, int] = {}
    grids: set[tuple] = set()

    def override(attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, heads: int, *args, **kwargs) -> Tensor:  # noqa: ANN002, ANN003 - passed on
        options = kwargs.get("transformer_options") or {}
        block, uuids = options.get("block"), options.get("uuids", [])
        if block and block[0] == "input" and uuids:
            call = (*block, options.get("block_index"), *uuids)
            calls[call] = calls.get(call, 0) + 1
            # A block's first attention looks at the picture itself; only its length may be that of the text by chance.
            is_cross = k.shape[1] != q.shape[1] or calls[call] == 2
            grid = (q.shape[1], *uuids)
            if is_cross and grid not in grids:
                grids.add(grid)
                height, width = options["activations_shape"][-2:]
                for uuid, queries, tokens in zip(uuids, q.chunk(len(uuids)), k.chunk(len(uuids)), strict=True):
                    maps[uuid].append(_maps_of(queries, tokens, heads, words[uuid], lengths[uuid], height, width))
        if before is not None:
            return before(attend, q, k, v, heads, *args, **kwargs)
        return attend(q, k, v, heads, *args, **kwargs)

    return override


def _maps_of(q: Tensor, k: Tensor, heads: int, words: list[Tensor], length: int, height: int, width: int) -> Tensor:
    """(b h w) of one entry's rows; a picture without words has zeros."""
    rows = []
    for i in range(len(q)):
        positions = words[i % len(words)]
        if len(positions) == 0:
            rows.append(torch.zeros(1, height, width, device=q.device))
            continue
        # ComfyUI pads a shorter prompt by repeating it, so its words may be there several times.
        columns = torch.cat([positions + start for start in range(0, k.shape[1], length)]).to(q.device)
        rows.append(phrase_attention(q[i : i + 1], k[i : i + 1], heads, columns).reshape(1, height, width))
    return torch.cat(rows)
