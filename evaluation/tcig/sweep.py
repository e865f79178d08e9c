"""Stage two of TCIG at every denoise, on the tuning layouts: the plot that its settings come from."""

from dataclasses import replace

from tqdm import tqdm

from ..judging.scoring import layout_lines, score
from ..judging.yardsticks import Yardsticks
from ..painter import Painter
from ..records.pictures import PictureRecords
from ..sets.sets import TUNING_SET
from ..summary.rows import summary_row
from ..sweeps import INTERVALS, SCORES
from .evaluate import DRAWING, LAYERED, METHODS, START, TCIG_NAME, has_clip, masked
from .graphs import paint, refined

SWEEPS_FILE = "tcig_sweeps"
SWEPT = (TCIG_NAME, LAYERED, DRAWING, START)
SHARES = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def denoised(method: str, denoise: float) -> str:
    """What a method with a denoise of stage two is called in the records."""
    return f"{method} denoise={denoise:g}"


def sweep(
    painter: Painter, yardsticks: Yardsticks, records: PictureRecords, *, layouts: int | None, seeds: int
) -> dict[str, list[dict]]:
    """Stage two at every denoise: from TCIG's drafts, alone and in layers, from flat drawings and from the start.

    On the tuning layouts with masks.

    Returns:
        Provenance, and rows as of other sweeps; at denoise 0 the pictures are the drafts.
    """
    for item in tqdm(masked(TUNING_SET, layouts), "shares", unit="layout"):
        for name, number in ((name, number) for number in range(seeds) for name in SWEPT):
            names = [denoised(name, value) for value in SHARES]
            if records.has_all((each, TUNING_SET, item.seed, number) for each in names):
                continue
            shown, _ = paint(painter, METHODS[name].graph(painter, item, item.seed + number, SHARES))
            for place, each in enumerate(names):
                painted = score(yardsticks, each, TUNING_SET, item, [shown[refined(place)]], None)
                (line,) = layout_lines(yardsticks, painted, with_features=False)
                records.add([replace(line, number=number, clip=line.clip if has_clip(name) else None)])
    rows = []
    for name, value in ((name, value) for name in SWEPT for value in SHARES):
        row = summary_row(name, TUNING_SET, [line for line in records if line.method == denoised(name, value)])
        scores = {key: row[key] for key in (*SCORES, INTERVALS)}
        rows.append({"sweep": "denoise", "value": value, "method": name} | scores)
    return {"provenance": [records.provenance], "rows": rows}
