"""The repository's Python files, and what each of them imports, calls, defines and promises: what the house is made of.

Everything here reads a dict, path -> text, with paths as git writes them ("core/layout/text.py"), so that a test can
also try a rule on two lines that it makes up.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import NamedTuple, TypeAlias

from stagecraft.commands.environment import CLONE

Sources: TypeAlias = dict[str, str]
HOUSE = ("core", "nodes", "evaluation", "sticker_world")
PACK = (*HOUSE, "commands")
# ComfyUI's modules, as it puts them onto the path, and those of its parts that a node pack may meet.
HOSTS = frozenset(
    "comfy comfy_api comfy_api_nodes comfy_config comfy_execution comfy_extras folder_paths nodes server execution "
    "latent_preview node_helpers app api_server cuda_malloc".split()
)
HOST_ROOMS = frozenset({"comfy", "diffusers"})
# A name in an index: two spaces or more, then names with dots up to the end of the line or of its column.
PROMISED = re.compile(r"(?<=  )([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?=  |$)", re.MULTILINE)


class Import(NamedTuple):
    """One imported module.

    Attributes:
        path: of the file that imports.
        line: in that file.
        module: dotted, "core.layout.text"; of the pack where it is relative, "comfy.sd" where it is not.
        relative: whether it is written with leading dots.
        in_function: whether it waits until a function is called, or for a type checker.
    """

    path: str
    line: int
    module: str
    relative: bool
    in_function: bool


def repository() -> Sources:
    """Every Python file of the clone but those in folders that begin with a dot."""
    paths = (path.relative_to(CLONE) for path in CLONE.rglob("*.py"))
    seen = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    return {path.as_posix(): (CLONE / path).read_text(encoding="utf-8") for path in sorted(seen)}


@cache
def parse(text: str) -> ast.Module:
    """The syntax tree of a file; a rule after the other reads the same ones."""
    return ast.parse(text)


def below(sources: Sources, *folders: str) -> Sources:
    """The files of these folders and of all folders in them."""
    starts = tuple(f"{folder}/" for folder in folders)
    return {path: text for path, text in sources.items() if path.startswith(starts)}


def module_of(path: str) -> str:
    """The dotted name of a file; a folder's `__init__.py` has the folder's."""
    return ".".join(PurePosixPath(path).with_suffix("").parts).removesuffix(".__init__")


def imports(sources: Sources) -> Iterator[Import]:
    """Every import of every file; `from .folder import file` is an import of the file where there is one."""
    modules = {module_of(path) for path in sources}
    for path, text in sources.items():
        tree = parse(text)
        late = {id(node) for part in ast.walk(tree) if _waits(part) for node in ast.walk(part)}
        for node in ast.walk(tree):
            for module, relative in _named(node, path, modules):
                yield Import(path, node.lineno, module, relative, id(node) in late)


def _waits(node: ast.AST) -> bool:
    is_checked_only = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    return is_checked_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _named(node: ast.AST, path: str, modules: set[str]) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, False) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        folder = PurePosixPath(path).parts[: -node.level or None] if node.level else ()
        start = ".".join([*folder, *([node.module] if node.module else [])])
        inside = {f"{start}.{alias.name}" for alias in node.names} & modules
        yield from ((module, node.level > 0) for module in sorted(inside) or [start])


def folder_of(path: str) -> str:
    """The room that a file stands in, "core/layout"; a method's `comfy` is part of it, a file without one its own."""
    parts = PurePosixPath(path).parts
    return "/".join(parts[:2])


def circle(sources: Sources, node_of: dict[str, str]) -> list[str]:
    """Nodes that import each other in a circle, the first one once more at the end; empty where there is none.

    Args:
        sources: the files.
        node_of: by path, what counts as one node: the file itself, or its folder.
    """
    path_of = {module_of(path): path for path in sources}
    arrows: dict[str, set[str]] = {}
    for found in imports(sources):
        target = path_of.get(found.module) if found.relative else None
        if target is not None and node_of[found.path] != node_of[target]:
            arrows.setdefault(node_of[found.path], set()).add(node_of[target])
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def functions(sources: Sources) -> Iterator[tuple[str, ast.FunctionDef, int]]:
    """Every function: where, the function, and how many arguments it takes without self and cls."""
    for path, text in sources.items():
        for node in ast.walk(parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = [argument.arg for argument in given]
                yield f"{path}:{node.lineno} {node.name}", node, len(names) - (names[:1] in (["self"], ["cls"]))


def promised(text: str) -> list[str]:
    """The names in an index: in the docstring of a folder's `__init__.py`, what ends a line after two spaces."""
    return PROMISED.findall(ast.get_docstring(parse(text), clean=False) or "")


def definitions(text: str) -> set[str]:
    """What a file defines: functions, classes, "Class.method", and names that it assigns."""
    found = set()
    for node in parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}.{part.name}" for part in getattr(node, "body", ()) if hasattr(part, "name")}
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            names = (part for part in ast.walk(target) if isinstance(part, ast.Name)) if target else ()
            found |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return found
