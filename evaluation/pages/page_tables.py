"""Rewrites the pages' tables from the result files: `python commands/launcher.py evaluation.pages.page_tables`.

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`; NAME is a key of `TABLES`. A plot stands between
`<!-- plot:NAME -->` and `<!-- /plot -->`; NAME is a key of `plots.PLOTS`. Below each stands the command that it comes
from, and a remark where the results are older than the code that they measure. The remark follows from git, so that it
is this command's alone: whoever else rewrites a page leaves remarks as they are.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...commands.environment import CLONE
from ..result_rows import RESULTS, read_results
from . import age
from .growth_pages import counts_table, growth_table
from .plots import PLOTS, picture_of
from .tables import (
    bench_table,
    comparisons_table,
    defaults_table,
    differences_by_set_table,
    headline_table,
    judges_table,
    measures_table,
    results_table,
    sweeps_table,
    told_table,
)
from .ways import ways_table

PAGES = (CLONE / "README.md", *(CLONE / "docs" / f"{name}.md" for name in ("measurements", "which-method")))
REMARK = re.compile(r"^From `[^`]*`\.(?: \*(.+)\*)?$", re.MULTILINE)
NOT_YET = "*Not measured yet.*"
MARKED = re.compile(r"(<!-- (table|plot):(\w+) -->\n)(.*?)(<!-- /\2 -->)", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        command: that its numbers come from.
        file: result file, without .json.
        draw: makes the table of its rows.
        key: of these rows in the file.
        by_tag: whether it shows the parts of sets, "objects_2/masks", instead of whole sets.
    """

    command: str
    file: str
    draw: Callable[[Sequence[dict]], str] = results_table
    key: str = "rows"
    by_tag: bool = False

    def text(self) -> str:
        """The table with the newest numbers; a sentence where there are none yet."""
        if not (RESULTS / f"{self.file}.json").is_file():
            return NOT_YET
        rows = read_results(RESULTS / f"{self.file}.json").get(self.key, [])
        return self.draw([row for row in rows if ("/" in row.get("set", "")) == self.by_tag])


TABLES = {
    "judges": Table("python stage.py evaluate judges", "judges", judges_table, "answers"),
    "layouts": Table("python stage.py evaluate", "layouts"),
    "layouts_by_tag": Table("python stage.py evaluate", "layouts", by_tag=True),
    "ablation": Table(PLOTS["ablation"].command, "ablation"),
    "sweeps": Table(PLOTS["sweeps"].command, "sweeps", sweeps_table),
    "sweeps_defaults": Table(PLOTS["sweeps"].command, "sweeps", defaults_table, "measures"),
    "sali": Table("python stage.py evaluate sali", "sali"),
    "layouts_told": Table("python stage.py evaluate", "layouts", told_table),
    "ablation_told": Table(PLOTS["ablation"].command, "ablation", told_table),
    "sali_told": Table("python stage.py evaluate sali", "sali", told_table),
    "layouts_differences": Table("python stage.py evaluate", "layouts", comparisons_table, "comparisons"),
    "headline": Table("python stage.py evaluate", "layouts", headline_table, "comparisons"),
    "ablation_differences": Table(PLOTS["ablation"].command, "ablation", comparisons_table, "comparisons"),
    "sali_differences": Table("python stage.py evaluate sali", "sali", comparisons_table, "comparisons"),
    "sali_gains": Table("python stage.py evaluate sali", "sali", measures_table, "measures"),
    "sali_sweeps": Table(PLOTS["sali_sweeps"].command, "sali_sweeps", sweeps_table),
    "presence": Table("python stage.py evaluate base", "base"),
    "measures": Table("python stage.py evaluate base", "base", measures_table, "measures"),
    "cnc": Table("python stage.py evaluate cnc", "cnc"),
    "cnc_measures": Table("python stage.py evaluate cnc", "cnc", measures_table, "measures"),
    "text2layer": Table("python stage.py evaluate text2layer", "text2layer"),
    "text2layer_measures": Table("python stage.py evaluate text2layer", "text2layer", measures_table, "measures"),
    "tcig": Table("python stage.py evaluate tcig", "tcig"),
    "tcig_measures": Table("python stage.py evaluate tcig", "tcig", measures_table, "measures"),
    "tcig_sweeps": Table(PLOTS["tcig_sweeps"].command, "tcig_sweeps", sweeps_table),
    "which_method": Table("python commands/launcher.py evaluation.which_method.main", "which_method", ways_table),
    "networks": Table("python stage.py evaluate networks", "networks"),
    "networks_differences": Table("python stage.py evaluate networks", "networks", comparisons_table, "comparisons"),
    "networks_measures": Table("python stage.py evaluate networks", "networks", measures_table, "measures"),
    "editing": Table("python stage.py evaluate editing", "editing"),
    "editing_differences": Table(
        "python stage.py evaluate editing", "editing", differences_by_set_table, "comparisons"
    ),
    "split": Table("python stage.py evaluate split", "split"),
    "split_differences": Table("python stage.py evaluate split", "split", comparisons_table, "comparisons"),
    "two_looks": Table("python stage.py evaluate two_looks", "two_looks"),
    "two_looks_differences": Table("python stage.py evaluate two_looks", "two_looks", comparisons_table, "comparisons"),
    "two_looks_measures": Table("python stage.py evaluate two_looks", "two_looks", measures_table, "measures"),
    "bench": Table("python stage.py bench", "bench", bench_table),
    "growth": Table(PLOTS["growth"].command, "growth", growth_table),
    "growth_counts": Table(PLOTS["growth"].command, "growth", counts_table),
}


def rewrite(text: str, folder: Path = CLONE, remark: Callable[[str], str] | None = None) -> str:
    """Put the newest numbers into every marked table of a text, and the marked plots where they belong.

    Args:
        text: of a page.
        folder: in which the page lies; links to plots start there.
        remark: on the age of a result file; None leaves the remarks that stand there.

    Raises:
        ValueError: a marker names a table or a plot that does not exist.
    """

    def replace(match: re.Match) -> str:
        start, kind, name, before, end = match.groups()
        known = TABLES if kind == "table" else PLOTS
        if name not in known:
            raise ValueError(f'there is no {kind} "{name}"; choose from {", ".join(known)}')
        if kind == "table":
            content, command, file = TABLES[name].text(), TABLES[name].command, TABLES[name].file
        else:
            content = f"![{PLOTS[name].text}]({Path(os.path.relpath(picture_of(name), folder)).as_posix()})"
            command, file = PLOTS[name].command, name
        said = remark(file) if remark else next((found[1] or "" for found in REMARK.finditer(before)), "")
        return f"{start}{content}\n\nFrom `{command}`.{f' *{said}*' if said else ''}\n{end}"

    return MARKED.sub(replace, text)


def rewrite_page(page: Path, remark: Callable[[str], str] | None = None) -> str:
    """The text of a page with the newest numbers, see `rewrite`."""
    return rewrite(page.read_text(encoding="utf-8"), page.parent, remark)


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite the pages; returns the exit status."""
    for page in PAGES:
        page.write_text(rewrite_page(page, cache(age.remark)), encoding="utf-8")
    return 0
