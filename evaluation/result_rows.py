"""Result files: JSON with one row per line, so that a change shows as a change of that row."""

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def read_results(path: Path) -> dict[str, list[dict]]:
    """Read a result file.

    Raises:
        FileNotFoundError: there is none.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def write_results(path: Path, content: dict[str, list[dict]]) -> None:
    """Write results; numbers have to be finite.

    Raises:
        ValueError: a number that JSON does not know.
    """
    lists = []
    for key, rows in content.items():
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
        lists.append(f'"{key}": [\n{lines}\n]')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{" + ",\n".join(lists) + "}\n", encoding="utf-8")
