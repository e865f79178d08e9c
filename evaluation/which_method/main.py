"""Paints one layout by every method on both embedded networks, for docs/which-method.md.

`python commands/launcher.py evaluation.which_method.main` writes four pictures of each method to `assets/which_method`
and what one cost to `evaluation/results/which_method.json`. The layout is for show and in no evaluation set, and nobody
picked the seeds: they are 1 and 2.
"""

from collections.abc import Sequence

import numpy as np

from ...commands.environment import CLONE
from ...core.layout.preview import draw_layout
from ...core.layout.reading import parse_layout
from ...sticker_world.shipped import CHECKPOINT_FILE, TRANSFORMER_FILE
from ...sticker_world.world.concepts import CANVAS
from ..painter import Painter, evaluation_server
from ..records.provenance import provenance
from ..result_rows import RESULTS, write_results
from ..sets.sets import Item
from ..tiles import tile
from ..two_networks.evaluate import CHECKPOINTS, TRANSFORMER
from .ways import WAYS, Way

NAME = "which_method"
FOLDER = CLONE / "assets" / NAME
SEEDS = (1, 2)
SIDE, GAP = 144, 4  # pixels
NOTHING = (225, 225, 222)  # where there is no picture
BACKGROUND = "on a green meadow"
REGIONS = ("a house: polygon 0.06 0.3 0.3 0.06 0.54 0.3 0.54 0.66 0.06 0.66", "a dog: ellipse 0.42 0.42 0.82 0.92")
Picture = np.ndarray | None


def scene(seed: int) -> Item:
    """The layout that all methods paint."""
    layout = parse_layout("\n".join(REGIONS), width=CANVAS, height=CANVAS, background=BACKGROUND)
    return Item(layout, BACKGROUND, (), (), seed, ("masks", "for show"))


def main(argv: Sequence[str] | None = None) -> int:
    """Paint all of it; returns the exit status."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    items = [scene(seed) for seed in SEEDS]
    (drawn,) = draw_layout(items[0].layout)
    save([[np.round(255 * drawn.numpy()).astype(np.uint8)]], "layout")
    rows: list[dict] = []
    with evaluation_server() as server:
        painter = Painter(server)
        for checkpoint in CHECKPOINTS.values():  # loading one is no method's time
            painter.paint_prompt("warm-up", 0, checkpoint)
        for name in WAYS:
            columns = [_column(painter, name, items, network, rows) for network in CHECKPOINTS]
            save(list(zip(*columns, strict=True)), name)
            print(f"{name}: {rows[-1]}", flush=True)
    weights = {"checkpoint": CHECKPOINT_FILE, "transformer": TRANSFORMER_FILE}
    came_from = provenance(weights, {"regions": list(REGIONS), "seeds": list(SEEDS)})
    write_results(RESULTS / f"{NAME}.json", {"provenance": [came_from], "rows": rows})
    return 0


def _column(painter: Painter, name: str, items: Sequence[Item], network: str, rows: list[dict]) -> list[Picture]:
    """A method's pictures on a network, of which the last gives a row; none where it does not run."""
    way: Way = WAYS[name]
    if network == TRANSFORMER and not way.on_transformer:
        return [None] * len(items)
    painted = [painter.paint_counted(way.draw(painter, item), CHECKPOINTS[network]) for item in items]
    evaluations = painted[-1].evaluations if way.counted else None
    rows.append({"method": name, "network": network, "seconds": painted[-1].seconds, "evaluations": evaluations})
    return [painting.pictures[0] for painting in painted]


def save(lines: Sequence[Sequence[Picture]], name: str) -> None:
    """Keep pictures as one, small; where there is none, an empty place.

    Args:
        lines: uint8 (h w 3) or None, the same number in each line.
        name: of the file, without ending.
    """
    nothing = np.full((SIDE, SIDE, 3), NOTHING, np.uint8)
    sheet = tile([[nothing if picture is None else picture for picture in line] for line in lines], SIDE, GAP)
    sheet = sheet.crop((GAP, GAP, sheet.width - GAP, sheet.height - GAP))
    sheet.save(FOLDER / f"{name}.webp", quality=82, method=6)
