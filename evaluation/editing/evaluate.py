"""Edits of real scenes, `python stage.py evaluate editing`: our nodes, inpainting, and what the VAE alone does."""

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from ..judging.scoring import spread
from ..judging.yardsticks import Yardsticks
from ..painter import Painter
from ..records.pictures import PictureRecords
from ..sets.edits import EDITS, EDITS_TUNING, INSERT, KINDS, REPLACE, PictureEdit, load_edits
from ..summary.compared import Compared
from ..summary.rows import summary_rows
from .graphs import EDIT, EDIT_COLOURS, INPAINT, METHODS, Files, methods_of
from .measures import edit_line, set_of

EDITING = "editing"
EXACT = "exact"  # the edited picture as the world draws it: what the judge gives an edit that does all it was asked
NAMES = (*METHODS, EXACT)
PAIRS = ((EDIT, INPAINT), (EDIT_COLOURS, INPAINT))
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
    """Paint what the records lack, and judge it.

    Args:
        painter: of a server with `baselines`.
        yardsticks: the judges.
        records: that keep the pictures' scores.
        layouts: edits of each kind; None for all.
        tuning: use the tuning set.
        keep: is given every picture that is painted, and its name; the given and the exact pictures too.
    """
    name = EDITS_TUNING if tuning else EDITS
    edits = [edit for kind in KINDS for edit in spread(load_edits(kind, name), layouts)]
    jobs = [(edit, method) for edit in edits for method in (*methods_of(edit.kind), EXACT)]
    if not records.has_all(_key(*job) for job in jobs):
        painter.paint_prompt("warm-up", 0)  # loading the checkpoint is not part of the first picture's time
    with tqdm(total=len(jobs), unit="picture") as bar:
        for edit, method in jobs:
            bar.set_description(f"{edit.kind} {method}")
            if _key(edit, method) not in records:
                picture, took = _picture(painter, edit, method)
                records.add([edit_line(yardsticks, method, edit, picture, **took)])
                keep(f"{set_of(edit.kind)}_{edit.seed}_{method}", picture)
                if method == EXACT:
                    keep(f"{set_of(edit.kind)}_{edit.seed}_given", edit.scene.image)
            bar.update()
    return results(records)


def _key(edit: PictureEdit, method: str) -> tuple[str, str, int, int]:
    return (method, set_of(edit.kind), edit.seed, 0)


def _picture(painter: Painter, edit: PictureEdit, method: str) -> tuple[np.ndarray, dict]:
    """The edited picture, with the seconds and evaluations that it took."""
    if method == EXACT:
        return edit.exact_picture(), {}
    old = "" if edit.old is None else painter.upload(edit.old)
    # Inpainting paints what our nodes paint: the asked boxes or shapes, but of a moved thing its old place alone.
    anew = edit.asked if edit.kind in (INSERT, REPLACE) else edit.old
    files = Files(painter.upload(edit.scene.image), old, painter.upload(anew))
    (picture,), seconds, evaluations = painter.paint_counted(METHODS[method](edit, files))
    return picture, {"seconds": seconds, "evaluations": evaluations}


def results(records: PictureRecords) -> dict[str, list[dict]]:
    """Rows and differences out of the records alone."""
    sets = [set_of(kind) for kind in KINDS]
    return {
        "provenance": [records.provenance],
        "rows": summary_rows(records, sets, NAMES, by_tag=False),
        "comparisons": Compared(records, sets).rows(PAIRS),
    }
