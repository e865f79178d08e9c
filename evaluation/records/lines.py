"""The scores of one picture as one line of JSON: small, and enough to make every row of results of.

Numbers are rounded to `DIGITS`; image features are float16 in base64. What does not apply to a picture is left out.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ...core.layout.masks import Array, Box, to_numpy
from ...core.scores.layout_score import RegionScore

DIGITS = 6
BOX_DIGITS = 4  # of 0..1; pictures of the evaluation are 256 pixels wide
FEATURES = "<f2"  # float16, the least significant byte first

Key: TypeAlias = tuple[str, str, int, int]  # method, set, item, number
JSON: TypeAlias = dict[str, object]


def _rounded(value: float | None, digits: int = DIGITS) -> float | None:
    return None if value is None else round(float(value), digits)


@dataclass(frozen=True)
class RegionLine:
    """What became of one region: the part of a `RegionScore` that sets are scored by, in the order of a line.

    Attributes:
        class_name: the segmenter's name for it.
        found_box: box of the component taken for this region, None if the class is nowhere.
        confidence: of that component.
        box_iou: of found and asked box.
        mask_iou: None for a region without a mask.
        bleed: None if the class is nowhere.
        present: whether the component is large enough.
    """

    class_name: str
    found_box: Box | None
    confidence: float
    box_iou: float
    mask_iou: float | None
    bleed: float | None
    present: bool

    @classmethod
    def of(cls, score: RegionScore) -> "RegionLine":
        """Round a region's score to what a line keeps, so that rows are the same before and after the file."""
        box = None if score.found_box is None else tuple(round(float(side), BOX_DIGITS) for side in score.found_box)
        numbers = (score.confidence, score.box_iou, score.mask_iou, score.bleed)
        return cls(score.class_name, box, *map(_rounded, numbers), bool(score.present))

    def to_json(self) -> list:
        """A list in the order of the attributes."""
        box = None if self.found_box is None else list(self.found_box)
        numbers = (self.confidence, self.box_iou, self.mask_iou, self.bleed)
        return [self.class_name, box, *numbers, int(self.present)]

    @classmethod
    def from_json(cls, values: Sequence) -> "RegionLine":
        """Read such a list."""
        class_name, box, *numbers, present = values
        return cls(class_name, None if box is None else tuple(box), *numbers, bool(present))


@dataclass(frozen=True, eq=False)
class PictureLine:
    """The scores of one picture.

    Attributes:
        method: what painted it.
        set_name: what it was asked for.
        item: of the set: the seed of its layout or prompt.
        number: of the picture among those of the item and method; equal numbers have equal noise.
        tags: of the item.
        objects: how many things the item asks for.
        present: whether everything that was asked for is there.
        regions: in painter's order; empty where no layout was given.
        clip: cosine between the picture and its prompt.
        features: float16 (d), of the judging CLIP, a unit vector; only kept where the set is large enough for KID.
        seconds: on the server.
        evaluations: rows that the network evaluated for it, where they were counted.
        measures: whatever else a part measures of a picture, by name; the names become scores of rows and differences.
    """

    method: str
    set_name: str
    item: int
    number: int = 0
    tags: tuple[str, ...] = ()
    objects: int | None = None
    present: bool | None = None
    regions: tuple[RegionLine, ...] = ()
    clip: float | None = None
    features: np.ndarray | None = None
    seconds: float | None = None
    evaluations: int | None = None
    measures: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What names the picture in a run."""
        return (self.method, self.set_name, self.item, self.number)

    def to_text(self) -> str:
        """One line of JSON without its end; numbers have to be finite.

        Raises:
            ValueError: a number that JSON does not know.
        """
        features = None if self.features is None else base64.b64encode(self.features.astype(FEATURES).tobytes())
        content = {
            "method": self.method,
            "set": self.set_name,
            "item": self.item,
            "number": self.number,
            "tags": list(self.tags) or None,
            "objects": self.objects,
            "present": self.present,
            "regions": [region.to_json() for region in self.regions] or None,
            "clip": self.clip,
            "seconds": self.seconds,
            "evaluations": self.evaluations,
            "measures": dict(self.measures) or None,
            "features": None if features is None else features.decode(),
        }
        kept = {key: value for key, value in content.items() if value is not None}
        return json.dumps(kept, allow_nan=False, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, content: JSON) -> "PictureLine":
        """Read a line's object.

        Raises:
            KeyError, TypeError, ValueError: it is no line of a picture.
        """
        given = dict(content)
        named = {"method": given.pop("method"), "set_name": given.pop("set")}
        regions = tuple(RegionLine.from_json(values) for values in given.pop("regions", ()))
        text = given.pop("features", None)
        features = None if text is None else np.frombuffer(base64.b64decode(text), FEATURES)
        return cls(**named, tags=tuple(given.pop("tags", ())), regions=regions, features=features, **given)


def picture_line(
    method: str,
    set_name: str,
    item: int,
    number: int = 0,
    *,
    clip: float | None = None,
    features: Array | None = None,
    seconds: float | None = None,
    measures: Mapping[str, float | None] | None = None,
    present: bool | None = None,
    **given: object,
) -> PictureLine:
    """Make a line with its numbers rounded as the file keeps them; the arguments are the attributes of `PictureLine`.

    Args:
        method: see `PictureLine`, as all of them.
        set_name: its set.
        item: its item.
        number: its number.
        clip: any float.
        features: (d) of any kind.
        seconds: any float.
        measures: any floats; what is None does not apply and is left out.
        present: any truth, of NumPy too.
        given: the other attributes.
    """
    kept = None if features is None else to_numpy(features).astype(FEATURES)
    measured = {name: _rounded(value) for name, value in (measures or {}).items() if value is not None}
    rounded = {"clip": _rounded(clip), "features": kept, "seconds": _rounded(seconds), "measures": measured}
    given["present"] = None if present is None else bool(present)
    return PictureLine(method, set_name, item, number, **rounded, **given)
