"""Rewrites the README's tables from the result files: `python commands/launcher.py evaluation.readme_tables`.

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`; NAME is a key of `TABLES`.
"""

import json
import re
from collections.abc import Callable, Sequence

from .cli import RESULTS
from .tables import bench_table, measures_table, results_table
from .yardsticks import ROOT

README = ROOT / "README.md"
MARKED = re.compile(r"(<!-- table:(\w+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL)


def _read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _layouts() -> str:
    return results_table([row for row in _read("layouts")["rows"] if "/" not in row["set"]])


def _layouts_by_tag() -> str:
    return results_table([row for row in _read("layouts")["rows"] if "/" in row["set"]])


def _presence() -> str:
    return results_table(_read("base")["rows"])


def _measures() -> str:
    return measures_table(_read("base")["measures"])


def _bench() -> str:
    return bench_table(_read("bench")["rows"])


# name -> (what draws the table, the command that its numbers come from)
TABLES: dict[str, tuple[Callable[[], str], str]] = {
    "layouts": (_layouts, "python stage.py evaluate"),
    "layouts_by_tag": (_layouts_by_tag, "python stage.py evaluate"),
    "presence": (_presence, "python stage.py evaluate base"),
    "measures": (_measures, "python stage.py evaluate base"),
    "bench": (_bench, "python stage.py bench"),
}


def rewrite(text: str) -> str:
    """Put the newest numbers into every marked table of a text.

    Raises:
        ValueError: a marker names a table that does not exist.
        FileNotFoundError: the results of a marked table are missing.
    """

    def replace(match: re.Match) -> str:
        start, name, _, end = match.groups()
        if name not in TABLES:
            raise ValueError(f'there is no table "{name}"; choose from {", ".join(TABLES)}')
        draw, command = TABLES[name]
        return f"{start}{draw()}\n\nFrom `{command}`.\n{end}"

    return MARKED.sub(replace, text)


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the README; returns the exit status."""
    README.write_text(rewrite(README.read_text(encoding="utf-8")), encoding="utf-8")
    return 0
