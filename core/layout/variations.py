"""Variations of a layout: one region, or all of them, moved, scaled, mirrored or asked for differently."""

import re
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import Layout
from .masks import Box, is_empty
from .region import LayoutError, Region, nearest

WAYS = ("left to right", "top to bottom")
MIRRORS = ("no", *(f"the {what}, {way}" for what in ("region", "canvas") for way in WAYS))
# Thai, Lao, Burmese, Khmer, kana, Han and Hangul: words stand side by side there, or carry their endings.
SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"


@dataclass(frozen=True)
class RegionEdit:
    """What to change; what is left at its default stays.

    Attributes:
        right: move by this share of the canvas' width; negative is left.
        down: move by this share of the canvas' height; negative is up.
        scale: size about the region's middle, above 0.
        mirror: one of `MIRRORS`; a box mirrored in itself stays as it is.
        nearer: added to the painter's order.
        stronger: multiplies the strength.
        phrase: new name; takes the old one's place in the global prompt too.
        prompt: new longer prompt.
        colour: new colour; "none" takes it away.
    """

    right: float = 0.0
    down: float = 0.0
    scale: float = 1.0
    mirror: str = MIRRORS[0]
    nearer: int = 0
    stronger: float = 1.0
    phrase: str = ""
    prompt: str = ""
    colour: str = ""


def edit_layout(layout: Layout, name: str, edit: RegionEdit) -> Layout:
    """Change one region of a layout, or all.

    Args:
        layout: stays as it is.
        name: a region's phrase (case does not count), its number in the list from 1 on, or "" for all.
        edit: what to change. What a region loses over the canvas' edge is cut off.

    Returns:
        The changed layout.

    Raises:
        LayoutError: no such region, or nothing of it is left on the canvas.
    """
    if edit.scale <= 0:
        raise LayoutError(f"The scale is {edit.scale:g}; expected a number above 0.")
    if edit.mirror not in MIRRORS:
        raise LayoutError(f'The mirror is "{edit.mirror}"; expected one of: {"; ".join(MIRRORS)}.')
    chosen = _chosen(layout, name)
    regions = tuple(_edited(region, edit) if i in chosen else region for i, region in enumerate(layout.regions))
    prompt = layout.prompt
    if edit.phrase:
        prompt = _renamed(prompt, {layout.regions[i].phrase.strip() for i in chosen}, edit.phrase)
    return replace(layout, prompt=prompt, regions=regions)


def _renamed(prompt: str, phrases: set[str], new: str) -> str:
    """The prompt with a new name in place of each of the old ones, where those are whole words."""
    # All at once, longest first: no name is sought within another, or within the new one.
    names = "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))
    letter = rf"[^\W{SPACELESS}]"
    return re.sub(rf"(?<!{letter})(?:{names})(?!{letter})", lambda _: new, prompt, flags=re.IGNORECASE)


def _chosen(layout: Layout, name: str) -> set[int]:
    wanted, names = name.strip().casefold(), [region.phrase.strip().casefold() for region in layout.regions]
    if not wanted:
        return set(range(len(names)))
    found = {i for i, phrase in enumerate(names) if phrase == wanted}
    if not found and wanted.isdecimal() and 1 <= int(wanted) <= len(names):
        found = {int(wanted) - 1}
    if not found:
        known = ", ".join(f'"{region.phrase}"' for region in layout.regions)
        raise LayoutError(f'The layout has no region "{name}".{nearest(wanted, names)} It has {known[:200]}.')
    return found


@dataclass(frozen=True)
class _Move:
    """A point's way: away from `middle`, mirrored where `flips` says so, scaled, and on to `target`."""

    middle: tuple[float, float]
    target: tuple[float, float]
    scale: float
    flips: tuple[bool, bool]

    @property
    def stays(self) -> bool:
        return self.middle == self.target and self.scale == 1 and not any(self.flips)


def _edited(region: Region, edit: RegionEdit) -> Region:
    x0, y0, x1, y1 = region.outer_box()
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    on_itself = tuple(edit.mirror == f"the region, {way}" for way in WAYS)
    on_canvas = tuple(edit.mirror == f"the canvas, {way}" for way in WAYS)
    mirrored = tuple(1 - place if flip else place for place, flip in zip(middle, on_canvas, strict=True))
    target = (mirrored[0] + edit.right, mirrored[1] + edit.down)
    move = _Move(middle, target, edit.scale, (on_itself[0] or on_canvas[0], on_itself[1] or on_canvas[1]))
    places: dict[str, Any] = {}
    if not move.stays:
        if region.box is not None:
            places["box"] = _moved_box(region.box, move)
        if region.mask is not None:
            places["mask"] = _moved_mask(region.mask, move)
        if any(place is None for place in places.values()):
            raise LayoutError(
                f'Nothing of the region "{region.phrase}" is left on the canvas. Move it less far, or scale it less.'
            )
    return replace(
        region,
        **places,
        order=region.order + edit.nearer,
        strength=region.strength * edit.stronger,
        phrase=edit.phrase or region.phrase,
        prompt=edit.prompt or region.prompt,
        colour="" if edit.colour.strip().casefold() == "none" else edit.colour or region.colour,
    )


def _moved_box(box: Box, move: _Move) -> Box | None:
    """Where a box goes, cut off at the canvas' edge; None where nothing is left."""
    sides = []
    for axis in (0, 1):
        sign = -move.scale if move.flips[axis] else move.scale
        ends = sorted(move.target[axis] + sign * (box[corner] - move.middle[axis]) for corner in (axis, axis + 2))
        sides.append([min(max(end, 0.0), 1.0) for end in ends])
    (x0, x1), (y0, y1) = sides
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _moved_mask(mask: Tensor, move: _Move) -> Tensor | None:
    """Where a mask goes, cut off at the canvas' edge; None where nothing is left."""
    # grid_sample asks for every new pixel where it was; its coordinates run from -1 to 1.
    back = [(-1.0 if flip else 1.0) / move.scale for flip in move.flips]
    shift = [2 * m - 1 - b * (2 * t - 1) for m, b, t in zip(move.middle, back, move.target, strict=True)]
    rows = torch.tensor([[[back[0], 0.0, shift[0]], [0.0, back[1], shift[1]]]])
    grid = F.affine_grid(rows, [1, 1, *mask.shape], align_corners=False)
    moved = F.grid_sample(mask[None, None], grid, mode="bilinear", align_corners=False)[0, 0].clamp(0, 1)
    if torch.equal(mask, mask.round()):
        moved = (moved >= 0.5).float()  # a hard mask stays hard
    return None if is_empty(moved) else moved
