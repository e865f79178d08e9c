"""One layer of one run, on the run's grid."""

from collections.abc import Callable

import torch
from einops import rearrange, reduce
from torch import Tensor

from ...attention.comfy.phrases import SaidWhere
from ...comfy.runs import VIDEOS
from ...layout.masks import resample_by_area
from ..vision_guidance import EVERY_STEP, WITHOUT, dynamic_scale, dynamic_vector, vision_guidance
from .entry import LayerEntry, VisionEntry


class RunLayer:
    """What is seen of a layer, and its vision guidance.

    Attributes:
        visible: (b h w) in latent cells.
        xi: (b c h w), or None without guidance or before a dynamic delta is measured.
        said: for a dynamic delta, where the captions say the phrase; else None.
        inject: one of vision_guidance.INJECTIONS.
        without: whether the network's output is applied to the state without xi.
        cfg: the layer's own guidance scale, or None.
        is_guided: whether it has vision guidance, measured already or not.
    """

    def __init__(self, entry: LayerEntry, vision: VisionEntry | None, noise: Tensor, device: torch.device) -> None:
        height, width = noise.shape[-2:]
        self.visible = resample_by_area(entry.visible_mask, height, width).to(device)
        self.cfg = entry.cfg
        self.inject = EVERY_STEP if vision is None else vision.inject
        self.without = vision is not None and vision.reading == WITHOUT
        dynamic = vision is not None and vision.words is not None
        self.said = SaidWhere(vision.words, vision.told or (), vision.text_length or 0) if dynamic else None
        self.xi: Tensor | None = None
        self.is_guided = vision is not None
        if vision is None:
            return
        self.own = resample_by_area(vision.own_mask, height, width).to(device)
        self.sides = vision.sides.to(device)
        self.constant = None if vision.delta is None else vision.delta.to(device)
        if dynamic:
            self.factors = vision.factors.to(device)
            self.top_k = vision.top_k
        if self.constant is None:
            return
        if vision.delta.shape[1] != noise.shape[1]:
            raise ValueError(
                f"The colours were encoded with {vision.delta.shape[1]} latent channels, but the latent has "
                f"{noise.shape[1]}. Sample with the model that the layered rendering was made with."
            )
        if not dynamic:
            self._set_delta(self.constant)

    def _set_delta(self, delta: Tensor) -> None:
        self.xi = vision_guidance(delta, self.own, self.sides[0], self.sides[1])

    def measure(self, state: Tensor, attention: Tensor, data: Tensor) -> None:
        """Set the dynamic delta (Eq. 6).

        Args:
            state: (b c h w), noisy; or (b c f h w), of which every frame gives a vector and their mean is taken.
            attention: to the phrase, (b h w) or (b f h w).
            data: (b), share of data in the state.
        """
        frames = rearrange(state, "b c f h w -> (b f) c h w") if state.ndim == VIDEOS else state
        vectors = dynamic_vector(frames, attention.reshape(-1, *attention.shape[-2:]), self.top_k)
        cells = min(self.top_k, state.shape[-2] * state.shape[-1]) * (len(frames) // len(state))
        factors = self.factors * dynamic_scale(cells, data)
        delta = factors[:, None] * reduce(vectors, "(b f) c -> b c", "mean", b=len(state))
        self._set_delta(delta if self.constant is None else delta + self.constant)

    def xi_for(
        self, rows: Tensor, area: tuple[int, ...] | None = None, cut: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Xi in the shape of a layer's rows (b c ...).

        Args:
            rows: for shape and type.
            area: rows, columns, top and left of what is evaluated; None: the whole canvas.
            cut: where context windows cut the batch, what gives the pictures that are evaluated; None: all are.
        """
        xi = self.xi.to(rows)
        if cut is not None and len(xi) not in (1, len(rows)):
            xi = cut(xi)
        if area is not None:
            height, width, top, left = area
            xi = xi[..., top : top + height, left : left + width]
        return xi if rows.ndim == 4 else rearrange(xi, "b c h w -> b c 1 h w")

    def visible_for(self, latent: Tensor) -> Tensor:
        """What is seen of the layer in the shape of a latent (b c ...), one channel."""
        visible = self.visible.to(latent)
        return visible[:, None] if latent.ndim == 4 else visible[:, None, None]
