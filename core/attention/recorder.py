"""Softmax attention of chosen tokens at chosen places of a U-Net: what a host records, and what the energies read."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..layout.masks import resample_by_area
from .sites import CROSS, SELF, Site, choose_sites, is_past


class LastMapRecorded(Exception):  # noqa: N818 - it is no error: it ends a forward pass of which no more is needed
    """Every map that was asked for is there; whoever started the forward pass catches this."""


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
        """
        self.which, self.latent, self.lengths, self.regions, self.known = which, latent, lengths, regions, known
        longest = max(len(each) for each in columns)
        self.columns = torch.stack([F.pad(each, (0, longest - len(each))) for each in columns])
        self.seen: list[Site] = []
        self._found: dict[Site, Tensor | Callable[[], Tensor]] = {}
        self.is_complete = False

    @property
    def maps(self) -> dict[Site, Tensor]:
        """By site (b heads (h w) m).

        Of a cross-attention, what every position pays to each of the m tokens; of a self-attention, what the positions
        of the o-th region pay, on average, to every position (m = regions). Read it when the pass has ended.
        """
        for site, found in self._found.items():
            if not isinstance(found, Tensor):
                self._found[site] = found()
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
    ) -> None:
        """Keep the map of an attention.

        Args:
            site: where.
            q: (b n (heads d)), conditional rows only.
            k: (b t (heads d)); of a self-attention, the first n are those of the picture.
            heads: number of heads.
            scale: of the logits; None means 1 / sqrt(d).
            mask: of the attention, as `torch.nn.functional.scaled_dot_product_attention` takes it.
        """
        if site.stream == SELF:
            pools = resample_by_area(self.regions, *site.grid).flatten(-2).to(q.device)
            # What another pack puts behind the picture's own positions, such as a reference, has no place in it.
            k, mask = k[:, : q.shape[1]], mask if mask is None else mask[..., : q.shape[1]]
            # Later, for a first pass begins with fine grids, whose softmax is large, and goes on to those it keeps.
            found = partial(region_maps, q, k, heads, pools, scale, mask)
        else:
            found = token_maps(q, k, heads, self.columns.to(q.device), scale, mask)
            copies = [k.shape[1] // each if k.shape[1] % each == 0 else 1 for each in self.lengths or ()]
            if any(count > 1 for count in copies):
                found = found * found.new_tensor(copies)[:, None, None, None]
        self._found[site] = found
        self.is_complete = bool(self.known) and self.known == self._found.keys()


def token_maps(
    q: Tensor, k: Tensor, heads: int, columns: Tensor, scale: float | None = None, mask: Tensor | None = None
) -> Tensor:
    """Attention that every position pays to some tokens: the asked columns of softmax(q k^T / sqrt(d)).

    The softmax is over all tokens, but only the asked columns outlive the call, also for the backward pass, which
    evaluates the logits anew.

    Args:
        q: (b n (heads d)), image positions.
        k: (b t (heads d)), tokens.
        heads: number of heads.
        columns: int64 (m), or (b m) for each row.
        scale: of the logits; None means 1 / sqrt(d).
        mask: boolean (true takes part) or added to the logits; (n t), (b n t) or (b heads n t), broadcast.

    Returns:
        float32 (b heads n m); differentiable in q and k.
    """
    if columns.ndim == 1:
        columns = columns[None]
    # Cloned, because an index from inference mode cannot be kept for the way back.
    columns = columns.clone().expand(len(q), -1)

    def asked(q: Tensor, k: Tensor) -> Tensor:
        logits = _logits(q, k, heads, scale, mask)
        wanted = columns[:, None, None].expand(-1, *logits.shape[1:3], -1)
        return (logits.gather(-1, wanted) - logits.logsumexp(-1, keepdim=True)).exp()

    return _without_intermediates(asked, q, k)


def region_maps(
    q: Tensor, k: Tensor, heads: int, pools: Tensor, scale: float | None = None, mask: Tensor | None = None
) -> Tensor:
    """Self-attention that the positions of some regions pay, on average, to every position.

    Args:
        q: (b n (heads d)), image positions.
        k: (b n (heads d)).
        heads: number of heads.
        pools: (o n) or (b o n), shares of every position that lie in each region.
        scale: of the logits; None means 1 / sqrt(d).
        mask: as in `token_maps`.

    Returns:
        float32 (b heads n o); sums to 1 over n; differentiable in q and k.
    """
    pools = pools.float().expand(len(q), *pools.shape[-2:])
    pools = pools / pools.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)

    def pooled(q: Tensor, k: Tensor) -> Tensor:
        weights = _logits(q, k, heads, scale, mask).softmax(-1)
        return einsum(pools, weights, "b o query, b heads query key -> b heads key o")

    return _without_intermediates(pooled, q, k)


def _logits(q: Tensor, k: Tensor, heads: int, scale: float | None, mask: Tensor | None) -> Tensor:
    """float32 (b heads n t)."""
    q, k = (rearrange(x.float(), "b n (heads d) -> b heads n d", heads=heads) for x in (q, k))
    logits = einsum(q, k, "b heads n d, b heads t d -> b heads n t") * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        return logits
    mask = mask[:, None] if mask.ndim == 3 else mask
    return logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask.float()


def _without_intermediates(function: Callable[..., Tensor], q: Tensor, k: Tensor) -> Tensor:
    """Evaluate a function of which the backward pass keeps only the arguments."""
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad):
        return checkpoint(function, q, k, use_reentrant=False, preserve_rng_state=False)
    return function(q, k)


def average_maps(maps: Sequence[Tensor], height: int, width: int) -> Tensor:
    """Average maps of several grids on one: each is brought to the grid bilinearly.

    reconstructed: LRDiff averages one map per down stage; on which grid and with which resampling is not said.

    Args:
        maps: (b h w) each, any grids.
        height: rows of the result.
        width: columns of the result.

    Returns:
        (b height width).
    """
    resized = [F.interpolate(m[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0] for m in maps]
    return torch.stack(resized).mean(0)


def phrase_map(maps: Tensor, grid: tuple[int, int], columns: Sequence[int]) -> Tensor:
    """Where a phrase looks at one site: the mean over heads and over its tokens.

    Args:
        maps: (b heads (h w) m) of an `AttentionRecorder`.
        grid: rows and columns of the site.
        columns: which of the m are the phrase's.

    Returns:
        (b h w).
    """
    return rearrange(reduce(maps[..., list(columns)], "b heads n m -> b n", "mean"), "b (h w) -> b h w", h=grid[0])
