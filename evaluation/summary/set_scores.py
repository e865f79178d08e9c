"""Every score of a set of pictures as a function of how often each of its layouts is drawn.

Drawing each layout once gives the scores themselves; drawing with repetition gives a bootstrap's. A layout is drawn
with all its pictures, because those of one layout are no independent evidence.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ...core.scores.metrics import HIT_IOU
from ..records.lines import PictureLine, RegionLine
from .kernel_distance import DrawnKID

SCORES = ("box_iou", "ap50", "mask_iou", "bleed", "presence", "clip", "kid", "seconds", "evaluations")
Value = float | None


def _of_regions(value: Callable[[RegionLine], Value]) -> Callable[[PictureLine], list[Value]]:
    return lambda line: [value(region) for region in line.regions]


def _measured(name: str) -> Callable[[PictureLine], list[Value]]:
    return lambda line: [line.measures.get(name)]


# What a score is the mean of; a picture has none, one or several such values.
VALUES: dict[str, Callable[[PictureLine], list[Value]]] = {
    "box_iou": _of_regions(lambda region: region.box_iou),
    "mask_iou": _of_regions(lambda region: region.mask_iou),
    "bleed": _of_regions(lambda region: region.bleed),
    "presence": lambda line: [line.present],
    "clip": lambda line: [line.clip],
    "seconds": lambda line: [line.seconds],
    "evaluations": lambda line: [line.evaluations],
}


def measures_of(lines: Iterable[PictureLine]) -> tuple[str, ...]:
    """Names of what else was measured of these pictures, in the order in which they first appear."""
    return tuple(dict.fromkeys(name for line in lines for name in line.measures))


class SetScores:
    """The scores of one method's pictures of one set.

    Attributes:
        names: of the scores: `SCORES`, then the asked measures.

    Args:
        lines: of the pictures.
        items: the layouts of the set, in the order in which draws count them; all that the pictures have.
        real: (n d), features of real pictures for KID; None leaves KID out.
        measures: names of what else was measured, see `measures_of`.
    """

    def __init__(
        self,
        lines: Sequence[PictureLine],
        items: Sequence[int],
        real: np.ndarray | None = None,
        measures: Sequence[str] = (),
    ) -> None:
        self.pictures, self.names = len(lines), (*SCORES, *measures)
        place = {item: index for index, item in enumerate(items)}
        self._layouts = np.array([place[line.item] for line in lines], int)
        values = VALUES | {name: _measured(name) for name in measures}
        self._means = {name: self._sums(lines, each, len(items)) for name, each in values.items()}
        self._precision = DrawnPrecision(lines, [place[line.item] for line in lines])
        known = [line.features for line in lines if line.features is not None]
        self._kid = DrawnKID(np.stack(known), real) if real is not None and len(known) == len(lines) > 1 else None

    def _sums(
        self, lines: Sequence[PictureLine], values: Callable[[PictureLine], list[Value]], layouts: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sum and number of a score's values in each layout."""
        sums, numbers = np.zeros(layouts), np.zeros(layouts)
        for layout, line in zip(self._layouts, lines, strict=True):
            known = [float(value) for value in values(line) if value is not None]
            sums[layout] += sum(known)
            numbers[layout] += len(known)
        return sums, numbers

    def of(self, times: np.ndarray) -> np.ndarray:
        """All scores of each draw.

        Args:
            times: (r n), how often each layout is drawn.

        Returns:
            (k r), in the order of `names`; NaN for a score that applies to nothing that was drawn.
        """
        times = times.astype(np.float64)
        found = {"ap50": self._precision.of(times)}
        for name, (sums, numbers) in self._means.items():
            applied = times @ numbers
            found[name] = np.divide(times @ sums, applied, out=np.full(len(times), np.nan), where=applied > 0)
        found["kid"] = np.full(len(times), np.nan) if self._kid is None else self._kid.of(times[:, self._layouts])
        return np.stack([found[name] for name in self.names])


class DrawnPrecision:
    """AP@0.5, pooled over the set: `core.scores.metrics.average_precision` for every draw at once.

    COCO's evaluation (pycocotools) is another definition: it averages the same envelope of precision at 101 recalls,
    and over classes. With one recall for each thing that was asked for, and detections compared with their own region
    alone, it gives these numbers, as a test shows; but a set takes it 30 ms, and an interval asks for 10,000 of them.

    Args:
        lines: of the pictures.
        layouts: of each, its place in the draws.
    """

    def __init__(self, lines: Sequence[PictureLine], layouts: Sequence[int]) -> None:
        regions = [(layout, region) for layout, line in zip(layouts, lines, strict=True) for region in line.regions]
        found = [(layout, region) for layout, region in regions if region.found_box is not None]
        order = np.argsort([-region.confidence for _, region in found], kind="stable")
        self._layouts = np.array([found[index][0] for index in order], int)
        self._hits = np.array([found[index][1].box_iou >= HIT_IOU for index in order], float)
        self._asked = np.array([layout for layout, _ in regions], int)

    def of(self, times: np.ndarray) -> np.ndarray:
        """(r n), how often each layout is drawn -> (r); NaN where nothing is asked for.

        A picture that is drawn w times has each detection w times in a row. Within such a row of hits precision only
        rises, so its end is the best from there on, and the envelope is that of the ends.
        """
        truths = times[:, self._asked].sum(1)
        drawn = times[:, self._layouts]
        hits = drawn * self._hits
        seen = drawn.cumsum(1)
        precision = np.divide(hits.cumsum(1), seen, out=np.zeros_like(seen), where=seen > 0)
        best_from_here_on = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        area = (hits * best_from_here_on).sum(1)
        return np.divide(area, truths, out=np.full(len(times), np.nan), where=truths > 0)
