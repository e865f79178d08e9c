"""Where a draft begins: random codes, a picture, or the layout in flat colours; and how large it is."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from ..drawing.pictures import check_finite, colours_of
from ..drawing.plates import region_colour
from ..drawing.resizing import resized
from ..layout.layout import Layout
from ..layout.masks import grown, inside_of
from ..layout.region import colour_to_rgb
from ..weights.differentiable import normal_copy
from .optimisation import DraftError
from .vqgan import VQGAN

NOISE, COLOURS, PICTURE = "random codes", "flat colours", "picture"  # as people choose them
STARTS = (COLOURS, NOISE, PICTURE)
GREY = 0.5  # behind the flat colours, where no picture is


@dataclass(frozen=True, eq=False)
class Start:
    """What the drafts of a batch begin with.

    Attributes:
        kind: one of `STARTS`.
        images: (b h w c) in 0..1, where a picture is the start, or what lies behind flat colours; one for each
            layout, or one for all. None: none.

    Raises:
        DraftError: an unknown kind, a picture that is needed and missing, or one that is not finite.
    """

    kind: str
    images: Tensor | None = None

    def __post_init__(self) -> None:
        if self.kind not in STARTS:
            raise DraftError(f'There is no start "{self.kind}"; expected one of: {"; ".join(STARTS)}. Choose one.')
        if self.kind == PICTURE and self.images is None:
            raise DraftError(
                'The start "picture" needs an image, and none is connected. Connect one, or choose another.'
            )
        if self.kind != NOISE and self.images is not None:
            check_finite(self.images, "The image to start from", "Make it again", DraftError)

    def pictures(self, number: int) -> list[Tensor | None]:
        """For each of so many layouts its picture (1 3 h w) in 0..1, or None where there is none.

        Raises:
            DraftError: another number of pictures.
        """
        if self.kind == NOISE or self.images is None:
            return [None] * number
        if len(self.images) not in (1, number):
            raise DraftError(f"There are {len(self.images)} images for {number} layouts. Give as many, or one for all.")
        pixels = rearrange(colours_of(normal_copy(self.images)), "b h w c -> b c h w").clamp(0, 1)
        return [pixels[index % len(pixels)][None] for index in range(number)]


def start_of(
    layout: Layout, vqgan: VQGAN, kind: str, picture: Tensor | None, size: tuple[int, int], seed: int
) -> tuple[Tensor, Tensor]:
    """Where one draft begins, and where it is held to that.

    Args:
        layout: of the draft.
        vqgan: paints; its device is that of the start.
        kind: one of `STARTS`.
        picture: (1 3 h w) in 0..1 of any size, of `Start.pictures`.
        size: height and width of the draft in pixels, of `whole_cells`.
        seed: of random codes.

    Returns:
        The start (1 c h/f w/f), and `outside_regions`, (1 1 h/f w/f).
    """
    if kind == NOISE:
        latent = random_start(vqgan, *size, seed)
    else:
        latent = picture_start(vqgan, flat_colours(layout, *size, picture) if kind == COLOURS else picture, *size)
    return latent, outside_regions(layout, *size, vqgan.factor)


def random_start(vqgan: VQGAN, height: int, width: int, seed: int) -> Tensor:
    """Random codes: (1 c h/f w/f) for a picture of height x width pixels, whole cells."""
    generator = torch.Generator().manual_seed(seed)
    return vqgan.random_codes(height // vqgan.factor, width // vqgan.factor, generator)


def picture_start(vqgan: VQGAN, picture: Tensor, height: int, width: int) -> Tensor:
    """The codes of a picture (1 3 h w) in 0..1 of any size: (1 c height/f width/f)."""
    with torch.no_grad():
        return vqgan.encode(_stretched(picture.to(vqgan.codes.device, torch.float32), height, width))


def flat_colours(layout: Layout, height: int, width: int, ground: Tensor | None = None) -> Tensor:
    """Every region in its colour, or one far from the others', on grey or on a picture: (1 3 height width) in 0..1.

    Args:
        layout: what lies where.
        height: of the draft, pixels.
        width: of the draft, pixels.
        ground: (1 3 h w) in 0..1 of any size, what lies behind the regions.
    """
    regions = layout.sorted_regions()
    colours = [colour_to_rgb(region.colour) for region in regions]
    colours = [each or tuple(c / 255 for c in region_colour(i)) for i, each in enumerate(colours)]
    masks = layout.visible_masks(height, width)
    flat = einsum(masks, torch.tensor([(GREY,) * 3, *colours]), "n h w, n c -> c h w")[None]
    return flat if ground is None else flat + masks[0] * (_stretched(ground, height, width) - GREY)


def _stretched(picture: Tensor, height: int, width: int) -> Tensor:
    if picture.shape[-2:] == (height, width):
        return picture
    return resized(picture, (height, width))


def outside_regions(layout: Layout, height: int, width: int, factor: int) -> Tensor:
    """Where a draft is held to its start: (1 1 height/f width/f), 0 in cells that a region covers or touches.

    The regions are grown by a cell, so that outlines are free.
    """
    covered = inside_of(layout.masks(height, width)).any(0).float()
    return 1 - F.max_pool2d(grown(covered, factor)[None, None], factor)


def whole_cells(layout: Layout, size: int, factor: int) -> tuple[int, int]:
    """Height and width of a draft: the canvas with its longer side at `size` pixels, rounded to whole cells.

    Raises:
        DraftError: less than one cell.
    """
    if size < factor:
        raise DraftError(f"size is {size}, but a cell of this VQGAN is {factor} pixels wide. Set size to 256 or so.")
    scale = size / max(layout.height, layout.width)
    return tuple(max(1, round(scale * side / factor)) * factor for side in (layout.height, layout.width))
