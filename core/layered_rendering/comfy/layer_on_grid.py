"""One layer of one run, on the run's grid."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ...layout.masks import resample_by_area
from ..vision_guidance import EVERY_STEP, dynamic_vector, vision_guidance
from . import keys

CROP_STEP = 8  # latent cells; U-Nets halve their grid up to three times


class RunLayer:
    """What is seen of a layer, and its vision guidance.

    Attributes:
        visible: (b h w) in latent cells.
        xi: (b c h w), or None without guidance or before a dynamic delta is measured.
        words: for a dynamic delta the phrase's token positions, for each picture; else None.
        inject: one of vision_guidance.INJECTIONS.
        cfg: the layer's own guidance scale, or None.
    """

    KEYS = frozenset(
        (
            keys.LAYER, keys.VISIBLE, keys.OWN, keys.DELTA, keys.SIDES, keys.INJECT, keys.WORDS, keys.LAMBDA,
            keys.TOP_K, keys.CFG, keys.CROP,
        )
    )  # fmt: skip

    def __init__(self, options: dict[str, Any], noise: Tensor, device: torch.device) -> None:
        height, width = noise.shape[-2:]
        self.visible = resample_by_area(options[keys.VISIBLE], height, width).to(device)
        self.cfg: float | None = options.get(keys.CFG)
        self.inject: str = options.get(keys.INJECT, EVERY_STEP)
        self.words: list[Tensor] | None = options.get(keys.WORDS)
        self.xi: Tensor | None = None
        self.is_guided = keys.OWN in options
        if not self.is_guided:
            return
        self.own = resample_by_area(options[keys.OWN], height, width).to(device)
        self.sides = options[keys.SIDES].to(device)
        if self.words is not None:
            self.factors = options[keys.LAMBDA].to(device)
            self.top_k: int = options[keys.TOP_K]
            return
        delta = options[keys.DELTA]
        if delta.shape[1] != noise.shape[1]:
            raise ValueError(
                f"The colours were encoded with {delta.shape[1]} latent channels, but the latent has {noise.shape[1]}. "
                "Sample with the model that the layered rendering was made with."
            )
        self._set_delta(delta.to(device))

    def _set_delta(self, delta: Tensor) -> None:
        self.xi = vision_guidance(delta, self.own, self.sides[0], self.sides[1])

    def measure(self, state: Tensor, attention: Tensor) -> None:
        """Set the dynamic delta (Eq. 6) from the noisy state (b c h w) and the phrase's attention (b h w)."""
        self._set_delta(self.factors[:, None] * dynamic_vector(state, attention, self.top_k))

    def xi_for(self, rows: Tensor, area: tuple[int, ...] | None) -> Tensor:
        """Xi in the shape of a layer's rows (b c ...), cropped to `area` (rows, columns, top, left) if there is one."""
        xi = self.xi.to(rows)
        if area is not None:
            height, width, top, left = area
            xi = xi[..., top : top + height, left : left + width]
        return xi if rows.ndim == 4 else rearrange(xi, "b c h w -> b c 1 h w")

    def visible_for(self, latent: Tensor) -> Tensor:
        """What is seen of the layer in the shape of a latent (b c ...), one channel."""
        visible = self.visible.to(latent)
        return visible[:, None] if latent.ndim == 4 else visible[:, None, None]

    def surroundings(self, margin: int) -> tuple[int, int, int, int]:
        """Rows, columns, top and left of the part of the grid with what is seen of the layer and at least a margin.

        Its sides are whole steps of `CROP_STEP` cells, as far as the grid goes, with what is seen in the middle. So
        things of about the same size get parts of the same size, which ComfyUI evaluates in one batch.
        """
        seen = self.visible.amax(0) > 0
        ranges = []
        for along, size in ((seen.any(1), seen.shape[0]), (seen.any(0), seen.shape[1])):
            cells = along.nonzero().flatten()
            first, end = int(cells[0]), int(cells[-1]) + 1
            length = min(size, -(-(end - first + 2 * margin) // CROP_STEP) * CROP_STEP)
            start = min(max(0, (first + end - length) // 2), size - length)
            ranges.append((start, start + length))
        (top, bottom), (left, right) = ranges
        return bottom - top, right - left, top, left
