"""Edits of a given picture: which part of it may change, what is painted there, and what is moved.

LRDiff (arXiv 2311.18435) shows editing in a figure and names its parts: the picture is inverted to noise, vision
guidance is added in the target region, and the noise is sampled with the new caption. All else is reconstructed here:
that the rest of the picture is held on its inverted trajectory, the edges, how much of the inverted noise stays inside,
and the operations insert, replace, remove and move.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..layout.masks import FAINTEST, inside_of, is_empty, is_same_aspect, outer_box, resample_by_area, soften
from ..layout.region import Region


class EditError(ValueError):
    """An edit that cannot be meant; the message says what was found, what was expected and what to change."""


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of a picture.

    Attributes:
        action: "insert", "replace", "remove" or "move"; only for messages.
        region: what is painted, and where; None paints what lies behind things.
        old: float32 (h w) in 0..1, where the thing is that goes away or moves; any resolution of the picture's shape.
        gone: name of what goes away, "" if unknown.
        keep: share of the inverted noise that is kept where the edit paints, 0 (fresh noise) to 1.
        shift: for a move, how far to the right and down, in shares of the picture's width and height.
    """

    action: str
    region: Region | None = None
    old: Tensor | None = None
    gone: str = ""
    keep: float = 0.0
    shift: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class EditPlan:
    """Several edits worked out for one picture.

    Attributes:
        picture: (b h w c), the given one with the moved things at their new places.
        free: float32 (h w), 1 where the picture may change, 0 where it stays, soft in between.
        keep: float32 (h w), share of the inverted noise, 1 where the picture stays.
        regions: what is painted, in painter's order.
        gone: names of what goes away.
        keeps_noise: whether an edit keeps some of the inverted noise where it paints.
    """

    picture: Tensor
    free: Tensor
    keep: Tensor
    regions: tuple[Region, ...]
    gone: tuple[str, ...]
    keeps_noise: bool


def insert(region: Region, keep: float = 0.0) -> Edit:
    """Paint a thing into the picture."""
    return Edit("insert", region=region, keep=keep)


def replace(mask: Tensor, phrase: str, *, whole_box: bool, keep: float = 0.0, **of_region: object) -> Edit:
    """Paint a thing in the place of another one.

    Args:
        mask: the old thing's place; see `checked_mask`.
        phrase: the new thing's name.
        whole_box: the new thing may fill the box around the mask; otherwise only the mask itself.
        keep: share of the inverted noise that is kept.
        of_region: further attributes of `Region`, such as prompt, colour and strength.

    Raises:
        EditError: a mask that cannot be meant.
    """
    mask = checked_mask(mask, f'Replacing by "{phrase}"')
    place = {"box": outer_box(mask)} if whole_box else {"mask": mask}
    return Edit("replace", region=Region(phrase, **place, **of_region), old=mask, keep=keep)


def remove(mask: Tensor, name: str = "") -> Edit:
    """Paint what lies behind a thing in its place.

    Raises:
        EditError: a mask that cannot be meant.
    """
    return Edit("remove", old=checked_mask(mask, f'Removing "{name}"'), gone=name.strip())


def move(mask: Tensor, name: str, right: float, down: float) -> Edit:
    """Cut a thing out, put it down elsewhere, and paint what lies behind its old place.

    Args:
        mask: the thing's place; see `checked_mask`.
        name: what it is called; "" if unknown.
        right: how far to the right, in shares of the picture's width.
        down: how far down, in shares of its height.

    Raises:
        EditError: a mask that cannot be meant.
    """
    return Edit("move", old=checked_mask(mask, f'Moving "{name}"'), gone=name.strip(), shift=(right, down))


def checked_mask(mask: Tensor, what: str) -> Tensor:
    """One mask as float32 (h w) in 0..1 on the CPU, from (h w) or (1 h w).

    Raises:
        EditError: several masks, an empty one, or values that are no mask's.
    """
    if mask.ndim == 3 and len(mask) > 1:
        raise EditError(
            f"{what} got {len(mask)} masks; expected one for all pictures of the batch. Choose one of them, or join "
            "them to one mask."
        )
    mask = mask.detach().reshape(mask.shape[-2:]).float().cpu()
    if not torch.isfinite(mask).all() or mask.min() < 0 or mask.max() > 1:
        raise EditError(f"{what} got a mask with values outside 0..1; expected 0 outside the thing and 1 inside.")
    if is_empty(mask):
        raise EditError(
            f"{what} got an empty mask, nowhere as high as {FAINTEST}. Paint over the thing, for example with a right "
            "click on Load Image and Open in MaskEditor, or connect the mask of a detector or a layout."
        )
    return mask


