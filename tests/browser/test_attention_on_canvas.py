"""After a run the canvas shows what the phrases looked at, and says when the layout is another one by now."""

import json

import pytest
from stagecraft.commands.environment import CLONE
from stagecraft.tests.browser.editor import NODE
from stagecraft.tests.browser.test_drawing_to_picture import with_canvas

SIDE = 256
STEPS = 10  # so many that the panda is where it should be
LAYOUT = {
    "width": SIDE,
    "height": SIDE,
    "prompt": "",
    "background": "on a green meadow",
    "regions": [
        {"phrase": "a house", "box": [0.0625, 0.125, 0.5, 0.59375]},
        {"phrase": "a panda", "box": [0.5, 0.40625, 0.9375, 0.90625]},
    ],
}
FRESH, OLD = "Where “a panda” looks", "Where “a panda” looked in the last run; the layout is another one now"


@pytest.fixture(scope="module")
def shown(editors, pinned):
    """The workflow of Attention Maps with a canvas in it, after a run."""
    editor = editors.get(pinned, "classic")
    workflow = json.loads((CLONE / "workflows" / "attention_maps.json").read_text(encoding="utf-8"))
    workflow = with_canvas(workflow, pinned.object_info())
    next(node for node in workflow["nodes"] if node["type"] == "KSampler")["widgets_values"][2] = STEPS
    # What is saved counts as the picture, so it has to be that and not the maps.
    saved = next(link for link in workflow["links"] if link[3] == 12)
    saved[1:3] = [9, 0]
    editor.load(workflow)
    editor.problems.clear()
    editor.page.evaluate(f"(text) => {{ {NODE}.widgets[0].value = text }}", json.dumps(LAYOUT))
    run(editor, pinned)
    return editor


def run(editor, server):
    known = set(server.get_json("/history"))
    editor.press("Control+Enter")
    entry = server.wait_for_new(known, 120)
    assert entry["status"]["status_str"] == "success", entry["status"]
    for shows in ("maps", "result"):
        editor.page.locator(f'.stage-toolbar [data-command="{shows}"]:enabled').wait_for()


def note(editor):
    return editor.page.locator(".stage-note").inner_text()


def wait_for_note(editor, text):
    editor.page.locator(".stage-note").filter(has_text=text).wait_for()


def seen(editor):
    """Mean light of what is drawn where this seed paints the panda, and of the sky."""
    editor.settle()
    left, top = editor.at(0, 0)
    right, bottom = editor.at(SIDE, SIDE)
    return editor.surface.evaluate(
        """(element, [left, top, right, bottom]) => {
            const own = element.getBoundingClientRect();
            const canvas = element.querySelector("canvas");
            const scale = canvas.width / own.width;
            const [wide, tall] = [(right - left) * scale, (bottom - top) * scale];
            const light = (x0, y0, x1, y1) => {
                const [x, y] = [(left - own.left) * scale + x0 * wide, (top - own.top) * scale + y0 * tall];
                const { data } = canvas.getContext("2d").getImageData(x, y, (x1 - x0) * wide, (y1 - y0) * tall);
                return data.reduce((sum, value, at) => sum + (at % 4 < 3 ? value : 0), 0) / (data.length * 0.75);
            };
            return [light(0.25, 0.45, 0.55, 0.8), light(0, 0, 0.4, 0.2)] }""",
        [left, top, right, bottom],
    )


def test_the_selected_region_shows_what_its_phrase_looks_at(shown):
    wait_for_note(shown, "Select a region to see where its phrase looks")
    bare = seen(shown)
    shown.page.mouse.click(*shown.at(180, 165))
    wait_for_note(shown, FRESH)
    in_place, elsewhere = seen(shown)
    # Dark where the phrase does not look, and less so where it does.
    assert elsewhere < 0.6 * bare[1] and in_place / bare[0] > 1.2 * elsewhere / bare[1]
    before = shown.text
    shown.page.get_by_label("Opacity of the attention map").fill("0.1")
    assert seen(shown)[1] > 1.2 * elsewhere
    shown.page.get_by_label("Opacity of the attention map").fill("1")
    shown.press("m")
    assert note(shown) == "" and seen(shown)[1] == pytest.approx(bare[1], rel=0.02)
    shown.press("m", "n")
    wait_for_note(shown, "Where “a house” looks")
    assert shown.text == before, "looking changes nothing"
    # The heat maps themselves are no result of the layout.
    assert shown.surface.evaluate("(element) => element.stageSurface.editor.result.naturalWidth") == SIDE
    shown.press("Escape")


def test_maps_of_another_layout_say_so_until_the_next_run(shown, pinned):
    shown.page.mouse.click(*shown.at(180, 165))
    wait_for_note(shown, FRESH)
    shown.press("l")  # a lock makes no other picture
    wait_for_note(shown, FRESH)
    shown.press("l", "ArrowLeft")
    wait_for_note(shown, OLD)
    shown.press("Control+z")
    wait_for_note(shown, FRESH)
    shown.page.keyboard.press("Enter")
    shown.page.keyboard.type("a snail")
    shown.page.keyboard.press("Enter")
    wait_for_note(shown, "The last run has no attention map of “a snail”")
    shown.press("Control+z")
    wait_for_note(shown, FRESH)
    shown.press("ArrowLeft")
    wait_for_note(shown, OLD)
    run(shown, pinned)
    wait_for_note(shown, FRESH)
    # ComfyUI paints nothing anew, and sends what it kept; it is of this layout still.
    run(shown, pinned)
    wait_for_note(shown, FRESH)
    shown.press("Escape")
    assert not shown.problems
