"""What is measured of an edited picture: pure functions of arrays, and a picture's line.

- `PSNR outside`: against the given picture, outside of what was asked for and `EDGE` pixels around it. Every method is
  allowed to change what lies within.
- `PSNR inside`: against the exact edited picture, inside of what was asked for; only where one thing alone is right,
  which is what lies behind a thing, and a thing that moves.
- `change`: mean absolute difference from the given picture inside of what was asked for, 1 from black to white. It says
  that something was done, not that it is right.
- `present`: the judge finds a component of what is put down in the asked box, of at least half of its area.
- `gone`: the judge finds less than `LEFT` of what went away at its old place and `EDGE` pixels around it.
"""

import numpy as np

from ...core.scores.layout_score import score_pictures
from ...core.scores.metrics import is_present
from ..image_lines import image_line
from ..judging.yardsticks import Yardsticks, to_images
from ..records.lines import PictureLine, RegionLine
from ..sets.edits import MOVE, REMOVE, PictureEdit, pixels_of, widened
from ..text2layer.scores import psnr

OUTSIDE, INSIDE, CHANGE, GONE = "PSNR outside", "PSNR inside", "change", "gone"
LEFT = 0.1  # of a thing's area; a rest of this size is seen as a spot and no longer as the thing
LEVELS = 255


def set_of(kind: str) -> str:
    """The set's name in result rows."""
    return f"edits_{kind}"


def changed(picture: np.ndarray, given: np.ndarray, inside: np.ndarray) -> float:
    """Mean absolute difference of two uint8 pictures (h w 3) inside of a shape (h w), in 0..1."""
    return float(np.abs(picture.astype(int) - given)[inside].mean() / LEVELS)


def is_gone(labels: np.ndarray, class_index: int, edit: PictureEdit) -> bool:
    """Whether hardly anything of a class is left at the old place of an edit's thing, given a class per pixel (h w)."""
    place = widened(edit.old)
    if edit.new is not None:
        place &= ~edit.new
    left = np.count_nonzero((labels == class_index) & place)
    return left < LEFT * np.count_nonzero(edit.old)


def is_there(labels: np.ndarray, class_index: int, edit: PictureEdit) -> bool:
    """Whether a class is found in the asked box as large as it should be, given a class per pixel (h w)."""
    found = np.where(pixels_of(edit.box) & (labels == class_index), class_index, class_index + 1)
    return is_present(found, class_index, float(edit.new.mean()))


def edit_line(
    yardsticks: Yardsticks,
    method: str,
    edit: PictureEdit,
    picture: np.ndarray,
    *,
    seconds: float | None = None,
    evaluations: int | None = None,
) -> PictureLine:
    """Judge an edited picture.

    Args:
        yardsticks: the judges.
        method: what edited it.
        edit: what was asked for.
        picture: uint8 (h w 3).
        seconds: that it took.
        evaluations: rows that the network evaluated for it.
    """
    given, labels, class_of = edit.scene.image, yardsticks.labels(picture), yardsticks.segmenter.class_of
    shown, outside = picture.astype(np.float64) / LEVELS, (~edit.near).astype(np.float64)
    measures: dict[str, float | None] = {
        OUTSIDE: psnr(shown, given / LEVELS, outside),
        CHANGE: changed(picture, given, edit.asked),
    }
    if edit.kind in (REMOVE, MOVE):
        measures[INSIDE] = psnr(shown, edit.exact_picture() / LEVELS, edit.asked)
    if edit.gone:
        measures[GONE] = float(is_gone(labels, class_of(edit.gone), edit))
    regions: tuple[RegionLine, ...] = ()
    if edit.wanted:
        areas = [[float(edit.new.mean())]]
        (scores,) = score_pictures(to_images([picture]), [edit.layout()], yardsticks.segmenter, areas)
        regions = tuple(map(RegionLine.of, scores))
    return image_line(
        yardsticks,
        (method, set_of(edit.kind), edit.seed, 0),
        picture,
        edit.prompt,
        objects=edit.objects,
        present=is_there(labels, class_of(edit.wanted), edit) if edit.wanted else None,
        regions=regions,
        seconds=seconds,
        evaluations=evaluations,
        measures=measures,
    )
