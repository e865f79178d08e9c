"""Rewrites the pages' tables from the result files: `python commands/launcher.py evaluation.page_tables`.

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`; NAME is a key of `TABLES`. A plot stands between
`<!-- plot:NAME -->` and `<!-- /plot -->`; NAME is a key of `plots.PLOTS`.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from .files import RESULTS, read_results
from .plots import PLOTS, picture_of
from .tables import bench_table, measures_table, results_table, sweeps_table
from .yardsticks import ROOT

PAGES = (ROOT / "README.md", ROOT / "docs" / "measurements.md")
MARKED = re.compile(r"(<!-- (table|plot):(\w+) -->\n)(.*?)(<!-- /\2 -->)", re.DOTALL)


def _read(name: str) -> dict:
    return read_results(RESULTS / f"{name}.json")


def _layouts() -> str:
    return results_table([row for row in _read("layouts")["rows"] if "/" not in row["set"]])


def _layouts_by_tag() -> str:
    return results_table([row for row in _read("layouts")["rows"] if "/" in row["set"]])


def _ablation() -> str:
    return results_table([row for row in _read("ablation")["rows"] if "/" not in row["set"]])


def _sweeps() -> str:
    return sweeps_table(_read("sweeps")["rows"])


def _sali() -> str:
    return results_table([row for row in _read("sali")["rows"] if "/" not in row["set"]])


def _sali_gains() -> str:
    return measures_table(_read("sali")["measures"])


def _sali_sweeps() -> str:
    return sweeps_table(_read("sali_sweeps")["rows"])


def _presence() -> str:
    return results_table(_read("base")["rows"])


def _measures() -> str:
    return measures_table(_read("base")["measures"])


def _cnc() -> str:
    return results_table(_read("cnc")["rows"])


def _cnc_measures() -> str:
    return measures_table(_read("cnc")["measures"])


def _tcig() -> str:
    return results_table(_read("tcig")["rows"])


def _tcig_measures() -> str:
    return measures_table(_read("tcig")["measures"])


def _tcig_sweeps() -> str:
    return sweeps_table(_read("tcig_sweeps")["rows"])


def _bench() -> str:
    return bench_table(_read("bench")["rows"])


# name -> (what draws the table, the command that its numbers come from)
TABLES: dict[str, tuple[Callable[[], str], str]] = {
    "layouts": (_layouts, "python stage.py evaluate"),
    "layouts_by_tag": (_layouts_by_tag, "python stage.py evaluate"),
    "ablation": (_ablation, PLOTS["ablation"].command),
    "sweeps": (_sweeps, PLOTS["sweeps"].command),
    "sali": (_sali, "python stage.py evaluate sali"),
    "sali_gains": (_sali_gains, "python stage.py evaluate sali"),
    "sali_sweeps": (_sali_sweeps, PLOTS["sali_sweeps"].command),
    "presence": (_presence, "python stage.py evaluate base"),
    "measures": (_measures, "python stage.py evaluate base"),
    "cnc": (_cnc, "python stage.py evaluate cnc"),
    "cnc_measures": (_cnc_measures, "python stage.py evaluate cnc"),
    "tcig": (_tcig, "python stage.py evaluate tcig"),
    "tcig_measures": (_tcig_measures, "python stage.py evaluate tcig"),
    "tcig_sweeps": (_tcig_sweeps, PLOTS["tcig_sweeps"].command),
    "bench": (_bench, "python stage.py bench"),
}


def rewrite(text: str, folder: Path = ROOT) -> str:
    """Put the newest numbers into every marked table of a text, and the marked plots where they belong.

    Args:
        text: of a page.
        folder: in which the page lies; links to plots start there.

    Raises:
        ValueError: a marker names a table or a plot that does not exist.
        FileNotFoundError: the results of a marked table are missing.
    """

    def replace(match: re.Match) -> str:
        start, kind, name, _, end = match.groups()
        known = TABLES if kind == "table" else PLOTS
        if name not in known:
            raise ValueError(f'there is no {kind} "{name}"; choose from {", ".join(known)}')
        if kind == "table":
            draw, command = TABLES[name]
            content = draw()
        else:
            content = f"![{PLOTS[name].text}]({Path(os.path.relpath(picture_of(name), folder)).as_posix()})"
            command = PLOTS[name].command
        return f"{start}{content}\n\nFrom `{command}`.\n{end}"

    return MARKED.sub(replace, text)


def rewrite_page(page: Path) -> str:
    """The text of a page with the newest numbers, see `rewrite`."""
    return rewrite(page.read_text(encoding="utf-8"), page.parent)


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the pages; returns the exit status."""
    for page in PAGES:
        page.write_text(rewrite_page(page), encoding="utf-8")
    return 0
