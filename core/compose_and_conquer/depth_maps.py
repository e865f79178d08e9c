"""Depth maps as a sampler needs them: on the latent's grid, under an area of it, and row by row."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..drawing.pictures import colours_of
from ..drawing.resizing import resized
from ..layout.masks import is_same_aspect
from .local_fuser import PIXELS_PER_CELL, Modulations

Area = tuple[int, ...] | None  # rows, columns, top and left in latent cells; None: all of the latent
Grid = tuple[int, int]


@dataclass(frozen=True, eq=False)
class DepthMap:
    """A depth map as it was given.

    Attributes:
        name: what it is called in errors.
        image: (b h w c) in 0..1, near is bright; None where nothing is known, which is a map of zeros, as published.
        strength: times the depth, which is then cut off at 1: above 1 things come nearer, below they go away.
    """

    name: str
    image: Tensor | None
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what would break the picture."""
        if self.image is not None and not bool(torch.isfinite(self.image).all()):
            raise ValueError(
                f"The {self.name} has values that are not numbers, as some depth nodes give for a flat picture. "
                "Disconnect it, which is a black map, or connect another one."
            )

    def on(self, grid: Grid) -> Tensor:
        """The map for a latent of so many rows and columns: (b 3 8h 8w).

        Eight pixels for each cell make every level of the fuser as large as the U-Net's, odd sizes included: both
        halve a side by rounding it up.

        Raises:
            ValueError: another aspect ratio.
        """
        size = (PIXELS_PER_CELL * grid[0], PIXELS_PER_CELL * grid[1])
        if self.image is None:
            return torch.zeros(1, 3, *size)
        height, width = self.image.shape[1:3]
        if not is_same_aspect(*grid, height, width):
            raise ValueError(
                f"The {self.name} has {width} x {height} pixels, which is not the shape of the latent ({grid[1]} x "
                f"{grid[0]} cells). Give both the same aspect ratio."
            )
        grey = rearrange(colours_of(self.image).mean(-1), "b h w -> b 1 h w")
        if (height, width) != size:
            grey = resized(grey, size)
        return repeat((grey * self.strength).clamp(0, 1), "b 1 h w -> b 3 h w")


@dataclass(frozen=True, eq=False)
class Depths:
    """The depths of a foreground and a background, what they add, and when.

    Attributes:
        foreground: depth (b h w c) in 0..1 of what is in front, near is bright; None: not known.
        background: depth of all the rest, with what the foreground hides.
        foreground_strength: times the foreground's depth.
        background_strength: times the background's depth.
        residual_scale: times what the depths add to the U-Net, in all or for each skip connection and then the middle;
            0 leaves the depths out.
        start_at: share of the run in 0..1 before which depths add nothing.
        end_at: share after which they add nothing.
    """

    foreground: Tensor | None = None
    background: Tensor | None = None
    foreground_strength: float = 1.0
    background_strength: float = 1.0
    residual_scale: float | Sequence[float] = 1.0
    start_at: float = 0.0
    end_at: float = 1.0

    def maps(self) -> tuple[DepthMap, DepthMap]:
        """The foreground's and the background's.

        Raises:
            ValueError: one has values that are not numbers.
        """
        return (
            DepthMap("foreground depth", self.foreground, self.foreground_strength),
            DepthMap("background depth", self.background, self.background_strength),
        )

    def scales(self, count: int) -> tuple[float, ...]:
        """`residual_scale` of each of so many residuals, the middle's last.

        Raises:
            ValueError: another number of scales.
        """
        scale = self.residual_scale
        scales = (scale,) * count if isinstance(scale, (int, float)) else tuple(scale)
        if len(scales) != count:
            raise ValueError(
                f"There are {len(scales)} residual scales; expected one, or {count}: skips, then the middle."
            )
        return scales

    def check_range(self) -> None:
        """Refuse shares of a run between which no step lies.

        Raises:
            ValueError: start_at is not below end_at, or one is not in 0..1.
        """
        if not 0 <= self.start_at < self.end_at <= 1:
            raise ValueError(
                f"start_at is {self.start_at:g} and end_at {self.end_at:g}, so depth would add nothing. Set both to "
                "shares of the run in 0..1, end_at to more than start_at."
            )


def maps_under(maps: Sequence[DepthMap], grid: Grid, area: Area, pictures: int) -> list[Tensor]:
    """Several maps for the same part of the same latent.

    Args:
        maps: of one scene.
        grid: rows and columns of the whole latent.
        area: the part of it that is evaluated.
        pictures: in the batch.

    Returns:
        (b 3 8h 8w) each, all with one row, or all with as many as there are pictures.

    Raises:
        ValueError: a map of another aspect ratio or for another number of pictures.
    """
    found = [_cropped(each.on(grid), area, grid) for each in maps]
    for depth, each in zip(found, maps, strict=True):
        if len(depth) not in (1, pictures):
            raise ValueError(
                f"There are {len(depth)} pictures of {each.name} for a batch of {pictures}. Give one, or one for each "
                "picture."
            )
    rows = max(map(len, found))
    return [depth.expand(rows, -1, -1, -1) for depth in found]


def _cropped(depth: Tensor, area: Area, grid: Grid) -> Tensor:
    if area is None:
        return depth
    rows, columns, top, left = area
    edges = (top, min(top + rows, grid[0]), left, min(left + columns, grid[1]))
    top, bottom, left, right = (PIXELS_PER_CELL * edge for edge in edges)
    return depth[..., top:bottom, left:right]


def join_rows(parts: Sequence[Modulations], pictures: int) -> Modulations:
    """What a fuser made of maps, for a batch of several entries of so many pictures each.

    Args:
        parts: of each entry, with one row or one for each picture; the very same object where entries share it.
        pictures: in each entry.

    Returns:
        One row if all pictures of all entries share their maps; else rows entry by entry.
    """
    first = parts[0]
    is_shared = all(part is first for part in parts)
    if is_shared and (len(parts) == 1 or len(first[0][0][0]) == 1):
        return first

    def joined(level: int, norm: int, which: int) -> Tensor:
        return torch.cat([part[level][norm][which].expand(pictures, -1, -1, -1) for part in parts])

    pairs = [[(joined(level, norm, 0), joined(level, norm, 1)) for norm in (0, 1)] for level in range(len(first))]
    return [(before, after) for before, after in pairs]
