"""Layers moved, scaled, turned, faded, reordered, hidden and given soft shadows, as one line of text for each says."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout.masks import is_empty, outer_box
from ..layout.region import nearest
from .layered_image import Layer, LayeredImage, LayeredImageError
from .placing import Place, placed

NUMBERS = ("right", "down", "scale", "turn", "opacity", "order", "shadow")
WORDS = ("flip", "flip upside down", "hidden", "shown")
LARGEST = 1e3  # of any number; beyond it no picture is meant
# Pixels of a blur's deviation beyond which it works on means of pixels, which it spreads much farther than they reach.
WIDE_BLUR, PIXELS_OF_DEVIATION = 8.0, 4
SHADE = 0.0  # a shadow is black; how dark it is, its strength says


class ArrangementError(LayeredImageError):
    """A line that cannot be meant; the message says what was found and what was expected."""


@dataclass(frozen=True)
class Arrangement:
    """What happens to one layer. Lengths are shares of the canvas.

    Attributes:
        layer: its name, or its number, 1 is the farthest.
        right: how far it moves to the right, in shares of the canvas' width.
        down: how far down, in shares of its height.
        scale: how much larger it becomes about its own middle.
        turn: degrees, clockwise about its own middle.
        opacity: 0..1, times its own.
        order: its new place among the numbers of the others; None keeps its own.
        flip_h: left and right exchanged about its own middle.
        flip_v: top and bottom exchanged about its own middle.
        visible: False hides it, None leaves it as it is.
        shadow: strength of its shadow, 0..1; None takes everyone's.
        name: what it is called from now on; None keeps its name.
    """

    layer: str
    right: float = 0.0
    down: float = 0.0
    scale: float = 1.0
    turn: float = 0.0
    opacity: float = 1.0
    order: float | None = None
    flip_h: bool = False
    flip_v: bool = False
    visible: bool | None = None
    shadow: float | None = None
    name: str | None = None


@dataclass(frozen=True)
class Shadow:
    """The soft shadow that layers throw on everything below them.

    Attributes:
        strength: how dark, 0 (none) to 1 (black).
        right: how far it lies to the right of its layer, in shares of the canvas' shorter side.
        down: how far below.
        blur: standard deviation of its soft edge, in shares of the canvas' shorter side.
    """

    strength: float = 0.0
    right: float = 0.02
    down: float = 0.03
    blur: float = 0.015


def read_arrangements(text: str) -> tuple[Arrangement, ...]:
    """Read one line per layer, such as "dog | right=0.1 | scale=1.5 | flip | name=puppy".

    Raises:
        ArrangementError: a word or a number that cannot be meant.
    """
    lines = (line.strip() for line in text.splitlines())
    return tuple(_read_line(line) for line in lines if line and not line.startswith("#"))


def _read_line(line: str) -> Arrangement:
    layer, *parts = (part.strip() for part in line.split("|"))
    if not layer:
        raise ArrangementError(f'The line "{line}" names no layer. Begin it with a layer\'s name or its number.')
    changes: dict[str, object] = {}
    for part in filter(None, parts):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if equals and key == "name" and value:
            changes["name"] = value
        elif equals and key in NUMBERS:
            changes[key] = _number(key, value, line)
        elif not equals and key in WORDS:
            changes |= {
                "flip": {"flip_h": True},
                "flip upside down": {"flip_v": True},
                "hidden": {"visible": False},
                "shown": {"visible": True},
            }[key]
        else:
            known = (*(f"{each}=" for each in (*NUMBERS, "name")), *WORDS)
            raise ArrangementError(
                f'The line "{line}" says "{part}"; expected {", ".join(known)}.{nearest(key, (*NUMBERS, *WORDS))}'
            )
    return Arrangement(layer, **changes)


def _number(key: str, value: str, line: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    least, most = {"opacity": (0, 1), "shadow": (0, 1), "scale": (1 / LARGEST, LARGEST)}.get(key, (-LARGEST, LARGEST))
    if not least <= number <= most:
        raise ArrangementError(f'The line "{line}" has {key}={value}; expected a number from {least:g} to {most:g}.')
    return number


def arrange(
    image: LayeredImage, arrangements: Sequence[Arrangement] = (), shadow: Shadow | None = None
) -> LayeredImage:
    """Move, change and reorder layers, and put a shadow below each that throws one.

    A layer that is only moved goes by whole pixels, so nothing of it is blurred. A shadow is a layer of its own, called
    "shadow of ...", so the composite stays I = m F + (1 - m) B.

    Args:
        image: the layers.
        arrangements: in any order; several for one layer are applied one after the other.
        shadow: of every layer; None throws none, except where an arrangement asks for one.

    Raises:
        ArrangementError: a layer that is not there, or a name that several have.
    """
    shadow = shadow or Shadow()
    layers = list(image.layers)
    orders = [float(number) for number in range(1, len(layers) + 1)]
    strengths = [shadow.strength] * len(layers)
    for arrangement in arrangements:
        index = _find(arrangement.layer, image.layers)
        layers[index] = _changed(layers[index], arrangement)
        orders[index] = orders[index] if arrangement.order is None else arrangement.order
        strengths[index] = strengths[index] if arrangement.shadow is None else arrangement.shadow
    stack = []
    for index in sorted(range(len(layers)), key=lambda index: orders[index]):
        if strengths[index] > 0:
            stack.append(_shadow(layers[index], replace(shadow, strength=strengths[index])))
        stack.append(layers[index])
    return LayeredImage(image.background, stack)


def _find(name: str, layers: Sequence[Layer]) -> int:
    wanted = name.casefold()
    found = [index for index, layer in enumerate(layers) if layer.name.strip().casefold() == wanted]
    if not found and name.isdecimal() and 1 <= int(name) <= len(layers):
        return int(name) - 1
    if len(found) == 1:
        return found[0]
    if found:
        numbers = " and ".join(str(index + 1) for index in found)
        raise ArrangementError(f'{len(found)} layers are called "{name}", numbers {numbers}. Say the number instead.')
    names = [layer.name for layer in layers]
    listed = ", ".join(f'{number} "{each}"' for number, each in enumerate(names, start=1)) or "none"
    raise ArrangementError(f'There is no layer "{name}"; there are: {listed}.{nearest(name, names)}')


def _changed(layer: Layer, change: Arrangement) -> Layer:
    rgba = torch.stack([_moved(picture, change) for picture in layer.rgba()])
    visible = layer.visible if change.visible is None else change.visible
    return Layer(rgba[..., :3], rgba[..., 3], layer.name if change.name is None else change.name, visible)


def _moved(rgba: Tensor, change: Arrangement) -> Tensor:
    """One picture (h w 4): what is not empty of it, put elsewhere on the canvas."""
    height, width = rgba.shape[:2]
    if not rgba[..., 3].any():
        return rgba
    alpha = rgba[..., 3]
    reach = _pixels(alpha > 0)
    thing = reach if is_empty(alpha) else _pixels(alpha)  # masks that a network paints are hardly ever quite 0
    # Its middle is that of what is inside. The cut goes as far as anything faint, and one empty pixel farther,
    # towards which an enlarged or turned edge fades.
    beside = 1 + max(thing[0] - reach[0], reach[2] - thing[2])
    above = 1 + max(thing[1] - reach[1], reach[3] - thing[3])
    left, top, right, bottom = thing[0] - beside, thing[1] - above, thing[2] + beside, thing[3] + above
    cut = F.pad(rgba, (0, 0, -left, right - width, -top, bottom - height))
    own_height, own_width = cut.shape[:2]
    wide, high = own_width * change.scale, own_height * change.scale
    place = Place(
        x=left + round(change.right * width) + (own_width - wide) / 2,
        y=top + round(change.down * height) + (own_height - high) / 2,
        w=wide,
        h=high,
        rotation=math.radians(change.turn),
        flip_h=change.flip_h,
        flip_v=change.flip_v,
        opacity=change.opacity,
    )
    return placed(cut, place, height, width)


def _pixels(alpha: Tensor) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is inside of an opacity (h w)."""
    height, width = alpha.shape
    return tuple(round(side * size) for side, size in zip(outer_box(alpha), (width, height) * 2, strict=True))


