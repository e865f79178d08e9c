"""Paints layouts whose two things have a look each, and measures which look their places and the background have."""

from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from ...core.layout.layout import Layout
from ...sticker_world.shipped import LORA_FOLDER
from ..judging.yardsticks import Yardsticks
from ..painter import Painter
from ..records.lines import PictureLine, picture_line
from ..records.pictures import PictureRecords
from ..summary.compared import Compared
from ..summary.rows import summary_rows
from .graphs import BOTH, FILES, LAYOUTS, OWN, WAYS, WITHOUT, looked_layouts
from .measure import PLAIN, LookMeasure, free_corners

TWO_LOOKS = "two_looks"
NAMES = tuple(WAYS)
PAIRS = ((OWN, BOTH), (OWN, WITHOUT))
OWN_LOOK, OTHER_LOOK, NO_LOOK, NAMED = "own look", "other look", "no look", "named right"
BACKGROUND = "background without look"
WEIGHTS = {look: LORA_FOLDER.parent / file for look, file in FILES.items()}
Keep = Callable[[str, np.ndarray], None]


def evaluate(
    painter: Painter,
    yardsticks: Yardsticks,
    records: PictureRecords,
    *,
    layouts: int | None,
    tuning: bool,
    keep: Keep,
) -> dict[str, list[dict]]:
    """Paint what the records lack, and measure it.

    Args:
        painter: of a server.
        yardsticks: not asked: no segmenter has seen these looks.
        records: that keep the pictures' scores.
        layouts: how many; None for all.
        tuning: there is nothing to tune, so it changes nothing.
        keep: is given every picture that is painted, and its name.
    """
    items = looked_layouts(layouts or LAYOUTS)
    if not records.has_all((way, TWO_LOOKS, seed, 0) for seed, _, _ in items for way in WAYS):
        painter.paint_prompt("warm-up", 0)  # loading the checkpoint is not part of the first picture's time
    with tqdm(total=len(items) * len(WAYS), unit="picture") as bar:
        for seed, layout, looks in items:
            for way, graph in WAYS.items():
                bar.set_description(way)
                if (way, TWO_LOOKS, seed, 0) not in records:
                    (picture,), seconds, rows = painter.paint_counted(graph(layout, seed))
                    records.add([looked_line(way, seed, layout, looks, picture, seconds=seconds, evaluations=rows)])
                    keep(f"{TWO_LOOKS}_{seed}_{way.replace(' ', '_')}", picture)
                bar.update()
    return results(records)


def looked_line(
    way: str, seed: int, layout: Layout, looks: Sequence[str], picture: np.ndarray, **took: float | None
) -> PictureLine:
    """Measure a picture (h w 3), uint8; means over its two regions, and over the corners without one."""
    measure = LookMeasure.load()
    found: dict[str, list[float]] = {name: [] for name in (OWN_LOOK, OTHER_LOOK, NO_LOOK, NAMED, BACKGROUND)}
    for region, look in zip(layout.regions, looks, strict=True):
        shares = measure.of(picture, region.box)
        found[OWN_LOOK].append(shares[look])
        found[NO_LOOK].append(shares[PLAIN])
        found[OTHER_LOOK].append(1 - shares[look] - shares[PLAIN])
        found[NAMED].append(float(max(shares, key=shares.get) == look))
    for corner in free_corners([region.box for region in layout.regions]):
        found[BACKGROUND].append(measure.of(picture, corner)[PLAIN])
    measures = {name: float(np.mean(values)) for name, values in found.items() if values}
    return picture_line(way, TWO_LOOKS, seed, objects=len(layout.regions), measures=measures, **took)


def results(records: PictureRecords) -> dict[str, list[dict]]:
    """Rows and differences out of the records alone, and how often the measure is right on drawn scenes."""
    accuracy = [
        {"name": f"accuracy of the measure on {what}", "value": value, "unit": "", "target": None}
        for what, value in LookMeasure.load().accuracy.items()
    ]
    return {
        "provenance": [records.provenance],
        "rows": summary_rows(records, [TWO_LOOKS], NAMES, by_tag=False),
        "comparisons": Compared(records, [TWO_LOOKS]).rows(PAIRS),
        "measures": accuracy,
    }
