"""What soft guidance does around one run of a ComfyUI sampler: tokens behind the text, and the mask on attention.

It happens at every evaluation of prompts, for whatever entries are evaluated: the sampler's own, or a layer's. There
the text of each is known, and all overrides and replacements of attention are in place.
"""

import math
from collections.abc import Callable, Hashable, Sequence

import comfy.conds
import comfy.model_patcher
import comfy.patcher_extension
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import attention_pytorch
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ...attention.comfy.recording import OVERRIDE
from ...comfy.runs import Run, check_one_gpu, check_parts, warn_of_plain_prompts
from ...comfy.types import BaseModel, Entry, Executor, Options, Wrappers
from ...layout.masks import is_same_aspect
from ..soft_guidance import joined_mask
from .attention import SoftForward
from .columns import EntryColumns
from .tokens import RegionTokens, read_regions

WRAPPER = "stagecraft_soft_guidance"
ALIGNED = 8  # columns; what the fast kernels want of a mask's rows
Conds = Sequence[list[Entry] | None]  # the prompts of one evaluation: ComfyUI leaves out those that it does not need


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
    check_parts(run, "Soft guidance needs a latent of pictures", "Sample without it", videos=False)
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
    """What is remembered from one evaluation of prompts to the next.

    Attributes:
        drops_masks: whether the attention in use was found to ignore masks, by the shape of what it is given, for a
            kernel may take heads of one width and leave others to another; without a shape that was not tried.
    """

    def __init__(self) -> None:
        self.drops_masks: dict[tuple[int, ...], bool] = {}
        self.biases: dict[Hashable, Tensor] = {}
        self._columns: dict[Hashable, tuple[Tensor, EntryColumns]] = {}

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
        call = SoftCall(self, conds, x)
        options = comfy.model_patcher.create_model_options_clone(model_options)
        options.setdefault("transformer_options", {})[WRAPPER] = call
        comfy.patcher_extension.add_wrapper_with_key(
            Wrappers.DIFFUSION_MODEL, WRAPPER, call.forward, options, is_model_options=True
        )
        return executor(model, call.with_tokens(conds), x, timestep, options)

    def columns_of(self, place: int, entry: Entry, x: Tensor) -> EntryColumns:
        """What an entry's context is made of; the same object as long as nothing has changed."""
        conds, area = entry["model_conds"], entry.get("area")
        text, regions = conds["c_crossattn"].cond, conds[WRAPPER].cond if WRAPPER in conds else ()
        key = (place, entry["uuid"], area and tuple(area), tuple(x.shape[-2:]))
        known = self._columns.get(key)
        if known is None or known[0] is not text:
            known = self._columns[key] = (text, EntryColumns(text, regions, key[2], key[3]))
        return known[1]


