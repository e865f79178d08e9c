"""What a result of a fuzzed prompt means: finished, refused, a clear error, ComfyUI's own, or a raw one.

An error is *clear* where the pack meant it: the last frame of its traceback is a `raise` statement in a file of the
pack, its type is ValueError, one of the pack's own classes or a missing file or package, and its message is a sentence.
Whatever else ends below a node of the pack is *raw*: a KeyError, a shape error from inside torch, a ValueError that
`int()` raised, an exception that ComfyUI raised because of what the pack handed it, one in a node's validation, NaN in
an output, a traceback in the log of a run that ended well, no answer at all. An error of a node of ComfyUI's with
nothing of the pack before it is *foreign*.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from ..comfy_api import PromptFailed, PromptRejected, Result

Graph: TypeAlias = dict[str, dict]

FINISHED, REFUSED, CLEAR, FOREIGN, RAW = "finished", "refused", "clear error", "foreign error", "raw error"
PREFIX = "Stage"  # of the pack's node ids
PROBE = "FuzzProbe"
_MEANT = {"ValueError", "FileNotFoundError", "ImportError"}
_IN_PACK = re.compile(r"custom_nodes[/\\]stagecraft[/\\]")
_TRACEBACK = "Traceback (most recent call last)"
# A number, a key or a name is no sentence; neither is one of C++ with its addresses.
_LEAST_WORDS = 5
_CUT = 600


@dataclass(frozen=True)
class Outcome:
    """What became of one prompt.

    Attributes:
        kind: one of the five.
        node: class of the node that it happened in, empty where nothing happened.
        type: of the exception.
        message: what the user reads.
        where: the last frame of the traceback, as "core/layout/text.py 46".
    """

    kind: str
    node: str = ""
    type: str = ""
    message: str = ""
    where: str = ""

    def to_dict(self) -> dict[str, str]:
        """As JSON takes it."""
        return asdict(self)

    def line(self) -> str:
        """Tell it in one line."""
        # A lone half of a pair of surrogates, which a prompt may hold, cannot be printed.
        text = " ".join(self.message.split())[:_CUT].encode("utf-8", "backslashreplace").decode()
        return f"{self.kind}: {self.node}: {self.type}: {text}" + (f" ({self.where})" if self.where else "")


def is_clear(kind: str, message: str, frames: Sequence[str]) -> bool:
    """Tell whether an exception is one of the pack's own sentences.

    Args:
        kind: full name of its type; classes of the pack have the pack's module in it.
        message: its text.
        frames: of the traceback as `traceback.format_tb` writes them, the raising one last.
    """
    if not frames or not _IN_PACK.search(frames[-1]):
        return False
    statement = frames[-1].splitlines()[1:]
    if not statement or not statement[0].strip().startswith("raise "):
        return False
    return (kind in _MEANT or "stagecraft." in kind) and len(message.split()) >= _LEAST_WORDS


def place(frames: Sequence[str]) -> str:
    """The pack's innermost frame, and ComfyUI's or a library's where it was raised there, for a person to look at."""
    ours = [frame for frame in frames if _IN_PACK.search(frame)]
    texts = []
    for frame in ours[-1:] + ([frames[-1]] if frames and (not ours or frames[-1] != ours[-1]) else []):
        found = re.search(r'File "(.+?)", line (\d+)', frame)
        if found:
            parts = re.split(_IN_PACK, found[1])[-1].replace("\\", "/").split("/")
            texts.append(f"{'/'.join(parts[-4:])} {found[2]}")
    return ", ".join(texts)


def has_pack_before(graph: Graph, node_id: str) -> bool:
    """Tell whether a node is one of the pack's, or gets something from one."""
    waiting, seen = [node_id], set()
    while waiting:
        node = waiting.pop()
        if node in seen or node not in graph:
            continue
        seen.add(node)
        if graph[node]["class_type"].startswith(PREFIX):
            return True
        waiting += [value[0] for value in graph[node]["inputs"].values() if is_link(value)]
    return False


def is_link(value: object) -> bool:
    """Tell a link [node id, slot] from a value."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def of_failure(graph: Graph, failure: PromptFailed) -> Outcome:
    """Classify a prompt that ended in an exception."""
    node_id = failure.node_id or ""
    node = graph[node_id]["class_type"] if node_id in graph else ""
    kind = CLEAR if is_clear(failure.exception_type, failure.message, failure.frames) else RAW
    touched = any(_IN_PACK.search(frame) for frame in failure.frames)
    if kind == RAW and node_id and not touched and not has_pack_before(graph, node_id):
        kind = FOREIGN
    return Outcome(kind, node, failure.exception_type or "no answer", failure.message, place(failure.frames))


def of_rejection(graph: Graph, rejection: PromptRejected) -> Outcome:
    """Classify a prompt that ComfyUI did not start; an exception within a validation is raw."""
    for node_id, node in rejection.node_errors.items():
        for error in node["errors"]:
            if not error["type"].startswith("exception_during"):
                continue
            about = error.get("extra_info") or {}
            frames = about.get("traceback") or []
            foreign = not any(map(_IN_PACK.search, frames)) and not has_pack_before(graph, node_id)
            kind = FOREIGN if foreign else RAW
            return Outcome(kind, node["class_type"], about.get("exception_type", ""), error["details"], place(frames))
    if not rejection.node_errors:
        return Outcome(RAW, "", "no node named", str(rejection))
    node = next(iter(rejection.node_errors.values()))
    return Outcome(REFUSED, node["class_type"], "", str(rejection))


def of_result(graph: Graph, result: Result, log: str) -> Outcome:
    """Classify a prompt that reached its end: finite everywhere, and no traceback in the log."""
    for node_id, seen in probed(graph, result).items():
        source = graph[node_id]["inputs"]["value"][0]
        if not seen["finite"]:
            kind = RAW if has_pack_before(graph, source) else FOREIGN
            shapes = f"output {graph[node_id]['inputs']['value'][1]} of shapes {seen['shapes']} is not finite"
            return Outcome(kind, graph[source]["class_type"], "NaN", shapes)
    if _TRACEBACK in log:
        return Outcome(RAW, "", "traceback in the log", log[log.index(_TRACEBACK) :][-_CUT:])
    return Outcome(FINISHED)


def probed(graph: Graph, result: Result) -> dict[str, dict]:
    """What the probes of a graph saw: {node id: {"finite", "tensors", "shapes", "digest"}}, item by item of a list."""
    seen = {}
    for node_id, shown in result.outputs.items():
        if graph.get(node_id, {}).get("class_type") == PROBE:
            items: list[Mapping] = [json.loads(text) for text in shown["text"]]
            seen[node_id] = {
                "finite": all(item["finite"] for item in items),
                "shapes": [shape for item in items for shape in item["shapes"]],
                "digest": "/".join(item["digest"] for item in items),
            }
    return seen
