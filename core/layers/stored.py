"""Layers as files hold them: 8 bits of straight colour and opacity, each cut to where it is not empty."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..layout.region import LARGEST_SIDE
from .layered_image import BACKGROUND, Layer, LayeredImage, LayeredImageError, on_background

LONGEST_NAME = 255  # of a layer in a Photoshop document
FARTHEST = 2**24  # pixels from the canvas' corner; farther away no layer is meant
MOST_PIXELS = 2**29  # of a file's layers, its background and its composite, each on the whole canvas: 8 GiB
STEP = 1 / 255  # of 8 bits
MARGIN = 0.05 * STEP  # by which another rounding of an opacity must be better; below it is rounding of its own


class LayerFileError(LayeredImageError):
    """A file that cannot be written or read; the message says which and why."""


@dataclass(frozen=True)
class StoredLayer:
    """One layer of a file.

    Attributes:
        name: for people.
        picture: RGB, or RGBA with straight colour.
        left: of the picture on the canvas, in pixels.
        top: the same.
        visible: whether it is shown.
        opacity: 0..1, times its own.
    """

    name: str
    picture: Image.Image
    left: int = 0
    top: int = 0
    visible: bool = True
    opacity: float = 1.0


def to_bytes(values: Tensor) -> np.ndarray:
    """0..1 to the nearest of 256 steps: float (...) -> uint8 (...) on the CPU."""
    return (values.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def in_8_bits(image: LayeredImage) -> LayeredImage:
    """The picture as files hold it: colours and opacities in 256 steps.

    From the background up, each visible layer is rounded so that the composite up to it comes as near as it can to the
    exact one: opacity up or down, colour by at most one step more than its own rounding. So errors of many layers do
    not add up. A picture that is in 256 steps already stays as it is.
    """
    exact, below = image.background.float(), _rounded(image.background)
    background, layers = below, []
    for layer in image.layers:
        colour, alpha = layer.colour.float().clamp(0, 1), layer.alpha.float().clamp(0, 1)
        if not layer.visible:
            layers.append(Layer(_rounded(colour), _rounded(alpha), layer.name, visible=False))
            continue
        exact = alpha[..., None] * colour + (1 - alpha[..., None]) * exact
        nearest = _rounded(alpha)
        other = (nearest + STEP * (alpha - nearest).sign()).clamp(0, 1)
        (first, first_error), (second, second_error) = (
            _best_colour(colour, candidate, below, exact) for candidate in (nearest, other)
        )
        is_better = second_error < first_error - MARGIN
        alpha = torch.where(is_better, other, nearest)
        colour = torch.where(is_better[..., None], second, first)
        below = alpha[..., None] * colour + (1 - alpha[..., None]) * below
        layers.append(Layer(colour, alpha, layer.name))
    return LayeredImage(background, layers)


def _best_colour(colour: Tensor, alpha: Tensor, below: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The colour in 256 steps that brings the composite over `below` nearest to what is wanted, and the error left."""
    alpha = alpha[..., None]
    exact = (wanted - (1 - alpha) * below) / alpha.clamp(min=STEP)
    found = _rounded(torch.minimum(torch.maximum(exact, colour - STEP), colour + STEP))
    return found, (alpha * found + (1 - alpha) * below - wanted).abs().amax(-1)


def _rounded(values: Tensor) -> Tensor:
    return (values.float().clamp(0, 1) * 255).round() / 255


@dataclass(frozen=True)
class StoredPicture:
    """One picture as files of any format hold it; `stored` makes it.

    Attributes:
        merged: the composite of its layers, RGB.
        whole: background and layers, lowest first, each of the canvas' size. Names are the layers', or "layer 2" where
            one has none.
    """

    merged: Image.Image
    whole: tuple[StoredLayer, ...]

    def trimmed(self) -> list[StoredLayer]:
        """The layers, each cut to where it is not empty; an empty one keeps a pixel, as some programs refuse none."""
        cut = []
        for layer in self.whole:
            box = (0, 0, *layer.picture.size)
            if layer.picture.mode == "RGBA":
                box = layer.picture.getchannel("A").getbbox() or (0, 0, 1, 1)
            cut.append(StoredLayer(layer.name, layer.picture.crop(box), box[0], box[1], layer.visible))
        return cut


