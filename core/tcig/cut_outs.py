"""Cut-outs: many slightly different views of a picture, which CLIP judges together.

The canonical VQGAN+CLIP loop pools the whole picture to CLIP's size and augments copies of that in the order affine,
perspective, colour jitter, erasing, noise. Here both warps are one matrix and one resampling, and jitter is one matrix
on the colours, so that any number of cut-outs costs about as much as one. Every draw comes from the given generator.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import Tensor

from ..drawing.resizing import largest_pooled, mean_pooled

# Of the canonical loop.
NUMBER = 32
CHANCE = 0.7  # of each augmentation, for each cut-out; erasing is the same for all of a batch
DEGREES, TRANSLATION, SHEAR = 15.0, 0.1, 5.0  # +-; shear in degrees, translation in shares of the side
DISTORTION = 0.7  # perspective moves a corner inwards by up to half of this share of the side
JITTER = 0.1  # +-, of brightness, contrast, saturation and, as a share of the full turn, hue
ERASED, ASPECTS = (0.1, 0.4), (0.3, 1 / 0.3)  # share of the cut-out; height to width
NOISE = 0.1  # the most; each cut-out draws its own share of it

LUMA = (0.299, 0.587, 0.114)
CORNERS = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
NEAR_HORIZON = 1e-3  # perspective depth below which a point counts as outside the picture


@dataclass(frozen=True)
class CutOuts:
    """Makes cut-outs.

    Attributes:
        number: of each picture.
        augmented: off: every cut-out is the pooled picture itself.
    """

    number: int = NUMBER
    augmented: bool = True

    def __call__(self, pictures: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """Cut out.

        Args:
            pictures: (b 3 h w) in 0..1.
            size: side of a cut-out, in pixels.
            generator: on the pictures' device; all draws come from it.

        Returns:
            (b*n 3 size size), a picture's n cut-outs behind each other; with noise, so a little outside of 0..1.
        """
        pooled = pool(pictures, size)
        if not self.augmented:
            return repeat(pooled, "b c h w -> (b n) c h w", n=self.number)
        total = len(pictures) * self.number
        cut_outs = warp(pooled, draw_warps(total, generator))
        cut_outs = jitter(cut_outs, generator)
        cut_outs = erase(cut_outs, generator)
        share = NOISE * _uniform((total, 1, 1, 1), 0, 1, generator)
        return cut_outs + share * torch.randn(cut_outs.shape, generator=generator, device=generator.device)


def pool(pictures: Tensor, size: int) -> Tensor:
    """The mean of the largest and the mean value of each cell: (b c h w) -> (b c size size)."""
    square = (size, size)
    return (mean_pooled(pictures, square) + largest_pooled(pictures, square)) / 2


def draw_warps(number: int, generator: torch.Generator) -> Tensor:
    """Draw the affine and the perspective warp of each cut-out as one matrix.

    Returns:
        (n 3 3): where in the pooled picture, in 0..1, a place of the cut-out is looked up, up to scale.
    """
    return _affine(number, generator) @ _inverse(_perspective(number, generator))


def warp(pictures: Tensor, matrices: Tensor) -> Tensor:
    """Look pictures (b c s s) up through matrices (b*n 3 3), black outside: (b*n c s s)."""
    size, number = pictures.shape[-1], len(matrices) // len(pictures)
    middles = (torch.arange(size, device=pictures.device) + 0.5) / size
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    places = einsum(matrices, torch.stack([x, y, torch.ones_like(x)], -1), "n i j, h w j -> n h w i")
    depth = places[..., 2:]
    is_visible = depth > NEAR_HORIZON
    grid = torch.where(is_visible, 2 * places[..., :2] / depth.clamp(min=NEAR_HORIZON) - 1, 2.0)
    # One tall picture each: so the pooled picture is read n times and never copied.
    tall = rearrange(grid, "(b n) h w i -> b (n h) w i", n=number)
    found = F.grid_sample(pictures, tall, mode="bilinear", padding_mode="zeros", align_corners=False)
    return rearrange(found, "b c (n h) w -> (b n) c h w", n=number)


def jitter(cut_outs: Tensor, generator: torch.Generator) -> Tensor:
    """Change saturation, hue, contrast and brightness of each cut-out (n 3 h w) a little, and clamp to 0..1."""
    number = len(cut_outs)
    brightness, contrast, saturation, hue = (_uniform((number,), -JITTER, JITTER, generator) for _ in range(4))
    same, ones = torch.eye(3, device=cut_outs.device), torch.ones(3, 3, device=cut_outs.device)
    luma = torch.tensor(LUMA, device=cut_outs.device).expand(3, 3)
    # Hue: a turn about the grey axis (Rodrigues), which leaves greys as they are.
    turn = rearrange(2 * math.pi * hue, "n -> n 1 1")
    across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=cut_outs.device) / math.sqrt(3)
    turned = turn.cos() * same + (1 - turn.cos()) / 3 * ones + turn.sin() * across
    saturated = luma + rearrange(1 + saturation, "n -> n 1 1") * (same - luma)
    matrices = rearrange(1 + contrast, "n -> n 1 1") * (turned @ saturated)
    is_kept = ~_happens((number,), generator)
    matrices = torch.where(rearrange(is_kept, "n -> n 1 1"), same, matrices)
    offsets = torch.where(is_kept, 0.0, brightness)
    coloured = einsum(matrices, cut_outs, "n i j, n j h w -> n i h w") + rearrange(offsets, "n -> n 1 1 1")
    return coloured.clamp(0, 1)


def erase(cut_outs: Tensor, generator: torch.Generator) -> Tensor:
    """Black out one rectangle, the same in all cut-outs (n c h w), by chance."""
    height, width = cut_outs.shape[-2:]
    area = _uniform((), *ERASED, generator)
    aspect = _uniform((), *map(math.log, ASPECTS), generator).exp()
    tall, wide = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    top, left = (_uniform((), 0, 1, generator) * (1 - side) for side in (tall, wide))
    y, x = ((torch.arange(n, device=cut_outs.device) + 0.5) / n for n in (height, width))
    rows, columns = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
    erased = rearrange(rows, "h -> h 1") & columns & _happens((), generator)
    return cut_outs * ~erased


def _affine(number: int, generator: torch.Generator) -> Tensor:
    """Turn, shear and shift about the middle: (n 3 3). Drawn for looking up, since all ranges are symmetric."""
    angle = math.radians(DEGREES) * _uniform((number,), -1, 1, generator)
    shear = (math.radians(SHEAR) * _uniform((number,), -1, 1, generator)).tan()
    shift = TRANSLATION * _uniform((number, 2), -1, 1, generator)
    cos, sin = angle.cos(), angle.sin()
    linear = torch.stack([cos, cos * shear - sin, sin, sin * shear + cos], -1)
    linear = rearrange(linear, "n (i j) -> n i j", i=2)
    middle = torch.full((2,), 0.5, device=generator.device)
    offset = middle + shift - einsum(linear, middle, "n i j, j -> n i")
    matrices = torch.cat([linear, rearrange(offset, "n i -> n i 1")], -1)
    last = torch.tensor([0.0, 0, 1], device=generator.device).expand(number, 1, 3)
    return _by_chance(torch.cat([matrices, last], 1), generator)


def _perspective(number: int, generator: torch.Generator) -> Tensor:
    """Corners move inwards: (n 3 3), from places of the picture to places of the cut-out."""
    corners = torch.tensor(CORNERS, device=generator.device)
    inwards = DISTORTION / 2 * _uniform((number, 4, 2), 0, 1, generator)
    return _by_chance(square_to_corners(corners + inwards * (1 - 2 * corners)), generator)


def square_to_corners(corners: Tensor) -> Tensor:
    """The projective map of the unit square onto a quadrilateral.

    Heckbert, Fundamentals of Texture Mapping and Image Warping, 1989, section 2.2.3.

    Args:
        corners: (n 4 2), x and y of what (0, 0), (1, 0), (1, 1) and (0, 1) become.

    Returns:
        (n 3 3), for homogeneous coordinates.
    """
    first, second, third, fourth = corners.unbind(1)
    to_second, to_fourth, skew = second - third, fourth - third, first - second + third - fourth

    def cross(a: Tensor, b: Tensor) -> Tensor:
        return a[:, :1] * b[:, 1:] - a[:, 1:] * b[:, :1]

    area = cross(to_second, to_fourth)
    g, h = cross(skew, to_fourth) / area, cross(to_second, skew) / area
    columns = [
        torch.cat([second - first + g * second, g], -1),
        torch.cat([fourth - first + h * fourth, h], -1),
        torch.cat([first, torch.ones_like(g)], -1),
    ]
    return torch.stack(columns, -1)


def _inverse(matrices: Tensor) -> Tensor:
    """The inverse of projective maps (n 3 3) that keep the orientation, up to a positive scale."""
    a, b, c = matrices.unbind(-1)
    return torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)


def _by_chance(matrices: Tensor, generator: torch.Generator) -> Tensor:
    same = torch.eye(3, device=matrices.device)
    return torch.where(_happens((len(matrices), 1, 1), generator), matrices, same)


def _happens(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return _uniform(shape, 0, 1, generator) < CHANCE


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)
