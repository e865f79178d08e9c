"""Every way of placing things on both embedded networks: `python stage.py evaluate networks`.

All methods have the settings that were chosen for the U-Net, but for the transformer's own `hard_until`; the same
layouts and noise, and the number of rows that the network evaluates for a picture.
"""

from collections.abc import Callable, Iterator, Sequence
from statistics import mean

import numpy as np
from tqdm import tqdm

from ...commands.messages import SetupProblem
from ...sticker_world.shipped import CHECKPOINT_FILE, TRANSFORMER_FILE
from .. import base_family as base
from ..graphs.builder import Graph, Method
from ..graphs.methods import METHODS as PLACED
from ..graphs.plain import plain_prompt
from ..graphs.sali import BOTH, GUIDED
from ..graphs.sali import METHODS as SALI
from ..graphs.soft import Soft
from ..judging.scoring import Painted, layout_rows, score, spread
from ..judging.yardsticks import Yardsticks
from ..painter import Painter, pictures_of
from ..result_rows import measure
from ..sets.sets import LAYOUT_SETS, TUNING_SET, load_presence, load_set
from .counted import COUNTED, counted
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


def evaluate(
    painter: Painter, yardsticks: Yardsticks, *, layouts: int | None, tuning: bool, keep: Keep
) -> dict[str, list[dict]]:
    """Paint and judge.

    Args:
        painter: of a server with `baselines`.
        yardsticks: the judges.
        layouts: of each set, and prompts of each number of things; None for `LAYOUTS`.
        tuning: use the tuning set.
        keep: is given every picture and its name.

    Raises:
        SetupProblem: the transformer's file is missing.
    """
    if not TRANSFORMER_FILE.is_file():
        raise SetupProblem(
            f"Missing: {TRANSFORMER_FILE}. Make it with: python stage.py train transformer transformer_export"
        )
    number, sets = layouts or LAYOUTS, (TUNING_SET,) if tuning else LAYOUT_SETS
    items = [(name, item) for name in sets for item in spread(load_set(name), number)]
    painted: list[Painted] = []
    rows_of: dict[str, list[int]] = {}
    for checkpoint in CHECKPOINTS.values():  # loading one is not part of the first picture's time
        _paint(painter, plain_prompt("warm-up", 0, 1), checkpoint)
    with tqdm(total=len(items) * len(list(jobs())), unit="picture") as bar:
        for set_name, item in items:
            for method, network in jobs():
                name = called(method, network)
                bar.set_description(f"{set_name} {name}")
                graph = METHODS[method](item.layout, item.seed, 1, painter.masks(item))
                pictures, seconds, evaluated = _paint(painter, graph, CHECKPOINTS[network])
                painted += score(yardsticks, name, set_name, item, pictures, seconds)
                rows_of.setdefault(name, []).append(evaluated)
                keep(f"{set_name}_{item.seed}_{name.replace(', ', '_').replace(' ', '_')}", pictures[0])
                bar.update()
    names = [called(*job) for job in jobs()]
    rows = [row for row in layout_rows(yardsticks, painted, sets, names) if "/" not in row["set"]]
    measures = [measure(f"rows evaluated for a picture: {name}", mean(rows_of[name]), "rows") for name in names]
    present, ceilings = _presence(painter, yardsticks, number, keep)
    return {
        "rows": rows + present,
        "measures": gains(rows) + ceilings + word_map_measures(TRANSFORMER_FILE) + measures,
    }


def _paint(painter: Painter, graph: Graph, checkpoint: str) -> tuple[list[np.ndarray], float, int]:
    result = painter.run(counted(graph, checkpoint))
    return pictures_of(result), result.seconds, int(result.outputs[COUNTED]["text"][0])


def _presence(painter: Painter, yardsticks: Yardsticks, number: int, keep: Keep) -> tuple[list[dict], list[dict]]:
    """Plain prompts on the transformer beside real scenes."""
    rows, measures = [], []
    for objects, share in PRESENCE.items():
        prompts, pictures, seconds = spread(load_presence(objects), number), [], []
        for prompt in prompts:
            (picture,), duration, _ = _paint(
                painter, plain_prompt(prompt.prompt, prompt.seed, 1), CHECKPOINTS[TRANSFORMER]
            )
            pictures.append(picture)
            seconds.append(duration)
            keep(f"{base.presence_set(objects)}_{prompt.seed}_{TRANSFORMER}", picture)
        texts, concepts = [each.prompt for each in prompts], [each.concepts for each in prompts]
        painted = base.presence_row(yardsticks, called("plain", TRANSFORMER), pictures, texts, concepts, seconds)
        ceiling = base.ceiling_row(yardsticks, objects, len(prompts))
        rows += [painted, ceiling]
        of_real = painted["presence"] / ceiling["presence"] if ceiling["presence"] else None
        measures.append(measure(f"presence of {objects}, {TRANSFORMER}, of real scenes'", of_real, "", share))
    return rows, measures


def gains(rows: Sequence[dict]) -> list[dict]:
    """What the issue asks of methods on the transformer, all sets at once, a picture weighing the same."""

    def average(method: str, key: str) -> float | None:
        known = [row for row in rows if row["method"] == called(method, TRANSFORMER) and row[key] is not None]
        pictures = sum(row["pictures"] for row in known)
        return sum(row[key] * row["pictures"] for row in known) / pictures if pictures else None

    measures = []
    before, plain = average("set_mask", "ap50"), average("plain", "clip")
    for method, target in TARGETS.items():
        found, words = average(method, "ap50"), average(method, "clip")
        if found is not None and before is not None:
            name = f"AP@0.5 above set_mask's: {called(method, TRANSFORMER)}"
            measures.append(measure(name, found - before, "", target))
        if words is not None and plain:
            name = f"CLIP against plain: {called(method, TRANSFORMER)}"
            measures.append(measure(name, words / plain - 1, "relative", CLIP_LOSS))
    return measures
