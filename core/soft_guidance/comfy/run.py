"""What soft guidance does around one run of a ComfyUI sampler: tokens behind the text, and the mask on attention.

It happens at every evaluation of prompts, for whatever entries are evaluated: the sampler's own, or a layer's. There
the text of each is known, and all overrides and replacements of attention are in place.
"""

from collections.abc import Callable

import comfy.conds
import comfy.model_patcher
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

from ...attention.comfy.recording import has_cross_attention
from ...comfy.runs import Run, check_one_gpu, check_parts, warn_of_plain_prompts
from ...comfy.types import BaseModel, Executor, Options, Wrappers
from ...layout.masks import is_same_aspect
from .call import Conds, SoftCall
from .memory import WRAPPER, Memory
from .tokens import RegionTokens, read_regions


def show_regions(run: Run) -> Tensor:
    """Let a run's evaluations see the regions on its prompts.

    Raises:
        ValueError: latents of another kind or shape than the regions' masks.
    """
    regions = []
    for entry in run.entries:
        if found := read_regions(entry):
            regions += [region for region, _ in found]
            # Beside the text that they belong to: ComfyUI may copy an entry's options to a prompt with another text.
            entry["model_conds"] = {**entry["model_conds"], WRAPPER: comfy.conds.CONDConstant(tuple(found))}
    if not regions:
        warn_of_plain_prompts(run, "Soft Guidance", "it")
        return run.go()
    check_parts(
        run, "Soft guidance needs a latent of pictures", "Sample without it", videos=not has_cross_attention(run.model)
    )
    check_one_gpu(run, "Soft guidance")
    for region in regions:
        _check_fits(region, run.noise)
    run.wrap(Wrappers.CALC_COND_BATCH, WRAPPER, SoftRun().evaluate)
    return run.go()


def soft_attention(transformer_options: Options) -> Callable[..., Tensor] | None:
    """Give the attention function of networks beside the U-Net that read the same context, such as CnC's local fuser.

    Args:
        transformer_options: of the evaluation, as ComfyUI hands them to control objects.

    Returns:
        `(q, k, v, heads, *, grid) -> out` with (b n (heads d)), or None where no entry of the evaluation has regions;
        the context's columns are those of `c_crossattn`.
    """
    call = transformer_options.get(WRAPPER)
    if call is None:
        return None

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, *, grid: tuple[int, int]) -> Tensor:
        return attention_pytorch(q, k, v, heads, mask=call.bias(transformer_options, grid, q, k.shape[1]))

    return attend


class SoftRun:
    """One run of a sampler: its evaluations of prompts share what they have made, in a memory of their own."""

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory()

    def evaluate(
        self,
        executor: Executor,
        model: BaseModel,
        conds: Conds,
        x: Tensor,
        timestep: Tensor,
        model_options: Options,
    ) -> list[Tensor]:
        """CALC_COND_BATCH wrapper."""
        if not any(WRAPPER in entry["model_conds"] for conditioning in conds for entry in conditioning or []):
            return executor(model, conds, x, timestep, model_options)
        call = SoftCall(self.memory, model, conds, x, timestep)
        options = comfy.model_patcher.create_model_options_clone(model_options)
        call.install(options)
        return executor(model, call.with_tokens(conds), x, timestep, options)


def _check_fits(region: RegionTokens, noise: Tensor) -> None:
    (height, width), (rows, columns) = region.mask.shape[-2:], noise.shape[-2:]
    if not is_same_aspect(rows, columns, height, width):
        raise ValueError(
            f"The latent is {columns} x {rows} cells, which is not the shape of soft guidance's mask of {width} x "
            f"{height} pixels. Give both the same aspect ratio."
        )
    for name, count in (("masks", len(region.mask)), ("sets of tokens", len(region.tokens))):
        if count not in (1, len(noise)):
            raise ValueError(
                f"A region of soft guidance has {count} {name} for a batch of {len(noise)} pictures. Give it one, or "
                "one for each picture."
            )
