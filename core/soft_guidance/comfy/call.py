"""One evaluation of prompts under soft guidance: the contexts, and what every row of the batch sees of them."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence

import comfy.patcher_extension
import torch
import torch.nn.functional as F
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ...attention.comfy.families import UNET, known_family, uncompiled_network
from ...attention.comfy.recording import OVERRIDE
from ...attention.token_order import TokenOrder
from ...comfy.types import BaseModel, Entry, Executor, Options, Wrappers
from ..joint import cross_bias, joint_bias, text_bias
from ..merge import Parts, joint_parts
from ..soft_guidance import joined_mask
from .attention import SoftForward
from .columns import EntryColumns
from .memory import WRAPPER, Memory
from .transformers import Inputs, TransformerForward

ALIGNED = 8  # columns; what the fast kernels want of a mask's rows
TEXT_MASK = "attention_mask"  # of the prompt's tokens, as some families' networks are given it
Conds = Sequence[list[Entry] | None]  # the prompts of one evaluation: ComfyUI leaves out those that it does not need


class SoftCall:
    """One evaluation of prompts.

    All its contexts are brought to one length, with columns that nobody sees. ComfyUI would repeat the shorter ones or
    evaluate them apart; like this prompts of any length share a batch, and each row's columns lie where they are known.
    """

    def __init__(self, memory: Memory, model: BaseModel, conds: Conds, x: Tensor, timestep: Tensor) -> None:
        self.memory, self.model, self.timestep = memory, model, timestep
        self.family = known_family(model.diffusion_model) or UNET
        entries = [
            (place, entry)
            for place, conditioning in enumerate(conds)
            for entry in conditioning or []
            if "c_crossattn" in entry["model_conds"]
        ]
        fills_left = self.family is not UNET
        # By the prompt's place too: ComfyUI gives an entry with an area a namesake among the other prompts.
        self.columns = {
            (place, entry["uuid"]): memory.columns_of(place, entry, x, fills_left=fills_left)
            for place, entry in entries
        }
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
        return self.memory.drops_masks

    @property
    def largest_bias(self) -> int:
        """The run's."""
        return self.memory.largest_bias

    def install(self, options: Options) -> None:
        """Put the masks on the attentions of an evaluation with these model options."""
        options.setdefault("transformer_options", {})[WRAPPER] = self
        kind, wrapper = (
            (Wrappers.DIFFUSION_MODEL, self.forward) if self.family is UNET else (Wrappers.APPLY_MODEL, self.apply)
        )
        comfy.patcher_extension.add_wrapper_with_key(kind, WRAPPER, wrapper, options, is_model_options=True)

    def with_tokens(self, conds: Conds) -> list[list[Entry] | None]:
        """The prompts with their regions' tokens in the contexts."""
        return [
            conditioning and [self._with_tokens(place, entry) for entry in conditioning]
            for place, conditioning in enumerate(conds)
        ]

    def length_of(self, columns: EntryColumns) -> int:
        """Tokens of a context. Where more text moves the picture, no column stands there that nobody sees."""
        return self.length if self.family.appends else columns.length

    def _with_tokens(self, place: int, entry: Entry) -> Entry:
        columns = self.columns.get((place, entry["uuid"]))
        if columns is None:
            return entry
        conds = {name: cond for name, cond in entry["model_conds"].items() if name != WRAPPER}
        plain = conds["c_crossattn"]
        length = self.length_of(columns)
        conds["c_crossattn"] = type(plain)(columns.context(length, keeps_mean=self.family.pools))
        mask = getattr(conds.get(TEXT_MASK), "cond", None)
        if isinstance(mask, Tensor):
            if mask.shape[-1] != columns.text.shape[1]:
                raise ValueError(
                    "The prompt has a mask of attention for its own tokens, as Apply Style Model gives it with "
                    "strength_type attn_bias; soft guidance cannot put tokens behind it. Choose multiply there, or "
                    "give the picture to Region Tokens."
                )
            conds[TEXT_MASK] = type(conds[TEXT_MASK])(F.pad(mask, (0, length - mask.shape[-1]), value=1))
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
        self._check_size(options, tuple(x.shape[-2:]))
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

    def apply(
        self,
        executor: Executor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: object = None,
        transformer_options: Options | None = None,
        **kwargs: object,
    ) -> Tensor:
        """APPLY_MODEL wrapper, for transformers, of which some know no other."""
        options = dict(transformer_options or {})
        if c_crossattn is None:  # an unconditional evaluation without any text
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        self._check_size(options, tuple(x.shape[-2:]))
        network = uncompiled_network(executor.class_obj.diffusion_model)
        inputs = Inputs(x.shape, c_crossattn.shape[1], kwargs)
        soft = TransformerForward(self, options.get(OVERRIDE), network, self.family, inputs)
        options[OVERRIDE] = soft.attend
        out = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
        soft.check()
        return out

    def _check_size(self, options: Options, size: tuple[int, int]) -> None:
        for columns in self._in_batch(options):
            if columns.size != size:
                raise ValueError(
                    f"Another node evaluates {size[1]} x {size[0]} cells of the picture, as in tiles, where soft "
                    f"guidance has masks for {columns.size[1]} x {columns.size[0]}. Remove one of the two."
                )

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
        rows = self._rows(columns, q)
        key = (tuple(each.signature for each in columns), grid, length, rows, q.dtype, q.device)
        return self._known(key, q, lambda: self._bias(columns, grid, length, rows))

    def token_bias(self, options: Options, order: TokenOrder, q: Tensor, queries: int, keys: int) -> Tensor:
        """What is added to the logits of all rows in a transformer, (b queries keys) or (1 queries keys).

        Args:
            options: transformer_options, as in `bias`.
            order: where text and picture are.
            q: queries, heads apart or not.
            queries: their number.
            keys: their number.
        """
        columns = self._in_batch(options)
        rows, hard = self._rows(columns, q), [self._hard(each) for each in columns]
        key = (tuple(each.signature for each in columns), str(order), queries, keys, rows, str(hard), q.dtype, q.device)

        def made(each: EntryColumns, hard: Sequence[bool]) -> Tensor:
            seen = each.bias(order.grid, order.words)
            if order.is_joint:
                return joint_bias(order, keys, seen, each.spans, hard)
            return cross_bias(order, queries, seen, each.spans)

        return self._known(key, q, lambda: _for_rows(map(made, columns, hard), columns, rows))

    def token_parts(self, options: Options, order: TokenOrder, q: Tensor, keys: int, *, folds: bool) -> list[Parts]:
        """What gives the same in joint attention without a mask, for each row.

        Args:
            options: transformer_options, as in `bias`.
            order: where text and picture are.
            q: queries, heads apart or not.
            keys: tokens.
            folds: as `merge.joint_parts` takes it.
        """
        columns = self._in_batch(options)
        rows, hard = self._rows(columns, q), [self._hard(each) for each in columns]
        key = (tuple(each.signature for each in columns), str(order), keys, rows, str(hard), folds, q.device)

        def made(each: EntryColumns, hard: Sequence[bool]) -> list[Parts]:
            seen = each.bias(order.grid, order.words).to(q.device)
            of_pictures = [joint_parts(order, keys, one, each.spans, hard, folds=folds) for one in seen]
            return of_pictures * rows if len(of_pictures) == 1 else of_pictures

        return self.memory.parts_of(key, lambda: sum(map(made, columns, hard), []))

    def text_bias(self, options: Options, tokens: int, q: Tensor) -> Tensor:
        """The same where text is refined, (b tokens tokens) or (1 tokens tokens)."""
        columns = self._in_batch(options)
        rows = self._rows(columns, q)
        key = (tuple(each.signature for each in columns), "text", tokens, rows, q.dtype, q.device)

        def made(each: EntryColumns) -> Tensor:
            unseen = slice(each.length, self.length_of(each))
            return text_bias([*each.spans, unseen], tokens, q.device)[None]

        return self._known(key, q, lambda: _for_rows(map(made, columns), columns, rows))

    def _rows(self, columns: Sequence[EntryColumns], q: Tensor) -> int:
        """How many rows each entry has."""
        rows = len(q) // len(columns)
        if any(each.pictures not in (1, rows) for each in columns):
            raise ValueError(
                "Context windows cut the batch, but a region of soft guidance has masks or tokens for single pictures. "
                "Give it one mask and one set of tokens."
            )
        return rows

    def _known(self, key: Hashable, q: Tensor, make: Callable[[], Tensor]) -> Tensor:
        biases = self.memory.biases
        if key not in biases:
            biases[key] = joined_mask(make(), None, q.dtype).to(q.device)
        known = biases[key]
        # What inference mode has made cannot be kept for a way back.
        return known.clone() if known.is_inference() and torch.is_grad_enabled() else known

    def _hard(self, columns: EntryColumns) -> tuple[bool, ...]:
        """Whether the cells of each region see no cell of another one at this noise level."""
        if not any(columns.hard_until):
            return ()
        level, sigma_at = float(self.timestep.max()), self.model.model_sampling.percent_to_sigma
        return tuple(share > 0 and level >= float(sigma_at(share)) for share in columns.hard_until)

    def _in_batch(self, options: Options) -> list[EntryColumns]:
        keys = list(zip(options.get("cond_or_uncond", []), options.get("uuids", []), strict=True))
        if not keys or any(key not in self.columns for key in keys):
            raise ValueError(
                "Another node evaluates prompts of its own beside the sampler's, where soft guidance cannot tell which "
                "tokens belong to which. Remove one of the two."
            )
        return [self.columns[key] for key in keys]

    def _bias(self, columns: Sequence[EntryColumns], grid: tuple[int, int], length: int, rows: int) -> Tensor:
        bias = _for_rows((each.bias(grid, self.length) for each in columns), columns, rows)
        return F.pad(bias, (0, length - self.length))

    def text_columns(self, options: Options, rows: int, device: torch.device) -> Tensor:
        """Where each row's text is, (rows t); a shorter text is repeated, which plain attention does not notice."""
        texts = [each.text.shape[1] for each in self._in_batch(options)]
        longest = math.lcm(*texts)
        index = torch.stack([torch.arange(longest, device=device) % text for text in texts])
        return index.repeat_interleave(rows // len(texts), 0)


def _for_rows(biases: Iterable[Tensor], columns: Sequence[EntryColumns], rows: int) -> Tensor:
    """Biases (b n t) of all entries as one for all rows; (1 n t) where all are the same."""
    if len({each.signature for each in columns}) == 1:
        bias = next(iter(biases))
        return bias if len(bias) == 1 else repeat_to_batch_size(bias, rows).repeat(len(columns), 1, 1)
    return torch.cat([repeat_to_batch_size(each, rows) for each in biases])
