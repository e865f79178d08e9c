"""What is measured of a picture taken apart: pure functions of arrays in 0..1, against exact layers.

Of each thing, then the mean over the things of a picture:
- `alpha IoU`: against the whole shape, hidden parts included.
- `alpha error`: mean absolute difference of both alphas where either is above 0.
- `PSNR visible` and `PSNR hidden`: of the layer alone before grey, so that what is missing counts as grey, within the
  part of its shape that nearer things leave, and that they hide. A thing of which hardly anything is hidden has none.
Of the picture:
- `PSNR background`: within the shapes of all things, which is where something had to be painted.
- `PSNR recomposed`: of all layers over the background, against the picture; 120 is the same picture.
"""

from dataclasses import dataclass

import numpy as np

from ...core.scores.metrics import mask_iou, mean_or_none
from ...sticker_world.world.scene import Scene, SceneObject
from ..text2layer.scores import psnr

ALPHA_IOU, ALPHA_ERROR = "alpha IoU", "alpha error"
VISIBLE, HIDDEN = "PSNR visible", "PSNR hidden"
BACKGROUND, RECOMPOSED = "PSNR background", "PSNR recomposed"
GREY = 0.5  # what a layer alone is looked at before
INSIDE = 0.5  # alpha from which a pixel belongs to a thing
LEAST_HIDDEN = 0.02  # of a thing's shape; less is the soft rim of its neighbour
LEVELS = 255


@dataclass(frozen=True)
class FoundLayer:
    """A thing taken out of a picture.

    Attributes:
        colour: straight, (h w 3).
        alpha: (h w).
    """

    colour: np.ndarray
    alpha: np.ndarray

    def over(self, behind: np.ndarray | float) -> np.ndarray:
        """The layer over something: (h w 3)."""
        alpha = self.alpha[..., None]
        return alpha * self.colour + (1 - alpha) * behind


@dataclass(frozen=True)
class TakenApart:
    """A picture's layers.

    Attributes:
        background: (h w 3).
        layers: farthest first, as the scene's things.
    """

    background: np.ndarray
    layers: tuple[FoundLayer, ...]

    def composite(self) -> np.ndarray:
        """All layers over the background: (h w 3)."""
        canvas = self.background
        for layer in self.layers:
            canvas = layer.over(canvas)
        return canvas


def true_layer(thing: SceneObject) -> FoundLayer:
    """What a thing's layer is."""
    layer = thing.layer.astype(np.float64) / LEVELS
    return FoundLayer(layer[..., :3], layer[..., 3])


def holes_of(scene: Scene) -> np.ndarray:
    """Where things stand: bool (h w)."""
    return np.any([thing.mask >= INSIDE for thing in scene.objects], axis=0)


def background_measures(background: np.ndarray, scene: Scene) -> dict[str, float | None]:
    """What is measured of a background (h w 3) alone."""
    return {BACKGROUND: psnr(background, scene.backdrop / LEVELS, holes_of(scene))}


def layer_measures(found: TakenApart, scene: Scene) -> dict[str, float | None]:
    """Everything that is measured; None for what does not apply."""
    things = [thing_measures(*pair) for pair in zip(found.layers, scene.objects, strict=True)]
    of_things = {name: mean_or_none(each[name] for each in things) for name in things[0]}
    again = psnr(found.composite(), scene.image / LEVELS)
    return of_things | background_measures(found.background, scene) | {RECOMPOSED: again}


def thing_measures(found: FoundLayer, thing: SceneObject) -> dict[str, float | None]:
    """What is measured of one thing."""
    true = true_layer(thing)
    either = (found.alpha > 0) | (true.alpha > 0)
    shape, seen = true.alpha >= INSIDE, thing.visible >= INSIDE
    hidden = shape & ~seen
    enough = np.count_nonzero(hidden) >= LEAST_HIDDEN * np.count_nonzero(shape)
    shown, truly = found.over(GREY), true.over(GREY)
    return {
        ALPHA_IOU: mask_iou(found.alpha >= INSIDE, shape),
        ALPHA_ERROR: float(np.abs(found.alpha - true.alpha)[either].mean()),
        VISIBLE: psnr(shown, truly, seen),
        HIDDEN: psnr(shown, truly, hidden) if enough else None,
    }