def _shadow(layer: Layer, shadow: Shadow) -> Layer:
    height, width = layer.alpha.shape[-2:]
    side = min(height, width)
    right, down = round(shadow.right * side), round(shadow.down * side)
    # Blurred on a larger canvas, or what lies beyond the edge would be missing from the shadow's soft part.
    reach = math.ceil(3 * shadow.blur * side)
    beyond = reach + max(abs(right), abs(down))
    wide = F.pad(layer.alpha[:, None], (beyond,) * 4)
    soft = _blurred(wide, shadow.blur * side, reach)[:, 0]
    top, left = beyond - down, beyond - right
    alpha = shadow.strength * soft[:, top : top + height, left : left + width]
    name = f"shadow of {layer.name}".strip()
    return Layer(torch.full_like(layer.colour, SHADE), alpha.clamp(0, 1), name, layer.visible)


def _blurred(maps: Tensor, deviation: float, reach: int) -> Tensor:
    """Gaussian blur of (b 1 h w) maps, zeros beyond their edges."""
    if reach == 0:
        return maps
    if deviation > WIDE_BLUR:
        coarser = int(deviation // PIXELS_OF_DEVIATION)
        small = F.avg_pool2d(maps, coarser, ceil_mode=True)
        soft = _blurred(small, deviation / coarser, math.ceil(reach / coarser))
        large = F.interpolate(soft, scale_factor=coarser, mode="bilinear")
        return large[..., : maps.shape[-2], : maps.shape[-1]]
    steps = torch.arange(-reach, reach + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-(steps**2) / (2 * deviation**2))
    kernel = kernel / kernel.sum()
    along = F.conv2d(maps, kernel[None, None, None], padding=(0, reach))
    return F.conv2d(along, kernel[None, None, :, None], padding=(reach, 0))
