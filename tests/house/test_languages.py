"""Every text of the canvas and of the nodes is in every language, as far as that can be seen without ComfyUI.

That locales/sources.json is what the nodes say now is tested in tests/comfy/test_languages.py.
"""

import re

import pytest
from stagecraft.commands.languages import (
    LANGUAGES,
    LOCALES,
    SOURCES,
    WEB,
    canvas_texts,
    changed,
    english_of_canvas,
    flat,
    problems,
    read,
    texts_of,
    translations,
)

STRING = re.compile(r"""(["'`])((?:(?!\1)[^\\\n]|\\.)*)\1""")
# A text that a person reads: words with a space between them.
SENTENCE = re.compile(r"[A-Za-z]{2,} [A-Za-z]{2,}")
# What has a space and is nobody's text: classes of elements, keys, code in an address, and words for the console.
NO_TEXT = re.compile(r"stage-|px |^arrows |^Page Up|^/|^the |^there ")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_canvas_and_the_nodes_are_translated(language):
    english = {f"nodeDefs.{path}": text for path, text in flat(read(SOURCES)).items()} | canvas_texts()
    said = {path: text for path, text in translations(language).items() if not path.startswith("main.nodeCategories.")}
    found = problems(language, english, said)
    assert not found, "\n".join(found)


def test_there_is_no_other_language():
    assert sorted(each.name for each in LOCALES.iterdir() if each.is_dir()) == sorted(LANGUAGES)


def test_no_text_of_the_canvas_is_written_past_the_translations():
    shown = set(english_of_canvas())
    found = []
    for file in sorted(WEB.rglob("*.js")):
        code = re.sub(r"^\s*(//|/?\*).*$| // .*$", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        code = re.sub(r'\b(?:t|mark)\(\s*"(?:[^"\\]|\\.)*"(?:\s*\+\s*"(?:[^"\\]|\\.)*")*', "", code)
        texts = [text for _, text in STRING.findall(code) if SENTENCE.search(text) and not NO_TEXT.search(text)]
        found += [f"{file.name}: {text}" for text in texts if text not in shown]
    assert not found, "put these into t(…) and translate them:\n" + "\n".join(found)


def test_texts_are_found_in_code():
    code = 'say(t("One {thing}", { thing }), t(\n  "It is \\"so\\" " +\n  "long",\n), mark("Two"), part("no"), t(name))'
    assert texts_of(code) == ["One {thing}", 'It is "so" long', "Two"]


ENGLISH = {"nodeDefs.A.description": "May hold {phrase}.", "nodeDefs.A.display_name": "TCIG"}


@pytest.mark.parametrize(
    ("path", "text", "fault"),
    [
        ("nodeDefs.A.description", None, "is missing: May hold {phrase}."),
        ("nodeDefs.A.other", "多", "is left over"),
        ("nodeDefs.A.description", "May hold {phrase}.", "is still English: May hold"),
        ("nodeDefs.A.description", "可包含 {短语}。", "has the placeholders ['{短语}'], expected ['{phrase}']"),
        ("nodeDefs.A.description", "可包含。", "has the placeholders [], expected ['{phrase}']"),
        ("nodeDefs.A.description", "可包含 {phrase} | {phrase}", "has |, which ComfyUI's front end"),
        ("nodeDefs.A.description", " ", "is empty"),
    ],
)
def test_a_fault_is_named_with_its_path_and_its_english(path, text, fault):
    right = {"nodeDefs.A.description": "可包含 {phrase}。", "nodeDefs.A.display_name": "TCIG"}
    assert not problems("zh", ENGLISH, right)
    said = {name: each for name, each in {**right, path: text}.items() if each is not None}
    assert any(line.startswith(f"zh {path} ") and fault in line for line in problems("zh", ENGLISH, said))


def test_english_that_has_changed_since_is_named():
    now = {**ENGLISH, "nodeDefs.A.description": "May hold {phrase} or nothing."}
    assert not changed(ENGLISH, ENGLISH)
    (line,) = changed(now, ENGLISH)
    assert line.startswith("nodeDefs.A.description: the English has changed") and line.endswith("or nothing.")
    assert changed(ENGLISH, {}) and changed({}, ENGLISH)
