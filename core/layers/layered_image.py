"""A picture in layers: straight colours and opacities over a background, and their exact composite.

Text2Layer (arXiv 2307.09781): I = m F + (1 - m) B; for more layers it is applied once per layer, farthest first.
Colours are straight (not multiplied by opacity) sRGB values, and blending happens on these values, as in Photoshop,
Krita and GIMP by default.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..drawing.pictures import colours_of
from ..drawing.resizing import resized
from ..layout.layer_stack import canvas_of, is_layers
from ..layout.region import LARGEST_SIDE, MOST_REGIONS, describe
from .placing import Place, placed

BACKGROUND = "background"  # name of the lowest layer in a stack that is written
BACKDROP = 1.0  # white; below a stack whose lowest layer is not an opaque background
MOST_LAYERS = 4 * MOST_REGIONS  # of a stack: things, their shadows, and room for files of painting programs
NORMAL = (None, "", "normal")  # the blend modes that I = m F + (1 - m) B is


class LayeredImageError(ValueError):
    """Layers that make no picture; the message says what was found, what was expected and what to connect."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer, of the canvas' size.

    Attributes:
        colour: (b h w 3) in 0..1, straight; anything where alpha is 0.
        alpha: (b h w) in 0..1, 1 opaque.
        name: for people and files.
        visible: whether it is part of the composite; a hidden layer is kept in files and stacks.
    """

    colour: Tensor
    alpha: Tensor
    name: str = ""
    visible: bool = True

    def __post_init__(self) -> None:
        if self.colour.ndim != 4 or self.colour.shape[-1] != 3 or self.alpha.shape != self.colour.shape[:3]:
            raise LayeredImageError(
                f'The layer "{self.name}" has a colour of {tuple(self.colour.shape)} and an alpha of '
                f"{tuple(self.alpha.shape)}; expected (batch, height, width, 3) and (batch, height, width)."
            )

    def rgba(self) -> Tensor:
        """Colour and alpha in one: (b h w 4)."""
        return torch.cat([self.colour, self.alpha[..., None]], -1)


@dataclass(frozen=True, eq=False)
class LayeredImage:
    """A background and layers over it.

    Attributes:
        background: (b h w 3) in 0..1.
        layers: farthest first, each as large as the background and with as many pictures.
    """

    background: Tensor
    layers: tuple[Layer, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if self.background.ndim != 4 or self.background.shape[-1] != 3:
            raise LayeredImageError(
                f"The background is {tuple(self.background.shape)}; expected (batch, height, width, 3)."
            )
        for layer in self.layers:
            if layer.colour.shape != self.background.shape:
                raise LayeredImageError(
                    f'The layer "{layer.name}" is {tuple(layer.colour.shape)}, the background '
                    f"{tuple(self.background.shape)}; expected the same size and number of pictures."
                )

    def composite(self) -> Tensor:
        """Lay all visible layers over each other: (b h w 3), I = m F + (1 - m) B in painter's order."""
        picture = self.background
        for layer in self.layers:
            if layer.visible:
                alpha = layer.alpha[..., None]
                picture = alpha * layer.colour + (1 - alpha) * picture
        return picture

    def alpha(self) -> Tensor:
        """How much of each pixel the visible layers cover together: (b h w), 1 - product of (1 - m)."""
        open_ = torch.ones_like(self.background[..., 0])
        for layer in self.layers:
            if layer.visible:
                open_ = open_ * (1 - layer.alpha)
        return 1 - open_

    def visible_masks(self) -> Tensor:
        """What is seen of each layer, zeros of a hidden one: (n b h w). The background shows in the rest."""
        open_ = torch.ones_like(self.background[..., 0])
        seen = []
        for layer in reversed(self.layers):
            alpha = layer.alpha if layer.visible else torch.zeros_like(layer.alpha)
            seen.append(alpha * open_)
            open_ = open_ * (1 - alpha)
        return torch.stack(seen[::-1]) if seen else open_.new_zeros((0, *open_.shape))

    def pictures(self) -> list["LayeredImage"]:
        """Every picture of the batch by itself (b = 1)."""
        return [
            LayeredImage(
                self.background[i : i + 1],
                [replace(each, colour=each.colour[i : i + 1], alpha=each.alpha[i : i + 1]) for each in self.layers],
            )
            for i in range(len(self.background))
        ]

    def with_layer(self, index: int, layer: Layer) -> "LayeredImage":
        """The same with one layer exchanged; `index` counts from the farthest, as in `layers`."""
        layers = list(self.layers)
        layers[index] = layer
        return LayeredImage(self.background, layers)


