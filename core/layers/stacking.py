"""Makes a layered picture of single pictures, as sockets bring them: batches, opacity as a channel or a mask."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..drawing.pictures import colours_of
from ..drawing.resizing import resized
from ..layout.masks import is_same_aspect
from .layered_image import (
    BACKDROP,
    Layer,
    LayeredImage,
    LayeredImageError,
    opaque_picture,
    without_hidden_nan,
)
from .placing import Place, placed


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that becomes a layer.

    Attributes:
        input: the input that it came in by, for messages.
        name: of its layer.
        image: (b h w 3 or 4) in 0..1, of any size; a fourth channel is its opacity.
        mask: (b or 1 h w) in 0..1, 1 where it is seen, times its fourth channel; None where it has none.
    """

    input: str
    name: str
    image: Tensor
    mask: Tensor | None = None


def stack_pictures(below: LayeredImage | None, background: Tensor | None, pictures: Sequence[Picture]) -> LayeredImage:
    """Lay pictures over a layered picture, in their own size and in the middle of the canvas.

    Args:
        below: layers that stay below; None for none.
        background: (b h w 3 or 4), takes the place of the lower layers' own; None keeps it, or is white without any.
        pictures: farthest first.

    Returns:
        A layered picture of the canvas' size: that of `below`, else the background's, else the first picture's.

    Raises:
        LayeredImageError: nothing to lay down, sizes or numbers of pictures that do not go together, or a mask of
            another shape than its picture.
    """
    sources = [below.background if below else None, background, *(each.image for each in pictures)]
    sources = [each for each in sources if each is not None]
    if not sources:
        raise LayeredImageError("Nothing is connected. Connect layers, a background or a picture.")
    height, width = sources[0].shape[1:3]
    if background is not None and background.shape[1:3] != (height, width):
        raise LayeredImageError(
            f"background has {background.shape[2]} x {background.shape[1]} pixels, the layers' canvas {width} x "
            f"{height}. Scale one of them to the other's size."
        )
    layers = list(below.layers) if below else []
    ground = below.background if below else None
    if background is not None:
        ground = opaque_picture(background, "background")
    if ground is None:
        ground = torch.full((1, height, width, 3), BACKDROP, dtype=torch.float32, device=sources[0].device)
    for picture in pictures:
        rgba = torch.stack([placed(each, _middle(each, height, width), height, width) for each in _rgba(picture)])
        layers.append(Layer(rgba[..., :3], rgba[..., 3], picture.name))
    number = max(len(ground), *(len(layer.colour) for layer in layers)) if layers else len(ground)
    ground = _repeated(ground, number, "background")
    repeated = []
    for layer in layers:
        colour, alpha = (_repeated(each, number, f'The layer "{layer.name}"') for each in (layer.colour, layer.alpha))
        repeated.append(replace(layer, colour=colour.to(ground), alpha=alpha.to(ground)))
    return LayeredImage(ground, repeated)


def _middle(rgba: Tensor, height: int, width: int) -> Place:
    return Place(x=(width - rgba.shape[1]) // 2, y=(height - rgba.shape[0]) // 2)


def _repeated(values: Tensor, number: int, what: str) -> Tensor:
    if len(values) not in (1, number):
        raise LayeredImageError(
            f"{what} has {len(values)} pictures, another input has {number}. Give each as many as the others, or one."
        )
    return values.expand(number, *values.shape[1:])


def _rgba(picture: Picture) -> Tensor:
    """(b h w 4), with the mask multiplied in."""
    image, colours = picture.image.float(), colours_of(picture.image)
    rgba = torch.cat([colours, image[..., 3:4] if image.shape[-1] == 4 else torch.ones_like(colours[..., :1])], -1)
    if picture.mask is None:
        return without_hidden_nan(rgba)
    mask = picture.mask.float().reshape(-1, 1, *picture.mask.shape[-2:]).to(rgba)
    number = max(len(rgba), len(mask))
    rows, columns = mask.shape[-2:]
    if (rows, columns) != rgba.shape[1:3]:
        # Load Image gives a picture without opacity an empty mask of another size.
        if bool((mask == mask[:1, :, :1, :1]).all()):
            mask = mask[:, :, :1, :1].expand(-1, -1, *rgba.shape[1:3])
        elif not is_same_aspect(rows, columns, *rgba.shape[1:3]):
            raise LayeredImageError(
                f"The mask of {picture.input} has {columns} x {rows} pixels, its picture {rgba.shape[2]} x "
                f"{rgba.shape[1]}. Give both the same shape."
            )
        else:
            mask = resized(mask, rgba.shape[1:3])
    mask = _repeated(mask, number, f"The mask of {picture.input}")
    rgba = _repeated(rgba, number, picture.input)
    alpha = (rgba[..., 3:] * mask[:, 0, ..., None]).clamp(0, 1)
    return without_hidden_nan(torch.cat([rgba[..., :3], alpha], -1))
