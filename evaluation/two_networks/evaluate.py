"""Every way of placing things on both embedded networks: `python stage.py evaluate networks`.

All methods have the settings that were chosen for the U-Net, but for the transformer's own `hard_until`; the same
layouts and noise, and the number of rows that the network evaluates for a picture.
"""

from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from ...commands.messages import SetupProblem
from ...sticker_world.shipped import CHECKPOINT_FILE, TRANSFORMER_FILE
from .. import base_family as base
from ..graphs.builder import Method
from ..graphs.methods import METHODS as PLACED
from ..graphs.sali import BOTH, GUIDED
from ..graphs.sali import METHODS as SALI
from ..graphs.soft import Soft
from ..judging.scoring import add_real_scenes, large_enough, layout_lines, score, spread
from ..judging.yardsticks import Yardsticks
from ..painter import Painter
from ..records.pictures import PictureRecords
from ..sets.sets import LAYOUT_SETS, TUNING_SET, load_presence, load_set
from ..summary.compared import Compared, quotient
from ..summary.rows import summary_rows
from .word_maps import word_map_measures

NETWORKS, U_NET, TRANSFORMER = "networks", "U-Net", "transformer"
CHECKPOINTS = {U_NET: CHECKPOINT_FILE.name, TRANSFORMER: TRANSFORMER_FILE.name}
LAYOUTS = 10  # of each set, if nothing is said
WHOLE, SOFT, HARD = "soft, whole prompt", "soft", "soft, hard until 0.3"
METHODS: dict[str, Method] = {
    **PLACED,
    GUIDED: SALI[GUIDED],
    WHOLE: Soft("whole"),
    SOFT: Soft(),
    HARD: Soft(hard_until=0.3),
    BOTH: SALI[BOTH],
}
RIVAL = "set_mask"
ONLY = {HARD: TRANSFORMER}  # methods that are something else on one network alone
# What the issue asks of the transformer: AP@0.5 above ConditioningSetMask's, and CLIP beside the plain prompt's.
TARGETS = {GUIDED: 0.10, HARD: 0.05, "lrdiff": 0.20}
CLIP_LOSS = -0.05
PRESENCE = {1: 0.95, 2: 0.80, 3: 0.60}  # of what the judge says of real scenes
Keep = Callable[[str, np.ndarray], None]


def jobs() -> Iterator[tuple[str, str]]:
    """Methods and networks in turns."""
    return ((method, network) for method in METHODS for network in CHECKPOINTS if ONLY.get(method, network) == network)


def called(method: str, network: str) -> str:
    """The name of a method on a network in result rows."""
    return f"{method}, {network}"


def require_models() -> None:
    """Refuse to begin without the transformer.

    Raises:
        SetupProblem: how to make it.
    """
    if not TRANSFORMER_FILE.is_file():
        raise SetupProblem(
            f"Missing: {TRANSFORMER_FILE}. Make it with: python stage.py train transformer transformer_export"
        )


# Method, and what it is compared with: on each network the competitor, and the other network.
PAIRS = (
    *(
        (called(method, network), called(RIVAL, network))
        for method, network in jobs()
        if method not in (RIVAL, "plain")
    ),
    *((called(method, TRANSFORMER), called(method, U_NET)) for method in METHODS if method not in ONLY),
)


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
        layouts: of each set, and prompts of each number of things; None for `LAYOUTS`.
        tuning: use the tuning set.
        keep: is given every picture that is painted, and its name.

    Raises:
        SetupProblem: the transformer's file is missing.
    """
    require_models()
    number, sets = layouts or LAYOUTS, (TUNING_SET,) if tuning else LAYOUT_SETS
    items = [(name, item) for name in sets for item in spread(load_set(name), number)]
    names = [called(*job) for job in jobs()]
    if not records.has_all((name, set_name, item.seed, 0) for set_name, item in items for name in names):
        for checkpoint in CHECKPOINTS.values():  # loading one is not part of the first picture's time
            painter.paint_prompt("warm-up", 0, checkpoint)
    with tqdm(total=len(items) * len(names), unit="picture") as bar:
        for set_name, item in items:
            for method, network in jobs():
                name = called(method, network)
                bar.set_description(f"{set_name} {name}")
                if (name, set_name, item.seed, 0) not in records:
                    painting = painter.paint(METHODS[method], item, 1, CHECKPOINTS[network])
                    painted = score(yardsticks, name, set_name, item, *painting)
                    with_features = large_enough(len(items) // len(sets))
                    records.add(layout_lines(yardsticks, painted, with_features=with_features))
                    keep(f"{set_name}_{item.seed}_{name.replace(', ', '_').replace(' ', '_')}", painting.pictures[0])
                bar.update()
    if large_enough(len(items) // len(sets)):
        for objects in {len(item.layout.regions) for _, item in items}:
            add_real_scenes(yardsticks, records, objects)
    compared = Compared((line for line in records if line.method in names), sets)
    present, ceilings = _presence(painter, yardsticks, records, number, keep)
    return {
        "provenance": [records.provenance],
        "rows": summary_rows(records, sets, names, by_tag=False) + present,
        "comparisons": compared.rows(PAIRS),
        "measures": gains(compared) + ceilings + word_map_measures(TRANSFORMER_FILE),
    }


def _presence(
    painter: Painter, yardsticks: Yardsticks, records: PictureRecords, number: int, keep: Keep
) -> tuple[list[dict], list[dict]]:
    """Plain prompts on the transformer beside real scenes: rows and measures."""
    method, measures = called("plain", TRANSFORMER), []
    for objects, share in PRESENCE.items():
        name, prompts = base.presence_set(objects), spread(load_presence(objects), number)
        for prompt in prompts:
            key = (method, name, prompt.seed, 0)
            if key not in records:
                (picture,), seconds, rows = painter.paint_prompt(prompt.prompt, prompt.seed, CHECKPOINTS[TRANSFORMER])
                given = {"with_features": large_enough(len(prompts)), "seconds": seconds, "evaluations": rows}
                records.add([base.presence_line(yardsticks, key, prompt, picture, **given)])
                keep(f"{name}_{prompt.seed}_{TRANSFORMER}", picture)
        base.add_ceiling(yardsticks, records, objects, len(prompts))
        if large_enough(len(prompts)):
            add_real_scenes(yardsticks, records, objects)
        of_set = [line for line in records if line.set_name == name]
        painted, real = ([line for line in of_set if line.method == each] for each in (method, base.REAL))
        of_real = quotient(painted, real, "presence")
        measures.append(of_real.measure(f"presence of {objects}, {TRANSFORMER}, of real scenes'", "", share))
    sets = [base.presence_set(objects) for objects in PRESENCE]
    return summary_rows(records, sets, (method, base.REAL), by_tag=False), measures


def gains(compared: Compared) -> list[dict]:
    """What the issue asks of methods on the transformer, all sets at once, a picture weighing the same."""
    measures = []
    for method, target in TARGETS.items():
        name = called(method, TRANSFORMER)
        above = compared.difference(name, called(RIVAL, TRANSFORMER), "ap50")
        if above.value is not None:
            measures.append(above.measure(f"AP@0.5 above set_mask's: {name}", "", target))
        words = compared.gain(name, called("plain", TRANSFORMER), "clip")
        if words.value is not None:
            measures.append(words.measure(f"CLIP against plain: {name}", "relative", CLIP_LOSS))
    return measures