def join_pictures(images: list[LayeredImage]) -> LayeredImage:
    """Join pictures with as many layers each to one batch; names and visibility are the first one's.

    Raises:
        LayeredImageError: no picture, or different numbers of layers.
    """
    if len({len(image.layers) for image in images}) != 1:
        found = [len(image.layers) for image in images]
        raise LayeredImageError(f"Pictures with {found} layers cannot be one batch; expected as many layers in each.")
    stacks = zip(*(image.layers for image in images), strict=True)
    layers = [
        replace(each[0], colour=torch.cat([e.colour for e in each]), alpha=torch.cat([e.alpha for e in each]))
        for each in stacks
    ]
    return LayeredImage(torch.cat([image.background for image in images]), layers)


def without_hidden_nan(rgba: Tensor) -> Tensor:
    """Black in place of NaN where opacity is 0 (... 4): colours there mean nothing, but NaN would spread from them."""
    return torch.where((rgba[..., 3:] > 0) | rgba.isfinite(), rgba, 0.0)


def opaque_picture(image: Tensor, name: str) -> Tensor:
    """The colours of pictures (b h w c) that something lies on: (b h w 3) float32.

    Args:
        image: one channel is grey; a fourth is opacity, which has to be 1 everywhere.
        name: for the message.

    Raises:
        LayeredImageError: it can be seen through.
    """
    if image.shape[-1] == 4 and bool((image[..., 3] < 1).any()):
        raise LayeredImageError(
            f"{name} can be seen through in places. Lay it over another picture with Composite Layers first, or "
            "connect it as a picture instead."
        )
    return colours_of(image)


def on_background(layers: Sequence[Layer]) -> LayeredImage:
    """Make a picture of layers without a background of their own, farthest first and at least one.

    The lowest visible layer is the background where it is opaque all over; else the background is white.
    """
    lowest = next((index for index, layer in enumerate(layers) if layer.visible), None)
    if lowest is not None and bool((layers[lowest].alpha == 1).all()):
        return LayeredImage(layers[lowest].colour, [*layers[:lowest], *layers[lowest + 1 :]])
    return LayeredImage(torch.full_like(layers[0].colour, BACKDROP), layers)


def to_layers(image: LayeredImage) -> list[dict[str, Any]]:
    """Write pictures as ComfyUI's own stacks of layers (LAYERS; see `layout.layer_stack`), the background lowest.

    A stack's pictures are one layer each there, so a batch becomes a list of stacks, which nodes give as a list output.

    Returns:
        For each picture {"version": 1, "canvas": (w, h), "layers": [...]}, masks 1 where transparent.
    """
    return [_stack(each) for each in image.pictures()]


def _stack(image: LayeredImage) -> dict[str, Any]:
    height, width = image.background.shape[1:3]
    place = {"type": "raster", "x": 0, "y": 0, "w": width, "h": height}
    items = [{"image": image.background, **place, "name": BACKGROUND, "z_index": 0}]
    for order, layer in enumerate(image.layers, start=1):
        item = {"image": layer.colour, **place, "mask": 1 - layer.alpha, "name": layer.name, "z_index": order}
        items.append(item if layer.visible else item | {"visible": False})
    return {"version": 1, "canvas": (width, height), "layers": items}


