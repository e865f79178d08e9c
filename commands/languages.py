"""`python stage.py languages`: what of the translations in locales/ is missing, left over or older than its English.

The English of the nodes stands in their schemas, that of the canvas in web/. ComfyUI serves locales/<language>/*.json,
and its front end reads them: nodeDefs.json by node, main.json with the categories of the menu and, under our own
name, the texts of the canvas by their English. locales/sources.json keeps the English that the translations of nodes
were made from, so that one whose English has changed since is found.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from .environment import CLONE, current_environment
from .messages import say

Tree: TypeAlias = "dict[str, str | Tree]"
Texts: TypeAlias = dict[str, str]

LOCALES = CLONE / "locales"
SOURCES = LOCALES / "sources.json"
WEB = CLONE / "web"
LANGUAGES = ("zh", "ja", "ko")
# Names of papers, of their parts and of this pack, which are the same in every language.
PROPER_NAMES = frozenset({"CLIP", "Stagecraft", "TCIG", "compose and conquer", "text2layer"})
_PLACEHOLDER = re.compile(r"\{\w+\}")
_STRING = r'"(?:[^"\\]|\\.)*"'
# t("a text") and mark("a text"), also one that goes on over several lines.
_SHOWN = re.compile(rf"\b(?:t|mark)\(\s*({_STRING}(?:\s*\+\s*{_STRING})*)")
# The front end reads these in messages: | parts plural forms, @ links to another message.
_SYNTAX = ("|", "@")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Add the options to a parser and read them."""
    parser.add_argument(
        "--translated",
        action="store_true",
        help="note in locales/sources.json that every language now says what the English says",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print what is wrong with the translations, one line for each text.

    Args:
        arguments: the command's options.

    Returns:
        0 where nothing is wrong, otherwise 1.

    Raises:
        SetupProblem: there is no ComfyUI to read the nodes' texts with.
    """
    options = parse(argparse.ArgumentParser(prog="stage.py languages"), arguments)
    from ..core.comfy.library import use_comfyui

    use_comfyui(current_environment().comfyui)
    english = english_of_nodes()
    if options.translated:
        write(SOURCES, english)
    found = changed(flat(english), flat(read(SOURCES)))
    for language in LANGUAGES:
        found += problems(language, english_texts(english), translations(language))
    for line in found:
        say(line)
    say(f"{len(found)} texts to mend" if found else "every text is in every language")
    return 1 if found else 0


def read(file: Path) -> Tree:
    """The tree of texts in a JSON file, {} where there is none."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def write(file: Path, tree: Tree) -> None:
    """Keep a tree of texts as JSON that a person can read and git can compare."""
    file.write_text(json.dumps(tree, ensure_ascii=False, indent=2) + "\n", encoding="utf-8", newline="\n")


def flat(tree: Tree, parents: tuple[str, ...] = ()) -> Texts:
    """Each text of a tree by its path, "StageLayout.inputs.layout.tooltip"."""
    texts: Texts = {}
    for name, value in tree.items():
        path = (*parents, name)
        texts |= {".".join(path): value} if isinstance(value, str) else flat(value, path)
    return texts


def english_of_nodes() -> Tree:
    """All that a person reads on the nodes, in the form of nodeDefs.json; needs ComfyUI on the path.

    Names of inputs are left out: help pages, workflows and prompts by the API call them so in every language.
    """
    from ..nodes import NODES

    tree: Tree = {}
    for node in sorted(NODES, key=lambda each: each.__name__):
        schema = node.GET_SCHEMA()
        inputs: Tree = {each.id: {"tooltip": each.tooltip} for each in schema.inputs}
        outputs: Tree = {
            str(at): {"name": each.display_name, "tooltip": each.tooltip} for at, each in enumerate(schema.outputs)
        }
        words = {"display_name": schema.display_name, "description": schema.description}
        tree[schema.node_id] = {**words, "inputs": inputs, "outputs": outputs}
    return tree


def english_of_menu() -> list[str]:
    """The names that stand in the menu of nodes, each level by itself; needs ComfyUI on the path."""
    from ..nodes import NODES

    return sorted({name for node in NODES for name in node.GET_SCHEMA().category.split("/")})


def texts_of(code: str) -> list[str]:
    """The texts that a JavaScript file shows: what stands in t("…") and mark("…")."""
    found = _SHOWN.findall(code)
    return ["".join(json.loads(part) for part in re.findall(_STRING, text)) for text in found]


def english_of_canvas(web: Path = WEB) -> list[str]:
    """The texts of the layout canvas, sorted, each once."""
    files = sorted(web.rglob("*.js"))
    return sorted({text for file in files for text in texts_of(file.read_text(encoding="utf-8"))})


def english_texts(nodes: Tree) -> Texts:
    """All texts by their paths in the two files of a language: nodes, menu and canvas.

    Args:
        nodes: what `english_of_nodes` gives.
    """
    return {
        **_below("nodeDefs", flat(nodes)),
        **_below("main.nodeCategories", {name: name for name in english_of_menu()}),
        **canvas_texts(),
    }


def canvas_texts() -> Texts:
    """The canvas' English by its path in main.json."""
    return _below("main.stagecraft.layoutCanvas", {text: text for text in english_of_canvas()})


def translations(language: str) -> Texts:
    """What a language says, by the same paths."""
    folder = LOCALES / language
    return {
        **_below("nodeDefs", flat(read(folder / "nodeDefs.json"))),
        **_below("main", flat(read(folder / "main.json"))),
    }


def _below(name: str, texts: Mapping[str, str]) -> Texts:
    return {f"{name}.{path}": text for path, text in texts.items()}


def changed(english: Texts, translated: Texts) -> list[str]:
    """Texts of nodes whose English is another one than that which was translated.

    Args:
        english: what the nodes say now, by path.
        translated: what locales/sources.json says.

    Returns:
        One line for each, with the English to translate.
    """
    return [
        f"{path}: the English has changed since it was translated: {text}"
        for path, text in english.items()
        if path in translated and translated[path] != text
    ] + [f"sources.json: {path} is left over or missing" for path in sorted(english.keys() ^ translated.keys())]


def problems(language: str, english: Texts, translated: Texts) -> list[str]:
    """What is wrong with one language, a line for each text.

    Args:
        language: its name, for the lines.
        english: all English texts by path.
        translated: the language's, by the same paths.
    """
    missing = [f"{language} {path} is missing: {english[path]}" for path in english if path not in translated]
    extra = [f"{language} {path} is left over: there is no such text" for path in translated if path not in english]
    both = [path for path in english if path in translated]
    wrong = (
        f"{language} {path} {fault}: {english[path]}" for path in both for fault in _faults(english, translated, path)
    )
    return missing + extra + list(wrong)


def _faults(english: Texts, translated: Texts, path: str) -> Iterator[str]:
    source, text = english[path], translated[path]
    if not text.strip():
        yield "is empty"
    if text == source and source not in PROPER_NAMES:
        yield "is still English"
    kept, lost = _placeholders(text), _placeholders(source)
    if kept != lost:
        yield f"has the placeholders {kept}, expected {lost}"
    # The canvas' own texts never go through the front end.
    if path.startswith("nodeDefs.") and (found := _syntax_in(text)):
        yield f"has {found}, which ComfyUI's front end reads as its own syntax; say it in words"


def _placeholders(text: str) -> list[str]:
    return sorted(set(_PLACEHOLDER.findall(text)))


def _syntax_in(text: str) -> str:
    bare = _PLACEHOLDER.sub("", text)
    return " ".join(sign for sign in (*_SYNTAX, "{", "}") if sign in bare)
