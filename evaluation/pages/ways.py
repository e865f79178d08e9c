"""The table of docs/which-method.md."""

from collections.abc import Sequence

from ..result_rows import RESULTS, read_results
from ..sets.sets import LAYOUT_SETS
from ..two_networks.evaluate import CHECKPOINTS, NETWORKS, called
from ..which_method.ways import WAYS
from .tables import number, table

HEADINGS = ("method", "painted", "needs", "costs", "AP@0.5", "good for", "not for")
PICTURES = "../assets/which_method"
PLAIN = "plain"


def ways_table(rows: Sequence[dict]) -> str:
    """A line for each method that has rows: its pictures, its cost on both networks, how well it places things."""
    by_key = {(row["method"], row["network"]): row for row in rows}
    places = _places()
    cells = []
    for name, way in WAYS.items():
        costs = [_cost(by_key, name, network) for network in CHECKPOINTS if (name, network) in by_key]
        if not costs:
            continue
        scores = [number(places.get(called(way.method, network)), 2) for network in CHECKPOINTS]
        placed = " / ".join(scores) if way.method else "-"
        picture = f"![{name}]({PICTURES}/{name}.webp)"
        cells.append([way.nodes, picture, way.needs, " / ".join(costs), placed, way.good, way.bad])
    return table(HEADINGS, cells)


def _cost(by_key: dict[tuple[str, str], dict], name: str, network: str) -> str:
    """How many times the plain picture's: rows of the network where all is counted so, else time."""
    row, plain = by_key[name, network], by_key[PLAIN, network]
    if row["evaluations"] is None:
        return f"{row['seconds'] / plain['seconds']:.0f} x in time"
    return f"{row['evaluations'] / plain['evaluations']:.1f} x"


def _places() -> dict[str, float]:
    """AP@0.5 of each method on each network, over all sets of the evaluation; all sets count the same."""
    path = RESULTS / f"{NETWORKS}.json"
    rows = read_results(path)["rows"] if path.is_file() else []
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["set"] in LAYOUT_SETS and row["ap50"] is not None:
            found.setdefault(row["method"], []).append(row["ap50"])
    return {method: sum(values) / len(values) for method, values in found.items()}
