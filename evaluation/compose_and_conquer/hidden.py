"""What one depth map cannot say: whether the background goes on behind the foreground.

A thing stands behind another one. Then, with the same noise and the same background map, the foreground is moved aside
or taken away: what it hid must be there. The control with one map has the first picture's, see `HiddenPair.one_map`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ..image_lines import image_line
from ..judging.scoring import spread
from ..judging.yardsticks import Yardsticks
from ..painter import Painter
from ..records.lines import PictureLine
from ..records.pictures import PictureRecords
from ..sets.hidden_pairs import ASIDE, BEFORE, PARTLY, REMOVED, WHOLLY, HiddenPair
from ..summary.means import mean_of
from .graphs import Asked, CnC
from .order import PERFECT, PLAIN, SINGLE, Keep
from .scores import judge_hidden

SET = "cnc_hidden"
SETS = {BEFORE: SET, ASIDE: f"{SET}_{ASIDE}", REMOVED: f"{SET}_{REMOVED}"}
SHOWN, SOMETHING = "IoU of what was hidden", "anything there"  # the latter a share of the area that was hidden


def some_of_each(pairs: Sequence[HiddenPair], number: int | None) -> list[HiddenPair]:
    """So many pairs from the whole length of a set, half of them wholly hidden and half partly; None takes all."""
    if number is None:
        return list(pairs)
    shares = {WHOLLY: number - number // 2, PARTLY: number // 2}
    return [
        pair for kind, share in shares.items() for pair in spread([each for each in pairs if each.kind == kind], share)
    ]


def paint_hidden(
    painter: Painter | None,
    yardsticks: Yardsticks,
    records: PictureRecords,
    methods: Mapping[str, CnC | None],
    pair: HiddenPair,
    keep: Keep,
) -> None:
    """Paint and judge what the records lack of a pair: as it is, with its foreground aside, and without it.

    Args:
        painter: not needed for `PERFECT`.
        yardsticks: the judges.
        records: that keep the pictures' scores.
        methods: by name. `SINGLE` has one map; `PLAIN`, without settings, the prompt alone; `PERFECT`, without
            settings, is the sprites pasted.
        pair: what is asked for.
        keep: called with every picture.
    """
    for name, method in methods.items():
        for where, set_name in SETS.items():
            if (name, set_name, pair.seed, 0) in records:
                continue
            if name == PERFECT:
                painted = (pair.perfect_picture(where), None, None)
            elif name == PLAIN:
                (picture,), *cost = painter.paint_prompt(pair.prompt(where), pair.seed)
                painted = (picture, *cost)
            else:
                painted = method.paint(painter, asked_hidden(pair, where, single=name == SINGLE))
            records.add([hidden_line(yardsticks, name, pair, where, *painted)])
            keep(f"{set_name}_{pair.seed}_{name}", painted[0])


def asked_hidden(pair: HiddenPair, where: str, *, single: bool) -> Asked:
    """A pair with its foreground somewhere, for two depth maps or for a control with a single one."""
    depths = (pair.one_map(where), None) if single else pair.two_maps(where)
    return Asked(pair.prompt(where), pair.seed, *depths)


def hidden_line(
    yardsticks: Yardsticks,
    method: str,
    pair: HiddenPair,
    where: str,
    picture: np.ndarray,
    seconds: float | None = None,
    evaluations: int | None = None,
) -> PictureLine:
    """Judge the place of the thing behind: in the first picture it is hidden, in the others it must be there."""
    index = yardsticks.segmenter.class_of(pair.concepts[0])
    score = judge_hidden(yardsticks.labels(picture), pair.shapes[0], pair.hidden, index)
    return image_line(
        yardsticks,
        (method, SETS[where], pair.seed, 0),
        picture,
        pair.prompt(where),
        tags=(pair.kind,),
        objects=len(pair.things(where)),
        present=score.present,
        seconds=seconds,
        evaluations=evaluations,
        measures={"mask_iou": score.mask_iou, SHOWN: score.shown, SOMETHING: score.something},
    )


def hidden_measures(lines: Sequence[PictureLine]) -> list[dict]:
    """How often what was hidden is there, for the pictures of one method, by how much of it was hidden."""
    found = []
    for where in (ASIDE, REMOVED):
        for kind in (PARTLY, WHOLLY):
            chosen = [line for line in lines if line.set_name == SETS[where] and kind in line.tags]
            name = f"hidden: {lines[0].method}, foreground {where}, {kind} hidden things that are there"
            found.append(mean_of(chosen, lambda line: line.present).measure(name))
    return found
