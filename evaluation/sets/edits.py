"""Edits of real scenes, as committed in `layouts/edits*.json` (made once by `make_edits.py`): 40 of each kind.

A scene is drawn by its seed, with everything that is true of it: so the edited picture is known exactly too. What goes
away, is replaced or moves neither hides nor is hidden by anything.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from ...core.layout.layout import Layout
from ...core.layout.masks import Box, grown, outer_box
from ...core.layout.prompts import with_article
from ...core.layout.region import Region
from ...sticker_world.world.captions import plain_prompt
from ...sticker_world.world.concepts import BACKGROUNDS, CANVAS, EMPTY_CAPTIONS
from ...sticker_world.world.scene import Scene, combination, make_scene
from .sets import FOLDER, Placement, exactly

EDITS, EDITS_TUNING = "edits", "edits_tuning"
Kind = Literal["insert", "replace", "remove", "move"]
INSERT, REPLACE, REMOVE, MOVE = "insert", "replace", "remove", "move"
KINDS: tuple[Kind, ...] = (INSERT, REPLACE, REMOVE, MOVE)
EDGE = 16  # pixels around an edit that may change too


def shape_of(layer: np.ndarray) -> np.ndarray:
    """Where a layer (h w 4), premultiplied in 0..1, is more there than not: bool (h w)."""
    return layer[..., 3] >= 0.5


def layers_of(scene: Scene) -> list[np.ndarray]:
    """The things of a scene, farthest first: premultiplied float32 (h w 4) in 0..1 each, hidden parts included."""
    straight = (thing.layer.astype(np.float32) / 255 for thing in scene.objects)
    return [np.concatenate([each[..., :3] * each[..., 3:], each[..., 3:]], -1) for each in straight]


def composed(backdrop: np.ndarray, layers: Sequence[np.ndarray]) -> np.ndarray:
    """Premultiplied layers (h w 4) over a uint8 picture (h w 3), farthest first: uint8 (h w 3)."""
    canvas = backdrop.astype(np.float32) / 255
    for layer in layers:
        canvas = layer[..., :3] + canvas * (1 - layer[..., 3:])
    return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)


def placed(placement: Placement) -> np.ndarray:
    """A sprite in its place: premultiplied float32 (h w 4) of the canvas."""
    layer, pixels = np.zeros((CANVAS, CANVAS, 4), np.float32), placement.pixels()
    layer[placement.top :, placement.left :][: pixels.shape[0], : pixels.shape[1]] = pixels
    return layer


def moved(layer: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """A layer (h w 4) moved right and down by shares of the canvas, as Move Object rounds them; it stays on it."""
    right, down = (round(each * CANVAS) for each in shift)
    return np.roll(layer, (down, right), (0, 1))


def box_around(shape: np.ndarray) -> Box:
    """The smallest box around a bool (h w) that holds something."""
    box = outer_box(shape)
    if box is None:
        raise ValueError("There is nothing to put a box around.")
    return box


@dataclass(frozen=True, eq=False)
class PictureEdit:
    """One edit of one scene.

    Attributes:
        kind: what is done.
        series: of the scene, see `make_scene`.
        index: of the scene in its series.
        objects: things in the scene.
        seed: of the noise.
        thing: which of the scene's things goes away, is replaced or moves; None for an insertion.
        placement: a sprite that fulfils an insertion or a replacement.
        shift: of a move, right and down, in shares of the canvas.
    """

    kind: Kind
    series: int
    index: int
    objects: int
    seed: int
    thing: int | None = None
    placement: Placement | None = None
    shift: tuple[float, float] | None = None

    @cached_property
    def scene(self) -> Scene:
        """The given picture and what is true of it."""
        return make_scene(self.series, self.index, held_out=True, counts=exactly(self.objects))

    @cached_property
    def old(self) -> np.ndarray | None:
        """The thing that goes away, is replaced or moves: bool (h w)."""
        return None if self.thing is None else shape_of(layers_of(self.scene)[self.thing])

    @cached_property
    def new(self) -> np.ndarray | None:
        """Where the exact edited picture has the thing that is put down: bool (h w)."""
        if self.placement is not None:
            return shape_of(placed(self.placement))
        return None if self.shift is None else shape_of(moved(layers_of(self.scene)[self.thing], self.shift))

    @property
    def box(self) -> Box | None:
        """Where a new thing is asked for: around what fulfils an insertion or a move, or around what is replaced."""
        if self.kind == REPLACE:
            return box_around(self.old)
        return None if self.new is None else box_around(self.new)

    @cached_property
    def asked(self) -> np.ndarray:
        """What is to be changed: boxes of new things, shapes of what goes away or moves, old and new: bool (h w)."""
        if self.kind in (INSERT, REPLACE):
            return pixels_of(self.box)
        return self.old if self.new is None else self.old | self.new

    @cached_property
    def near(self) -> np.ndarray:
        """What is to be changed, and `EDGE` pixels around it: bool (h w)."""
        return widened(self.asked)

    @property
    def gone(self) -> str:
        """Concept of what is not to be at its old place any more; "" for an insertion."""
        if self.thing is None:
            return ""
        # As in the scene, without drawing it.
        concepts, _ = combination(self.series, self.index, held_out=True, counts=exactly(self.objects))
        return concepts[self.thing]

    @property
    def wanted(self) -> str:
        """Concept of what is put down; "" for a removal."""
        if self.placement is not None:
            return self.placement.concept
        return "" if self.kind == REMOVE else self.gone

    @property
    def prompt(self) -> str:
        """Of the finished picture."""
        kept = [thing.concept for index, thing in enumerate(self.scene.objects) if index != self.thing]
        concepts = (*kept, *([self.wanted] if self.wanted else []))
        return plain_prompt(concepts, self.scene.background) if concepts else EMPTY_CAPTIONS[self.scene.background]

    @property
    def background(self) -> str:
        """Words for what lies behind everything."""
        return BACKGROUNDS[self.scene.background][0]

    def layout(self, colour: str = "") -> Layout:
        """What is put down and where: one region, without the scene's other things; none for a removal."""
        regions = (Region(with_article(self.wanted), box=self.box, colour=colour),) if self.wanted else ()
        return Layout(CANVAS, CANVAS, self.prompt, self.background, regions)

    def exact_picture(self) -> np.ndarray:
        """The edited picture as the world draws it; where nothing is asked, the given one: uint8 (h w 3)."""
        layers = layers_of(self.scene)
        old = None if self.thing is None else layers.pop(self.thing)
        if self.placement is not None:
            layers.append(placed(self.placement))
        if self.shift is not None:
            layers.append(moved(old, self.shift))
        return np.where(self.near[..., None], composed(self.scene.backdrop, layers), self.scene.image)


def pixels_of(box: Box) -> np.ndarray:
    """A box as bool (h w)."""
    return Region("anything", box=box).mask_on(CANVAS, CANVAS).numpy() >= 0.5


def widened(shape: np.ndarray, pixels: int = EDGE) -> np.ndarray:
    """A shape and so many pixels around it: bool (h w)."""
    return grown(torch.from_numpy(shape).float(), pixels).numpy() >= 0.5


def load_edits(kind: Kind, name: str = EDITS) -> tuple[PictureEdit, ...]:
    """Open the edits of a kind of a set: `EDITS` or `EDITS_TUNING`."""
    rows = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))[kind]
    return tuple(edit_of(kind, row) for row in rows)


def edit_of(kind: Kind, row: dict) -> PictureEdit:
    """Read a row of the file."""
    sprite, shift = row.get("placement"), row.get("shift")
    read = {"placement": sprite and Placement(**sprite), "shift": shift and tuple(shift)}
    return PictureEdit(kind, **{**row, **{key: value for key, value in read.items() if value}})