def stored(image: LayeredImage) -> StoredPicture:
    """Reduce a picture to 8 bits, once for all files that it is written to: the search for its colours takes longest.

    Raises:
        LayerFileError: several pictures in a batch.
    """
    if len(image.background) != 1:
        raise LayerFileError(f"{len(image.background)} pictures are one batch; expected one for each file.")
    image = in_8_bits(image)
    whole = [StoredLayer(BACKGROUND, Image.fromarray(to_bytes(image.background[0])))]
    for number, layer in enumerate(image.layers, start=1):
        printable = "".join(letter for letter in layer.name if letter.isprintable()).strip()
        name = printable[:LONGEST_NAME] or f"layer {number}"
        whole.append(StoredLayer(name, Image.fromarray(to_bytes(layer.rgba()[0])), visible=layer.visible))
    return StoredPicture(Image.fromarray(to_bytes(image.composite()[0])), tuple(whole))


def join_stored(layers: Iterable[StoredLayer], size: tuple[int, int]) -> LayeredImage:
    """Put a file's layers, lowest first, on a canvas of this width and height: one picture (b = 1), float32.

    Raises:
        LayerFileError: no layer, or a canvas, a place or an opacity that cannot be meant.
    """
    require_size(size, [])
    placed = []
    for layer in layers:
        if not 0 <= layer.opacity <= 1 or max(abs(layer.left), abs(layer.top)) > FARTHEST:
            raise LayerFileError(
                f'The layer "{layer.name}" lies at {layer.left}, {layer.top} with an opacity of {layer.opacity:g}; '
                "expected a place near the canvas and 0 to 1. Save the file again."
            )
        canvas = Image.new("RGBA", size)
        canvas.paste(layer.picture.convert("RGBA"), (layer.left, layer.top))
        rgba = torch.from_numpy(np.asarray(canvas, np.float32) / 255)[None]
        placed.append(Layer(rgba[..., :3], rgba[..., 3] * layer.opacity, layer.name, layer.visible))
    if not placed:
        raise LayerFileError("The file holds no layer with a picture. Save it with layers.")
    return on_background(placed)


def require_size(canvas: tuple[int, int], layers: Sequence[tuple[int, int]]) -> None:
    """Refuse a file that would fill the memory, by what it says of itself, before a pixel is decoded.

    Args:
        canvas: width and height.
        layers: the same of every layer's own picture.

    Raises:
        LayerFileError: a canvas that cannot be meant, or too many pixels.
    """
    if not all(1 <= side <= LARGEST_SIDE for side in canvas):
        raise LayerFileError(
            f"The file's canvas is {canvas[0]} x {canvas[1]} pixels; expected 1 to {LARGEST_SIDE} a side."
        )
    own, placed = sum(width * height for width, height in layers), canvas[0] * canvas[1] * (2 + len(layers))
    megapixels = max(own, placed) / 2**20
    if max(own, placed) > MOST_PIXELS:
        raise LayerFileError(
            f"The file has {len(layers)} layers on a canvas of {canvas[0]} x {canvas[1]}, with background and "
            f"composite {megapixels:.0f} megapixels; expected at most {MOST_PIXELS // 2**20}. "
            "Make it smaller, or merge layers."
        )


def require_normal(name: str, mode: str, normal: tuple[str, ...]) -> None:
    """Refuse a blend mode of which the composite would not be exact.

    Raises:
        LayerFileError: the mode is none of the normal ones.
    """
    if mode not in normal:
        raise LayerFileError(
            f'The layer "{name}" has the blend mode "{mode}"; expected "normal", of which the composite is exact. Set '
            "it to normal in the painting program, or merge it with what lies below it."
        )


def require_opaque_group(name: str, opacity: float) -> None:
    """Refuse a group that fades its layers together, which no layer alone can do.

    Raises:
        LayerFileError: the group's opacity is below 1.
    """
    if opacity < 1:
        raise LayerFileError(
            f'The group "{name}" has an opacity of {opacity:.0%}; expected 100%. Merge the group in the painting '
            "program, or set the opacity on its layers."
        )
