"""The page docs/layouts-from-words.md does not lie: its examples are read, and what it says of them holds."""

import json
import re
from pathlib import Path

import pytest
from stagecraft.core.layout.other_programs import check_layout, import_layout
from stagecraft.core.layout.region import LayoutError
from stagecraft.core.layout.words.loose_boxes import BOXES, CENTRES, CORNERS, NAMES, SIDES, THINGS
from stagecraft.core.layout.words.placing import SMALLEST
from stagecraft.core.layout.words.sentences import MOST_THINGS, read_sentences
from stagecraft.core.layout.words.vocabulary import NUMBERS, SIZES

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "layouts-from-words.md").read_text(encoding="utf-8")
HELP = (ROOT / "web" / "docs" / "StageLayout.md").read_text(encoding="utf-8")


def block(name: str, page: str = PAGE) -> str:
    return re.search(rf"(?m)^(```+){name}\n(.*?)\n\1$", page, re.DOTALL)[2]


SENTENCES = block("sentences").splitlines()


@pytest.mark.parametrize("sentence", [*SENTENCES, *block("sentences", HELP).splitlines()])
def test_its_sentences_are_read(sentence):
    check_layout(sentence)
    layout, read = import_layout(sentence), read_sentences(sentence)
    assert len(layout.regions) >= 2 and read.statements
    # Nothing of a sentence is swallowed by a name but what belongs to it.
    assert all(len(region.phrase.split()) <= 3 for region in layout.regions)


def test_its_lines_are_what_the_first_sentence_gives():
    assert import_layout(block("lines")).regions == tuple(import_layout(SENTENCES[0]).regions)


def test_its_contradiction_is_refused():
    with pytest.raises(LayoutError, match='"a dog left of a cat" and "a cat left of the dog"'):
        import_layout(block("contradiction"))


def test_its_answer_is_read_and_has_the_form_that_its_prompt_asks_for():
    layout = import_layout(block("answer"), width=640, height=480)
    assert [region.phrase for region in layout.sorted_regions()] == ["an old oak", "a picnic basket", "a brown dog"]
    assert (layout.width, layout.background) == (640, "on a sunny hill")
    assert all(region.phrase in layout.prompt for region in layout.regions), "word for word"
    form = re.search(r"^\{.*\}$", block("prompt"), re.MULTILINE)[0]
    shown = json.loads(form.replace("[left, top, right, bottom]", "[0, 0, 1, 1]"))
    given = json.loads(json.dumps(layout.to_dict()))
    assert shown.keys() <= given.keys() and shown["regions"][0].keys() <= given["regions"][0].keys()
    assert import_layout(json.dumps(shown)).regions[0].phrase == "..."


def test_it_names_what_there_is():
    words = [*SIZES, "one to six", f"at most {MOST_THINGS} things", "1/20 of the canvas"]
    words += [f"`{name}`" for name in ("box_2d", *THINGS[1:4], *NAMES[1:5], "bbox", "bounding_box", "position", "rect")]
    words += [f"`{' '.join(names)}`" for names in (*CORNERS[:3], CORNERS[4], *SIDES[:2], CENTRES[0])]
    assert [word for word in words if word not in PAGE] == []
    assert SMALLEST == 1 / 20 and max(NUMBERS.values()) == 6 and {"bbox", "position", "rect"} <= set(BOXES)


@pytest.mark.parametrize(("first", "second"), [("a mat under", "a mat"), ("a mat, under", "a cat")])
def test_a_comma_decides_of_what_it_is_said(first, second):
    read = read_sentences(f"a cat on {first} a table")
    assert read.names[read.statements[1].thing] == second
    assert f"a cat on {first}" in PAGE.replace("\n  ", " ")


def test_what_it_says_of_backgrounds_and_names():
    for scene in ("in a park", "on the beach", "on a road", "at night", "in the\n  snow"):
        assert f'"{scene}"' in PAGE
        assert import_layout(f"a cat and a dog {' '.join(scene.split())}").background == " ".join(scene.split())
    for name in ("a red car", "a girl with a straw hat", "a man in a suit", "a house on fire"):
        assert f'"{name}"' in PAGE and import_layout(f"{name} left of a tree").regions[0].phrase == name
    with pytest.raises(LayoutError):
        import_layout("a dog chases a cat")
