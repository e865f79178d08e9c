"""Texts that are pasted onto the canvas are read as the node Layout reads them."""

import json

import pytest
from stagecraft.core.layout.canvas import read_canvas
from stagecraft.tests.browser.test_editing import TWO

ANSWER = """Sure! Here is your layout:
```json
{"prompt": "a fox under a tree", "objects": [
  {"name": "a fox", "box": [0.1, 0.5, 0.5, 0.9]}, // the fox
  {"name": "a tree", "box": [0.4, 0.1, 0.9, 0.9]},
]}
```
Shall I add more?"""


@pytest.fixture
def two(editor):
    """A dog and a cat on the canvas."""
    editor.add_canvas(json.dumps(TWO))
    return editor


def paste(editor, text):
    editor.surface.evaluate(
        """(element, text) => {
            const data = new DataTransfer();
            data.setData("text/plain", text);
            const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
            element.dispatchEvent(event) }""",
        text,
    )


def wait_for_notice(editor, text):
    editor.page.locator(".stage-status").filter(has_text=text).wait_for()


def test_a_whole_answer_takes_the_place_of_the_drawing_and_undo_brings_it_back(two):
    paste(two, ANSWER)
    wait_for_notice(two, "Imported: 2 regions now, 2 before")
    layout = read_canvas(two.text)
    assert {region.phrase: region.box for region in layout.regions} == {
        "a fox": (0.1, 0.5, 0.5, 0.9),
        "a tree": (0.4, 0.1, 0.9, 0.9),
    }
    assert layout.prompt == "a fox under a tree"
    two.press("Control+z")
    assert read_canvas(two.text) == read_canvas(json.dumps(TWO))


@pytest.mark.parametrize(
    "text", ["a kite: 0.6 0 0.9 0.3", "```\na kite: 0.6, 0, 0.9, 0.3\n```"], ids=["line", "fenced"]
)
def test_lines_join_what_is_drawn(two, text):
    paste(two, text)
    two.wait_for_phrases("a kite", "a cat", "a dog")
    kite = read_canvas(two.text).sorted_regions()[-1]
    assert kite.box == (0.6, 0, 0.9, 0.3)


def test_a_sentence_is_placed(two):
    paste(two, "a fox left of a house")
    wait_for_notice(two, "Imported: 4 regions now")
    boxes = {region.phrase: region.box for region in read_canvas(two.text).regions}
    assert boxes["a fox"][2] <= boxes["a house"][0] + 1e-6


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a kite: 0.6 0 0.9", "expected four numbers"),
        ('{"regions": [{"phrase": "a", "box"', "cut off"),
        ('[{"x": 0, "y": 0, "width": 0, "height": 9}]', "has no area on the canvas"),
        ("<b>a kite</b>: 1 1 1 1", "no area"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason_and_changes_nothing(two, text, reason):
    before = two.text
    paste(two, text)
    wait_for_notice(two, reason)
    assert two.text == before and two.page.locator(".stage-status b").count() == 0
