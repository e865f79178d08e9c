"""What `stage.py evaluate` is asked for."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import sweeps
from .compose_and_conquer import evaluate as cnc
from .editing.evaluate import EDITING
from .graphs import sali, soft
from .graphs.lrdiff import VARIANTS
from .graphs.methods import METHODS
from .judging.calibration import JUDGES
from .layouts import OURS, PERFECT, Group
from .result_rows import RESULTS
from .splitting.evaluate import SPLIT
from .tcig import evaluate as tcig
from .tcig.sweep import SWEEPS_FILE
from .text2layer import evaluate as text2layer
from .two_looks.evaluate import TWO_LOOKS
from .two_networks import evaluate as networks

BASE = "base"
ALL = "all"  # sweeps
OTHERS = "others"  # layout methods that make up no committed file
SALI = "sali"  # with all that it is compared with; as a sweep, all sweeps of start latents and guidance
APART = (
    cnc.CNC,
    *cnc.PARTS,
    text2layer.TEXT2LAYER,
    *text2layer.PARTS,
    tcig.TCIG_NAME,
    networks.NETWORKS,
    EDITING,
    SPLIT,
    TWO_LOOKS,
    JUDGES,
)  # with pictures of their own
CHOICES = (*METHODS, *VARIANTS, *sali.METHODS, *soft.METHODS, PERFECT, BASE, *APART)
USUAL = (*METHODS, PERFECT, BASE)  # what runs when nothing is named
ABLATED = (OURS, *VARIANTS)  # the rows of the ablation table: what is changed, and every change
TABLES = (  # the layout methods of each committed file
    Group("layouts", (*METHODS, PERFECT)),
    Group("ablation", ABLATED),
    Group("sali", sali.COMPARED),
)
RESUMING = (
    "A run keeps the scores of every picture beside its results (NAME.jsonl) as soon as it is judged. Stopped in any "
    "way and started again, it goes on where it was. If code that paints or judges, weights, versions or settings are "
    "others than those of the file, it paints nothing and says what differs; --anew then begins from nothing."
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; wrong ones end the process with a sentence."""
    parser = argparse.ArgumentParser(
        prog="stage.py evaluate",
        description="Every method on the same layouts and noise, in one run on one real ComfyUI server.",
        epilog=RESUMING,
    )
    known = f"{', '.join(CHOICES)}; {SALI} also paints {', '.join(sali.COMPARED)}; default: {', '.join(USUAL)}"
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=known)
    parser.add_argument("--ablation", action="store_true", help=f"also {', '.join(VARIANTS)}")
    parser.add_argument(
        "--layouts",
        type=int,
        metavar="N",
        help=f"layouts (or prompts) per set; default: all, of {networks.NETWORKS} {networks.LAYOUTS}, "
        f"of {tcig.TCIG_NAME} {tcig.LAYOUTS} over all sets",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="pictures per layout; default: 1")
    parser.add_argument("--tuning", action="store_true", help="use the tuning set, the only one to choose settings on")
    single = f"weights of the control that {cnc.CNC} is compared with; default: those in the training folder"
    parser.add_argument("--single", type=Path, metavar="FILE", help=single)
    fusers = f"averaged weights of a training part that {cnc.CNC} judges; default: the shipped file"
    parser.add_argument("--fusers", type=Path, metavar="FILE", help=fusers)
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="write here instead of evaluation/results")
    anew = "paint all pictures again, in the place of those whose scores a file keeps"
    parser.add_argument("--anew", action="store_true", help=anew)
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="also keep every painted picture in this folder"
    )
    known = ", ".join((ALL, SALI, *sweeps.SWEEPS))
    swept = f"instead, one setting at a time on the tuning set: {known}; may be repeated"
    parser.add_argument("--sweep", action="append", metavar="NAME", help=swept)
    options = parser.parse_args(argv)
    _check_names(parser, "method", options.methods, CHOICES)
    _check_names(parser, "sweep", options.sweep or (), (ALL, SALI, *sweeps.SWEEPS))
    if options.seeds < 1 or (options.layouts is not None and options.layouts < 1):
        parser.error("--layouts and --seeds must be 1 or more")
    if options.sweep and (options.methods or options.ablation or options.pictures):
        parser.error("--sweep has methods of its own and keeps no pictures: no METHOD, --ablation or --pictures")
    if options.json and options.json.suffix == ".jsonl":
        parser.error(
            "--json FILE cannot end in .jsonl: the scores of the single pictures are kept in a file of that name"
        )
    return options


def _check_names(parser: argparse.ArgumentParser, kind: str, names: Sequence[str], choices: Sequence[str]) -> None:
    unknown = [name for name in names if name not in choices]
    if unknown:
        parser.error(f"there is no {kind} {unknown[0]!r}; choose from {', '.join(choices)}")


def chosen_methods(options: argparse.Namespace) -> list[str]:
    """What a run without --sweep paints, in the order of `CHOICES`."""
    names = {*(options.methods or USUAL), *(ABLATED if options.ablation else ())}
    names |= set(sali.COMPARED if SALI in names else ())
    if options.tuning and not options.methods:
        names.discard(BASE)
    return [name for name in CHOICES if name in names]


def is_part(options: argparse.Namespace) -> bool:
    """Whether so little is painted that no committed file is written."""
    return options.layouts is not None or (options.tuning and not options.sweep)


def groups_of(methods: Sequence[str], options: argparse.Namespace) -> list[Group]:
    """The layout methods of a run, by the files that they are written to; what belongs to none is "others"."""
    chosen = tuple(name for name in methods if name != BASE and name not in APART)
    whole = [] if options.json or is_part(options) else [group for group in TABLES if set(group.methods) <= set(chosen)]
    rest = tuple(name for name in chosen if not any(name in group.methods for group in whole))
    return whole + ([Group(OTHERS, rest)] if rest else [])


def file_of(name: str, options: argparse.Namespace) -> Path | None:
    """Where results (of a group, a part of its own, sweeps) are written; None where they are only shown."""
    if options.json:
        return options.json
    if name == SWEEPS_FILE and options.layouts is None:  # the one that is made on the tuning set
        return RESULTS / f"{name}.json"
    other_fusers = name == cnc.CNC and options.fusers is not None
    return None if name == OTHERS or other_fusers or is_part(options) else RESULTS / f"{name}.json"


def sweeps_by_file(asked: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Names of the asked sweeps for each of the files that keep their rows."""
    files: dict[str, list[str]] = {}
    for name, sweep in sweeps.SWEEPS.items():
        if name in asked or ALL in asked or (SALI in asked and sweep.file == sweeps.SALI_FILE):
            files.setdefault(sweep.file, []).append(name)
    return {file: tuple(names) for file, names in files.items()}