class SoftCall:
    """One evaluation of prompts.

    All its contexts are brought to one length, with columns that nobody sees. ComfyUI would repeat the shorter ones or
    evaluate them apart; like this prompts of any length share a batch, and each row's columns lie where they are known.
    """

    def __init__(self, run: SoftRun, conds: Conds, x: Tensor) -> None:
        self.run = run
        entries = [
            (place, entry)
            for place, conditioning in enumerate(conds)
            for entry in conditioning or []
            if "c_crossattn" in entry["model_conds"]
        ]
        # By the prompt's place too: ComfyUI gives an entry with an area a namesake among the other prompts.
        self.columns = {(place, entry["uuid"]): run.columns_of(place, entry, x) for place, entry in entries}
        self.has_control = any(entry.get("control") is not None for _, entry in entries)
        texts = {each.text.shape[1] for each in self.columns.values()}
        # One column more at least that nobody sees: by it an attention that ignores masks is found out.
        self.length = (max(each.length for each in self.columns.values()) // ALIGNED + 1) * ALIGNED
        # A whole multiple would look like a repeated prompt to those who read attention; of a text as short as one
        # token, which some pictures' embeddings are, every length is one.
        while any(self.length % text == 0 for text in texts if ALIGNED % text):
            self.length += ALIGNED

    @property
    def drops_masks(self) -> dict[tuple[int, ...], bool]:
        """The run's."""
        return self.run.drops_masks

    def with_tokens(self, conds: Conds) -> list[list[Entry] | None]:
        """The prompts with their regions' tokens in the contexts."""
        return [
            conditioning and [self._with_tokens(place, entry) for entry in conditioning]
            for place, conditioning in enumerate(conds)
        ]

    def _with_tokens(self, place: int, entry: Entry) -> Entry:
        columns = self.columns.get((place, entry["uuid"]))
        if columns is None:
            return entry
        conds = {name: cond for name, cond in entry["model_conds"].items() if name != WRAPPER}
        plain = conds["c_crossattn"]
        conds["c_crossattn"] = type(plain)(columns.context(self.length))
        if self.has_control:
            # A ControlNet has no mask for the tokens, so it reads the text alone.
            conds.setdefault("crossattn_controlnet", plain)
        return {**entry, "model_conds": conds}

    def forward(
        self,
        executor: Executor,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: dict[str, list[Tensor | None]] | None = None,
        transformer_options: Options | None = None,
        *args: object,
        **kwargs: object,
    ) -> Tensor:
        """DIFFUSION_MODEL wrapper: by now everything that changes attention is in the options."""
        options = dict(transformer_options or {})
        size = tuple(x.shape[-2:])
        for columns in self._in_batch(options):
            if columns.size != size:
                raise ValueError(
                    f"Another node evaluates {size[1]} x {size[0]} cells of the picture, as in tiles, where soft "
                    f"guidance has masks for {columns.size[1]} x {columns.size[0]}. Remove one of the two."
                )
        soft = SoftForward(self, options.get(OVERRIDE))
        options[OVERRIDE] = soft.attend
        patches = options.get("patches", {})
        options["patches"] = {
            **patches,
            "attn2_patch": [*patches.get("attn2_patch", []), soft.expect],
            "attn2_output_patch": [soft.check, *patches.get("attn2_output_patch", [])],
        }
        replaced = options.get("patches_replace", {})
        if replaced.get("attn2"):
            around = {block: soft.around(patch) for block, patch in replaced["attn2"].items()}
            options["patches_replace"] = {**replaced, "attn2": around}
        return executor(x, timesteps, context, y, control, options, *args, **kwargs)

    def bias(self, options: Options, grid: tuple[int, int], q: Tensor, length: int) -> Tensor:
        """What is added to the logits of all rows, (b n length) or (1 n length), in the type and place of q.

        Args:
            options: transformer_options; they name the entries in the batch, equal parts of its rows.
            grid: rows and columns of the queries.
            q: (b n c).
            length: of the keys; columns behind the context's are another node's, and open.

        Raises:
            ValueError: another node has changed the attention so that its rows or columns cannot be told.
        """
        columns = self._in_batch(options)
        if q.shape[1] != grid[0] * grid[1] or length < self.length or len(q) % len(columns):
            raise ValueError(
                f"Another node has changed cross-attention to {q.shape[1]} positions and {length} tokens, where soft "
                f"guidance knows {grid[0] * grid[1]} and {self.length}. Remove one of the two."
            )
        rows = len(q) // len(columns)
        if any(each.pictures not in (1, rows) for each in columns):
            raise ValueError(
                "Context windows cut the batch, but a region of soft guidance has masks or tokens for single pictures. "
                "Give it one mask and one set of tokens."
            )
        key = (tuple(each.signature for each in columns), grid, length, rows, q.dtype, q.device)
        if key not in self.run.biases:
            self.run.biases[key] = joined_mask(self._bias(columns, grid, length, rows), None, q.dtype).to(q.device)
        known = self.run.biases[key]
        # What inference mode has made cannot be kept for a way back.
        return known.clone() if known.is_inference() and torch.is_grad_enabled() else known

    def _in_batch(self, options: Options) -> list[EntryColumns]:
        keys = list(zip(options.get("cond_or_uncond", []), options.get("uuids", []), strict=True))
        if not keys or any(key not in self.columns for key in keys):
            raise ValueError(
                "Another node evaluates prompts of its own beside the sampler's, where soft guidance cannot tell which "
                "tokens belong to which. Remove one of the two."
            )
        return [self.columns[key] for key in keys]

    def _bias(self, columns: Sequence[EntryColumns], grid: tuple[int, int], length: int, rows: int) -> Tensor:
        if len({each.signature for each in columns}) == 1:
            bias = columns[0].bias(grid, self.length)
            bias = bias if len(bias) == 1 else repeat_to_batch_size(bias, rows).repeat(len(columns), 1, 1)
        else:
            bias = torch.cat([repeat_to_batch_size(each.bias(grid, self.length), rows) for each in columns])
        return F.pad(bias, (0, length - self.length))

    def text_columns(self, options: Options, rows: int, device: torch.device) -> Tensor:
        """Where each row's text is, (rows t); a shorter text is repeated, which plain attention does not notice."""
        texts = [each.text.shape[1] for each in self._in_batch(options)]
        longest = math.lcm(*texts)
        index = torch.stack([torch.arange(longest, device=device) % text for text in texts])
        return index.repeat_interleave(rows // len(texts), 0)


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