def from_layers(document: Mapping[str, Any]) -> LayeredImage:
    """Read one of ComfyUI's stacks of layers (LAYERS): everything flipped, scaled, turned and put in its place.

    The lowest visible layer is the background where it is opaque all over the canvas; else the background is white.
    Several pictures in one item are several layers.

    Args:
        document: {"version": 1, "canvas": (w, h), "layers": [...]}; without a canvas, the lowest layer's size.

    Returns:
        One picture (b = 1), float32, on the layers' device.

    Raises:
        LayeredImageError: no stack of layers, another version, too many layers, a blend mode other than "normal", or a
            layer that cannot be read.
        LayoutError: a layer's place is not made of numbers.
    """
    if not is_layers(document):
        raise LayeredImageError(f"{describe(document)} is no stack of layers. Connect a LAYERS output.")
    if document.get("version", 1) != 1:
        raise LayeredImageError(f"The connected layers have version {describe(document['version'])}; expected 1.")
    items = [item for item in document["layers"] if isinstance(item, Mapping) and isinstance(item.get("image"), Tensor)]
    count = sum(len(item["image"]) for item in items)
    if not count:
        raise LayeredImageError("The connected layers hold no picture. Connect a stack with at least one layer.")
    if count > MOST_LAYERS:
        raise LayeredImageError(
            f"{count} layers are connected; at most {MOST_LAYERS} are possible. Merge some of them."
        )
    places = [Place.of_item(item) for item in items]
    order = sorted(range(len(items)), key=lambda index: places[index].z_index)
    width, height = canvas_of(document) or (items[order[0]]["image"].shape[2], items[order[0]]["image"].shape[1])
    if max(width, height) > LARGEST_SIDE:
        raise LayeredImageError(
            f"The connected layers have a canvas of {width} x {height} pixels; expected at most {LARGEST_SIDE} a side."
        )
    layers = [layer for index in order for layer in _layers_of(items[index], places[index], height, width)]
    return on_background(layers)


def _layers_of(item: Mapping[str, Any], place: Place, height: int, width: int) -> list[Layer]:
    name = item.get("name") if isinstance(item.get("name"), str) else ""
    if item.get("blend_mode") not in NORMAL:
        raise LayeredImageError(
            f'The layer "{name}" has the blend mode {describe(item["blend_mode"])}; expected "normal", of which the '
            "composite is exact. Set it to normal, or merge the layer with what lies below it."
        )
    pictures, alpha = item["image"].float(), _opacity(item, name)
    rgba = torch.cat([pictures[..., :3], alpha[..., None].expand(len(pictures), -1, -1, -1).to(pictures)], -1)
    layers = []
    for frame, picture in enumerate(without_hidden_nan(rgba)):
        shown = placed(picture, place, height, width)[None]
        own = name if frame == 0 else f"{name} {frame + 1}".strip()
        layers.append(Layer(shown[..., :3], shown[..., 3], own, bool(item.get("visible", True))))
    return layers


def _opacity(item: Mapping[str, Any], name: str) -> Tensor:
    """(b or 1 h w) in 0..1 of an item's own pixels: its fourth channel, times 1 - its mask."""
    image, mask = item["image"], item.get("mask")
    if image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise LayeredImageError(
            f'The layer "{name}" has a picture of {tuple(image.shape)}; expected (batch, height, width, 3 or 4).'
        )
    alpha = image[..., 3].float() if image.shape[-1] == 4 else torch.ones_like(image[..., 0], dtype=torch.float32)
    if not isinstance(mask, Tensor):
        return alpha
    mask = mask.float().reshape(-1, *mask.shape[-2:])
    if len(mask) not in (1, len(alpha)):
        raise LayeredImageError(
            f'The layer "{name}" has {len(alpha)} pictures and {len(mask)} masks; expected one mask, or one for each.'
        )
    if mask.shape[1:] != alpha.shape[1:]:
        mask = resized(mask[:, None], alpha.shape[1:])[:, 0]
    return (alpha * (1 - mask.to(alpha))).clamp(0, 1)
