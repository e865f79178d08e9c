"""Records the softmax attention of chosen tokens at chosen places of one forward pass, for any host."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout.masks import resample_by_area
from .maps import region_maps, token_maps
from .sites import CROSS, SELF, Site, check_choice, choose_sites, is_past
from .token_order import TokenOrder, views


class LastMapRecorded(Exception):
    """No error: every map that was asked for is there. Whoever started the forward pass catches this."""


class AttentionRecorder:
    """Collects the softmax attention of chosen tokens at chosen sites of one forward pass.

    A host names every attention that it comes to and hands over queries and keys of conditional rows:
    `if recorder.wants(site): recorder.record(site, q, k, heads)`, then leaves the pass by `LastMapRecorded` once
    `recorder.is_complete`, if it wants no more of it. Maps are per head. Their memory is that of the asked tokens.

    Attributes:
        is_complete: whether there is nothing more to record in this pass.
    """

    def __init__(
        self,
        which: str,
        latent: tuple[int, int],
        columns: Sequence[Tensor],
        *,
        lengths: Sequence[int] | None = None,
        regions: Tensor | None = None,
        known: frozenset[Site] = frozenset(),
        keep: Callable[[Site, Tensor], Tensor] | None = None,
    ) -> None:
        """Say what to record.

        Args:
            which: sites, as in `choose_sites`.
            latent: rows and columns of the latent.
            columns: positions (m) of the asked tokens along the prompt, one tensor for each picture, or one for all.
                Where their numbers differ the shorter are filled up with position 0.
            lengths: tokens of each picture's prompt, or one for all. A host may repeat a shorter prompt to the length
                of a longer one; then a token's map is the sum over its copies. None: prompts are as they were given.
            regions: (o h w) masks, or (b o h w) for each picture: record the self-attention too.
            known: chosen sites of an earlier pass of the same network at the same size; only these are recorded, and
                the pass can end behind the last of them.
            keep: what is kept of a map (b heads (f h w) m), such as its mean over heads; None: all of it.
        """
        check_choice(which)
        self.which, self.latent, self.lengths, self.regions, self.known = which, latent, lengths, regions, known
        self.keep = keep
        longest = max(len(each) for each in columns)
        self.columns = torch.stack([F.pad(each, (0, longest - len(each))) for each in columns])
        self.seen: list[Site] = []
        self._found: dict[Site, Tensor | Callable[[], Tensor]] = {}
        self.is_complete = False

    @property
    def maps(self) -> dict[Site, Tensor]:
        """By site (b heads (h w) m), or (b heads (f h w) m) of a video.

        Of a cross-attention, what every position pays to each of the m tokens; of a self-attention, what the positions
        of the o-th region pay, on average, to every position (m = regions). Read it when the pass has ended.
        """
        for site, found in self._found.items():
            if not isinstance(found, Tensor):
                self._keep(site, found())
        return self._found

    def wants(self, site: Site) -> bool:
        """Take notice of an attention, and say whether its map is asked for."""
        if self.is_complete:
            return False
        self.is_complete = is_past(site, self.seen, self.which, self.latent)
        if self.is_complete:
            return False
        self.seen.append(site)
        if self.known:
            return site in self.known
        if site.stream == SELF:
            # The choice is by grids with cross-attention, which comes second in a block.
            coming = [*self.seen, replace(site, stream=CROSS)]
            return self.regions is not None and site in choose_sites(coming, self.which, self.latent)
        chosen = choose_sites(self.seen, self.which, self.latent)
        # The nearest grid so far may be bettered by a later one.
        self._found = {old: found for old, found in self._found.items() if old in chosen}
        return site in chosen

    def record(
        self,
        site: Site,
        q: Tensor,
        k: Tensor,
        heads: int,
        scale: float | None = None,
        mask: Tensor | None = None,
        order: TokenOrder | None = None,
    ) -> None:
        """Keep the map of an attention.

        Args:
            site: where.
            q: (b n (heads d)), conditional rows only; or (b heads n d).
            k: (b t (heads d)); of a self-attention, the first n are those of the picture; or (b heads t d).
            heads: number of heads.
            scale: of the logits; None means 1 / sqrt(d).
            mask: of the attention, as `torch.nn.functional.scaled_dot_product_attention` takes it.
            order: of a transformer's tokens; then `columns` count the prompt's, those below 0 from its end.
        """
        if order is not None:
            self._record_view(site, q, k, heads, scale, mask, order)
        elif site.stream == SELF:
            pools = resample_by_area(self.regions, *site.grid).flatten(-2).to(q.device)
            # What another pack puts behind the picture's own positions, such as a reference, has no place in it.
            k, mask = k[:, : q.shape[1]], mask if mask is None else mask[..., : q.shape[1]]
            # Later, for a first pass begins with fine grids, whose softmax is large, and goes on to those it keeps.
            self._found[site] = partial(region_maps, q, k, heads, pools, scale, mask)
        else:
            found = token_maps(q, k, heads, self.columns.to(q.device), scale, mask)
            copies = [k.shape[1] // each if k.shape[1] % each == 0 else 1 for each in self.lengths or ()]
            if any(count > 1 for count in copies):
                found = found * found.new_tensor(copies)[:, None, None, None]
            self._keep(site, found)
        self.is_complete = bool(self.known) and self.known == self._found.keys()

    def _record_view(
        self, site: Site, q: Tensor, k: Tensor, heads: int, scale: float | None, mask: Tensor | None, order: TokenOrder
    ) -> None:
        """The same of a transformer's call, in which text and picture may be one sequence."""
        view = views(order)[site.stream]
        if site.stream == SELF:
            pools = resample_by_area(self.regions, *site.grid).flatten(-2).to(q.device)
            pools = pools.repeat(*[1] * (pools.ndim - 1), order.frames)
            self._keep(site, region_maps(q, k, heads, pools, scale, mask, rows=view.rows))
            return
        if self.lengths and order.words not in self.lengths:
            expected = " or ".join(map(str, sorted(set(self.lengths))))
            raise ValueError(
                f"The model reads {order.words} tokens of text where {expected} were expected, so it is not known "
                "where the prompt's words are. Prompts of different lengths cannot be in one batch with this model: "
                "sample their pictures one by one; or remove the node that adds tokens."
            )
        columns = self.columns.to(q.device)
        columns = torch.where(columns < 0, columns + view.words.stop, columns + view.words.start)
        self._keep(site, token_maps(q, k, heads, columns, scale, mask, rows=view.rows))

    def _keep(self, site: Site, found: Tensor) -> None:
        self._found[site] = found if self.keep is None else self.keep(site, found)
