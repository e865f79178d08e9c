"""`python stage.py demo`: every shipped workflow through a real ComfyUI, its pictures, a contact sheet and a table."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .comfy_api import PromptFailed, PromptRejected, Result
from .comfy_server import ComfyServer
from .environment import CLONE, current_environment
from .messages import SetupProblem, say
from .workflow import to_api
from .workflow_graph import WorkflowError

WORKFLOWS = CLONE / "workflows"
OUTPUT = "stage_output"
CONTACT_SHEET = "contact_sheet.png"
_SCORE_NODE = "StageLayoutScore"


@dataclass
class Outcome:
    """What became of one workflow.

    Attributes:
        name: the file's name without .json.
        pictures: the saved pictures.
        seconds: time of execution at the server.
        score: what the workflow's layout score says, empty without one.
        problem: why it failed, empty where it worked.
    """

    name: str
    pictures: list[Path] = field(default_factory=list)
    seconds: float = 0.0
    score: str = ""
    problem: str = ""

    def line(self) -> str:
        """Tell it in one line."""
        if self.problem:
            return f"{self.name}: FAILED: {self.problem}"
        count = f"{len(self.pictures)} picture" + ("" if len(self.pictures) == 1 else "s")
        return f"{self.name}: {count} in {self.seconds:.1f} s" + (f", {self.score}" if self.score else "")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Add the demo's options to a parser and read them."""
    parser.add_argument("--output", metavar="FOLDER", default=OUTPUT, help="where the pictures go (%(default)s)")
    parser.add_argument(
        "--thumbnails",
        action="store_true",
        help="also renew the picture that the template browser shows of each workflow",
    )
    parser.add_argument("--only", metavar="NAME", action="append", help="run this workflow only; may be repeated")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the demo.

    Args:
        arguments: the demo's options.

    Returns:
        0 where every workflow worked, otherwise 1.

    Raises:
        SetupProblem: there is no such workflow, or ComfyUI does not start.
    """
    # These come with the environment, but the parser above is also used before there is one.
    from tqdm import tqdm

    from .contact_sheet import contact_sheet

    options = parse(argparse.ArgumentParser(prog="stage.py demo"), arguments)
    files = choose_workflows(WORKFLOWS, options.only)
    output = Path(options.output).expanduser().absolute()
    output.mkdir(parents=True, exist_ok=True)
    say("starting ComfyUI, about 10 seconds")
    outcomes = []
    with ComfyServer(current_environment(), CLONE) as server:
        object_info = server.object_info()
        for path in tqdm(files, desc="workflows", unit="workflow", dynamic_ncols=True, disable=None):
            outcomes.append(run_workflow(server, object_info, path, output, options.thumbnails))
            tqdm.write(outcomes[-1].line())
    captioned = [
        (picture, f"{outcome.name}, {outcome.seconds:.1f} s") for outcome in outcomes for picture in outcome.pictures
    ]
    say("\n" + table(outcomes))
    if captioned:
        contact_sheet(captioned).save(output / CONTACT_SHEET)
        say(f"\nThe pictures are in {output}; {CONTACT_SHEET} shows them all.")
    return int(any(outcome.problem for outcome in outcomes))


def choose_workflows(folder: Path, names: Sequence[str] | None) -> list[Path]:
    """List the workflow files to run.

    Args:
        folder: where they lie.
        names: file names with or without .json; None takes all.

    Raises:
        SetupProblem: there is none, or none of that name.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.json"))}
    if not files:
        raise SetupProblem(f"There is no workflow in {folder}.")
    wanted = [name.removesuffix(".json") for name in names or files]
    unknown = [name for name in wanted if name not in files]
    if unknown:
        raise SetupProblem(f"There is no workflow {unknown[0]!r}; there are {', '.join(files)}.")
    return [files[name] for name in wanted]


def run_workflow(
    server: ComfyServer, object_info: dict[str, Any], path: Path, output: Path, thumbnails: bool = False
) -> Outcome:
    """Queue one workflow file and save its pictures.

    Args:
        server: a running ComfyUI.
        object_info: its nodes.
        path: the workflow, in the editor's format.
        output: the folder for the pictures.
        thumbnails: whether to write the pictures that it saves, tiled, beside the workflow as .jpg.
    """
    outcome = Outcome(path.stem)
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
        prompt = to_api(workflow, object_info)
        result = server.run(prompt, timeout=1800.0, workflow=workflow)
    except (WorkflowError, PromptRejected, PromptFailed, ValueError) as error:
        outcome.problem = str(error)
        return outcome
    outcome.seconds = result.seconds
    outcome.score = score_text(prompt, result)
    outcome.pictures = save_pictures(prompt, result, path.stem, output)
    if not outcome.pictures:
        outcome.problem = "it saved no picture"
    elif thumbnails:
        from .contact_sheet import tiled

        saved = [picture for node, some in result.images.items() for picture in some if _saves(prompt[node])]
        tiled(saved).save(path.with_suffix(".jpg"), quality=88)
    return outcome


def _saves(node: dict[str, Any]) -> bool:
    return node["class_type"] == "SaveImage"


def save_pictures(prompt: dict[str, Any], result: Result, name: str, output: Path) -> list[Path]:
    """Write all pictures of a result as <workflow>_<node's title>_<number>.png."""
    paths = []
    for node_id, pictures in result.images.items():
        title = re.sub(r"\W+", "_", prompt[node_id]["_meta"]["title"]).strip("_").lower()
        for picture in pictures:
            paths.append(output / f"{name}_{title}_{len(paths) + 1}.png")
            paths[-1].write_bytes(picture)
    return paths


def score_text(prompt: dict[str, Any], result: Result) -> str:
    """Give the first line of what the workflow's layout score node shows, empty without one."""
    for node_id, node in prompt.items():
        text = result.outputs.get(node_id, {}).get("text")
        if node["class_type"] == _SCORE_NODE and text:
            return str(text[0]).strip().splitlines()[0]
    return ""


def table(outcomes: Iterable[Outcome]) -> str:
    """Write the outcomes as a table for a terminal."""
    rows = [("workflow", "pictures", "seconds", "layout score", "result")]
    for outcome in outcomes:
        result = "FAILED" if outcome.problem else "ok"
        rows.append((outcome.name, str(len(outcome.pictures)), f"{outcome.seconds:.1f}", outcome.score or "-", result))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