def shifted(picture: Tensor, right: int, down: int) -> Tensor:
    """Move a picture (... h w) by whole pixels; what comes in from outside is 0."""
    height, width = picture.shape[-2:]
    moved = torch.zeros_like(picture)
    if abs(right) >= width or abs(down) >= height:
        return moved
    to_rows, from_rows = _overlap(down, height)
    to_columns, from_columns = _overlap(right, width)
    moved[..., to_rows, to_columns] = picture[..., from_rows, from_columns]
    return moved


def _overlap(shift: int, length: int) -> tuple[slice, slice]:
    to = slice(max(shift, 0), length + min(shift, 0))
    return to, slice(to.start - shift, to.stop - shift)


def plan_edits(picture: Tensor, edits: Sequence[Edit], edge: int) -> EditPlan:
    """Work out edits for a picture, in their order; a later one wins where two meet.

    A moved thing is put down as it is. Its picture is then held like the rest of the picture, except a rim of half an
    edge inside its outline, which is painted anew together with the edge around it.

    Args:
        picture: (b h w c) in 0..1.
        edits: in order.
        edge: pixels over which an edit fades into the picture.

    Raises:
        EditError: a mask of another shape than the picture, or a thing that is moved out of it.
    """
    height, width = picture.shape[1:3]
    free, fresh = torch.zeros(height, width), torch.zeros(height, width)
    regions: list[Region] = []
    gone: list[str] = []
    for edit in edits:
        if edit.shift is not None and _pixels(edit.shift, height, width) == (0, 0):
            continue
        for mask in (edit.old, edit.region and edit.region.mask):
            if mask is not None:
                _check_shape(edit, mask, height, width)
        areas = [] if edit.old is None else [resample_by_area(edit.old, height, width)]
        if edit.region is not None:
            areas.append(edit.region.mask_on(height, width))
            regions.append(edit.region)
        for area in areas:
            soft, wanted = soften(area, edge), 1 - edit.keep**2
            free = torch.maximum(free, soft)
            fresh = torch.maximum(torch.lerp(fresh, torch.tensor(wanted), area), soft * wanted)
        if edit.gone:
            gone.append(edit.gone)
        if edit.shift is not None:
            picture, new = _paste(picture, areas[0], edit)
            inside = 1 - soften(1 - new, edge // 2)
            free = torch.maximum(free, soften(new, edge)) * (1 - inside)
            fresh = fresh * (1 - new)
            if edit.gone:
                regions.append(Region(edit.gone, mask=soften(new, edge)))
    keeps_noise = any(edit.keep > 0 for edit in edits)
    return EditPlan(picture, free, torch.sqrt(1 - fresh), tuple(regions), tuple(gone), keeps_noise)


def _check_shape(edit: Edit, mask: Tensor, height: int, width: int) -> None:
    if not is_same_aspect(*mask.shape, height, width):
        raise EditError(
            f"The mask to {edit.action} is {mask.shape[1]} x {mask.shape[0]} pixels, which is not the shape of the "
            f"picture ({width} x {height}). Give it a mask made for this picture."
        )


def _pixels(shift: tuple[float, float], height: int, width: int) -> tuple[int, int]:
    return round(shift[0] * width), round(shift[1] * height)


def _paste(picture: Tensor, mask: Tensor, edit: Edit) -> tuple[Tensor, Tensor]:
    """The picture with the masked thing put down at its new place too, and the mask of that place."""
    right, down = _pixels(edit.shift, *mask.shape)
    new = shifted(mask, right, down)
    if not shifted(inside_of(mask), right, down).any():
        raise EditError(
            f'Moving "{edit.gone}" by {edit.shift[0]:g} to the right and {edit.shift[1]:g} down takes it out of the '
            "picture. Move it less far, or remove it."
        )
    layer = shifted(rearrange(picture, "b h w c -> b c h w"), right, down)
    alpha = new.to(picture)[..., None]
    return torch.lerp(picture, rearrange(layer, "b c h w -> b h w c"), alpha), new
