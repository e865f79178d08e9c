"""Methods on the layout sets: paint what the records lack, and make rows of what they hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from .graphs import sali, soft
from .graphs.builder import Method
from .graphs.lrdiff import VARIANTS
from .graphs.methods import METHODS
from .judging.scoring import add_real_scenes, large_enough, layout_lines, score, spread
from .judging.yardsticks import Yardsticks
from .painter import Painter, Painting
from .records.lines import Key
from .records.pictures import PictureRecords
from .sets.sets import LAYOUT_SETS, TUNING_SET, Item, load_set
from .summary.compared import Compared
from .summary.rows import summary_rows

PERFECT = "perfect"  # the layouts' own sprites, pasted: what the judge gives a picture that does all it was asked
PAINTED: dict[str, Method] = {**METHODS, **VARIANTS, **sali.METHODS, **soft.METHODS}
OURS = "lrdiff"
Keep = Callable[[str, np.ndarray], None]  # takes a picture's name and the picture
# Method, and what it is compared with where a run has both.
PAIRS = (
    *((OURS, rival) for rival in METHODS if rival != OURS),
    *((variant, OURS) for variant in VARIANTS),
    *((method, sali.GUIDED) for method in sali.COMPARED if method != sali.GUIDED),
)


@dataclass(frozen=True)
class Group:
    """Methods that are painted in turns and whose rows stand in one table."""

    name: str
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Size:
    """How much is painted.

    Attributes:
        layouts: of each set; None takes all.
        seeds: pictures of each layout and method.
        tuning: the tuning set instead of the others.
    """

    layouts: int | None = None
    seeds: int = 1
    tuning: bool = False

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the layout sets."""
        return (TUNING_SET,) if self.tuning else LAYOUT_SETS

    def settings(self) -> dict[str, object]:
        """As a run's provenance has them."""
        return {"layouts": self.layouts or "all", "seeds": self.seeds, "tuning": self.tuning}


def keys_of(method: str, set_name: str, item: Item, seeds: int) -> list[Key]:
    """What names the pictures that a method paints for an item."""
    return [(method, set_name, item.seed, number) for number in range(1 if method == PERFECT else seeds)]


def evaluate(
    painter: Painter | None,
    yardsticks: Yardsticks,
    groups: Sequence[tuple[Group, PictureRecords]],
    size: Size,
    keep: Keep,
) -> dict[str, dict[str, list[dict]]]:
    """Paint what is missing and judge it; what two groups of one run share is painted once.

    Args:
        painter: of an `evaluation_server`; None where nothing but `PERFECT` is asked for.
        yardsticks: the judges.
        groups: with the records that keep their pictures.
        size: of the run.
        keep: called with every picture that is painted.

    Returns:
        Rows, comparisons and measures of results by the groups' names.
    """
    items = {name: spread(load_set(name), size.layouts) for name in size.sets}
    known = [records for _, records in groups]
    if painter is not None and _is_missing(groups, items, size.seeds):
        painter.paint_prompt("warm-up", 0)  # loading the checkpoint is not part of the first picture's time
    for group, records in groups:
        _paint_group(painter, yardsticks, (group, records), known, items, size.seeds, keep)
    return {group.name: group_results(group.methods, size.sets, records) for group, records in groups}


def _is_missing(groups: Sequence[tuple[Group, PictureRecords]], items: dict[str, list[Item]], seeds: int) -> bool:
    return not all(
        records.has_all(keys_of(method, name, item, seeds))
        for group, records in groups
        for name, of_set in items.items()
        for item in of_set
        for method in group.methods
        if method != PERFECT
    )


def _paint_group(
    painter: Painter | None,
    yardsticks: Yardsticks,
    group: tuple[Group, PictureRecords],
    known: Sequence[PictureRecords],
    items: dict[str, list[Item]],
    seeds: int,
    keep: Keep,
) -> None:
    """Methods take turns on every layout, so that a slow minute of the machine falls on all of them."""
    (methods, records), jobs = (group[0].methods, group[1]), [(n, item) for n, of in items.items() for item in of]
    with tqdm(total=len(jobs) * len(methods), unit="layout") as bar:
        for set_name, item in jobs:
            with_features = large_enough(len(items[set_name]) * seeds)
            for method in methods:
                bar.set_description(f"{set_name} {method}")
                keys = keys_of(method, set_name, item, seeds)
                records.add(line for key in keys for other in known if (line := other.get(key)) is not None)
                if not records.has_all(keys):
                    painting = _paint(painter, method, item, seeds)
                    painted = score(yardsticks, method, set_name, item, *painting)
                    records.add(layout_lines(yardsticks, painted, with_features=with_features))
                    for number, picture in enumerate(painting.pictures):
                        keep(f"{set_name}_{item.seed}_{number}_{method}", picture)
                bar.update()
            if with_features:
                add_real_scenes(yardsticks, records, len(item.layout.regions))


def _paint(painter: Painter | None, method: str, item: Item, seeds: int) -> Painting:
    if method == PERFECT:
        return Painting([item.perfect_picture()], None, None)
    return painter.paint(PAINTED[method], item, seeds)


def group_results(methods: Sequence[str], sets: Sequence[str], records: PictureRecords) -> dict[str, list[dict]]:
    """Rows, comparisons and measures of a group, out of its records alone."""
    compared = Compared((line for line in records if line.method in methods), sets)
    pairs = [pair for pair in PAIRS if set(pair) <= set(methods)]
    measures = sali.gains(compared) if {sali.GUIDED, sali.BOTH} <= set(methods) else []
    return {
        "provenance": [records.provenance],
        "rows": summary_rows(records, sets, methods),
        "comparisons": compared.rows(pairs),
    } | ({"measures": measures} if measures else {})
