"""What a hand on the mouse or on the keyboard can do to a layout, and that the graph editor is left alone."""

import base64
import io
import json

import pytest
from PIL import Image
from stagecraft.commands.environment import CLONE
from stagecraft.core.layout.canvas import read_canvas

TWO = {
    "width": 512,
    "height": 512,
    "prompt": "",
    "background": "",
    "regions": [
        {"phrase": "a dog", "box": [0.125, 0.25, 0.375, 0.5], "prompt": "", "strength": 1.0, "order": 0},
        {"phrase": "a cat", "box": [0.5, 0.5, 0.75, 0.875], "prompt": "", "strength": 1.0, "order": 1},
    ],
}
DOG, CAT = (64, 128, 192, 256), (256, 256, 384, 448)  # pixels


@pytest.fixture(params=["classic", "vue"])
def canvas(request, editors, pinned):
    """An editor with a dog and a cat on its canvas."""
    editor = editors.get(pinned, request.param)
    editor.add_canvas(json.dumps(TWO))
    yield editor
    assert not editor.problems


@pytest.fixture
def classic(editor):
    """The same, where the rendering makes no difference."""
    editor.add_canvas(json.dumps(TWO))
    yield editor
    assert not editor.problems


def boxes(editor):
    return {region["phrase"]: [round(value * 512, 3) for value in region["box"]] for region in editor.layout["regions"]}


def centre(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def test_a_text_stays_as_it_was_until_something_is_changed(canvas):
    assert canvas.text == json.dumps(TWO)
    canvas.page.mouse.click(*canvas.at(*centre(DOG)))
    canvas.press("p", "v", "f", "Escape")
    assert canvas.text == json.dumps(TWO)


def test_a_box_is_moved_and_resized_by_its_handles(canvas):
    x, y = centre(DOG)
    canvas.drag((x, y), (x + 30, y + 37))
    assert boxes(canvas)["a dog"] == [96, 168, 224, 296]  # on the grid
    canvas.drag((224, 296), (300, 340))
    assert boxes(canvas)["a dog"][:2] == [96, 168]
    assert boxes(canvas)["a dog"][2:] == pytest.approx([300, 340], abs=4)
    canvas.drag((96, 230), (60, 230))
    assert boxes(canvas)["a dog"][0] == pytest.approx(60, abs=6)
    assert boxes(canvas)["a cat"] == list(CAT)
    canvas.press("Control+z", "Control+z", "Control+z")
    assert boxes(canvas)["a dog"] == list(DOG)
    canvas.press("Control+Shift+z")
    assert boxes(canvas)["a dog"] == [96, 168, 224, 296]


def test_edges_snap_to_other_regions_and_alt_lets_go_of_them(classic):
    x, y = centre(DOG)
    # The dog's right edge comes to 253, near the cat's left edge at 256.
    classic.drag((x, y), (x + 40, y), (x + 61, y))
    assert boxes(classic)["a dog"][2] == 256
    classic.press("Control+z")
    classic.page.keyboard.down("Alt")
    classic.drag((x, y), (x + 40, y), (x + 61, y))
    classic.page.keyboard.up("Alt")
    assert boxes(classic)["a dog"][2] == pytest.approx(253, abs=1.2)
    assert boxes(classic)["a dog"][2] % 8 != 0


def test_undo_takes_the_snap_switch_along(classic):
    classic.press("g")
    snap = classic.page.locator('.stage-toolbar [data-command="snap"]')
    assert snap.get_attribute("aria-pressed") == "false"
    classic.press("Control+z")
    assert snap.get_attribute("aria-pressed") == "true"
    classic.press("Control+y")
    assert snap.get_attribute("aria-pressed") == "false"


def test_everything_can_be_done_with_the_keyboard(canvas):
    canvas.press("n")  # the nearest
    canvas.press("ArrowRight", "ArrowDown", "ArrowDown")
    assert boxes(canvas)["a cat"] == [264, 272, 392, 464]
    canvas.press("Shift+ArrowRight", "Shift+ArrowUp")
    assert boxes(canvas)["a cat"] == [264, 272, 400, 456]
    canvas.press("Alt+ArrowLeft")
    assert boxes(canvas)["a cat"] == [263, 272, 399, 456]
    canvas.press("PageDown")
    assert canvas.phrases == ["a dog", "a cat"]
    canvas.press("Control+d")
    assert len(canvas.phrases) == 3
    canvas.press("Delete")
    assert canvas.phrases == ["a dog", "a cat"]
    canvas.press("a", "Enter")
    canvas.page.keyboard.type("a tree")
    canvas.page.keyboard.press("Enter")
    assert canvas.phrases == ["a tree", "a dog", "a cat"]
    canvas.press("h", "l")
    assert canvas.layout["regions"][2]["hidden"] is True
    assert canvas.layout["regions"][2]["editor"]["locked"] is True
    canvas.press("ArrowRight")
    assert canvas.layout["regions"][2]["box"] == pytest.approx([0.3, 0.3, 0.7, 0.7], abs=8 / 512)
    # None of these keys did anything to the graph, such as deleting the node.
    assert canvas.page.evaluate("app.graph.nodes.length") == 1


def test_letters_in_a_field_are_letters(canvas):
    canvas.page.mouse.click(*canvas.at(*centre(CAT)))
    canvas.press("Enter")
    canvas.page.keyboard.press("Control+a")
    canvas.page.keyboard.type("bpevhl [brg] ?")
    canvas.page.keyboard.press("Backspace")
    assert canvas.layout["regions"][1]["phrase"] == "bpevhl [brg] "
    canvas.page.keyboard.press("Escape")
    # A typed word is one step.
    canvas.press("Control+z")
    assert canvas.layout["regions"][1]["phrase"] == "a cat"


def test_a_press_on_the_bar_does_what_its_key_does(classic):
    classic.page.mouse.click(*classic.at(*centre(DOG)))
    classic.tool("eraser")
    # Away with the dog's upper half, right across.
    classic.page.locator('[aria-label="Size of the brush"]').fill("60")
    classic.drag((40, 132), (220, 132), steps=12)
    region = classic.layout["regions"][0]
    mask = read_canvas(classic.text).regions[0].mask
    assert mask[140, 128] == 0
    assert mask[240, 128] == 1
    assert [round(value * 512) for value in region["box"]] == pytest.approx([64, 192, 192, 256], abs=2)
    classic.drag((40, 230), (220, 230), steps=12)
    assert "mask" not in classic.layout["regions"][0]  # nothing left, so it is the box again
    assert "box" in classic.layout["regions"][0]
    classic.tool("undo")
    assert "mask" in classic.layout["regions"][0]
    classic.tool("redo")
    assert "mask" not in classic.layout["regions"][0]


def test_a_mask_moves_with_its_region_and_follows_the_canvas(classic):
    classic.page.mouse.click(*classic.at(*centre(DOG)))
    classic.press("p")
    classic.drag((128, 256), (128, 300))
    before = read_canvas(classic.text).regions[0].mask
    classic.press("v")
    x, y = centre(DOG)
    classic.drag((x, y), (x + 64, y + 40))
    after = read_canvas(classic.text).regions[0].mask
    assert after.sum() == before.sum()
    assert (after[40:, 64:] == before[:-40, :-64]).all()
    classic.page.get_by_label("Aspect", exact=True).select_option("16 : 9")
    layout = read_canvas(classic.text)
    assert (layout.width, layout.height) == (704, 384)
    assert layout.regions[0].mask.shape == (384, 704)
    assert layout.regions[0].mask.mean() == pytest.approx(after.mean().item(), rel=0.02)


def test_the_list_sets_everything_else(canvas):
    canvas.page.mouse.click(*canvas.at(*centre(DOG)))
    canvas.page.get_by_label("Longer prompt").fill("a fluffy brown dog")
    canvas.page.get_by_label("Strength as a number").fill("1.75")
    canvas.page.get_by_label("Colour to pull towards", exact=True).fill("brown")
    canvas.page.get_by_label("Prompt of the background").fill("on a meadow")
    canvas.page.locator(".stage-row.is-selected").get_by_label("Hide from the run (H)").click()
    region = canvas.layout["regions"][0]
    assert region["prompt"] == "a fluffy brown dog"
    assert region["strength"] == 1.75
    assert region["colour"] == "brown"
    assert region["hidden"] is True
    assert canvas.layout["background"] == "on a meadow"
    assert [each.phrase for each in read_canvas(canvas.text).regions] == ["a cat"]


def paste(editor, name, kind, data):
    editor.page.evaluate(
        """([name, kind, data]) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            if (name) transfer.items.add(new File([bytes], name, { type: kind }));
            else transfer.setData(kind, new TextDecoder().decode(bytes));
            const event = new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true });
            document.querySelector(".stage-surface").dispatchEvent(event) }""",
        [name, kind, base64.b64encode(data).decode()],
    )


def test_a_pasted_picture_is_the_regions_reference(canvas, pinned):
    file = io.BytesIO()
    Image.new("RGB", (24, 16), "orange").save(file, "png")
    canvas.page.mouse.click(*canvas.at(*centre(CAT)))
    paste(canvas, "image.png", "image/png", file.getvalue())
    shown = canvas.page.locator(".stage-reference img")
    shown.wait_for()
    canvas.page.wait_for_function("document.querySelector('.stage-reference img').naturalWidth === 24")
    name = canvas.layout["regions"][1]["reference"]
    assert Image.open(pinned.base / "input" / name).getpixel((3, 3)) == (255, 165, 0)
    canvas.page.get_by_label("Remove the reference picture").click()
    assert "reference" not in canvas.layout["regions"][1]
    # The paste was ours alone: the graph editor has made no Load Image of it.
    assert canvas.page.evaluate("app.graph.nodes.length") == 1


def test_layouts_come_in_by_file_or_paste_and_go_out_by_file(classic, tmp_path):
    classic.page.get_by_label("Import, export and more").click()
    with classic.page.expect_download() as download:
        classic.page.get_by_role("menuitem", name="Export as JSON").click()
    download.value.save_as(tmp_path / "layout.json")
    assert read_canvas((tmp_path / "layout.json").read_text("utf-8")) == read_canvas(json.dumps(TWO))
    paste(classic, "", "text/plain", json.dumps({"phrases": ["a fox"], "boxes": [[0, 0, 0.5, 0.5]]}).encode())
    assert classic.phrases == ["a fox", "a cat", "a dog"]
    classic.page.get_by_label("Import, export and more").click()
    with classic.page.expect_file_chooser() as chooser:
        classic.page.get_by_role("menuitem", name="Import").click()
    chooser.value.set_files(tmp_path / "layout.json")
    classic.page.wait_for_function("document.querySelectorAll('.stage-row').length === 2")
    assert read_canvas(classic.text) == read_canvas(json.dumps(TWO))


def test_the_help_shows_every_key_and_gives_the_focus_back(classic):
    classic.press("?")
    help_ = classic.page.get_by_role("dialog", name="Keys of the layout canvas")
    table = classic.page.evaluate(
        "async () => { const module = await import('/extensions/stagecraft/layout_canvas/shortcuts.js');"
        " return module.SHORTCUTS.flatMap((section) => section[1]) }"
    )
    shown = help_.inner_text()
    assert len(table) > 20
    assert all(what in shown for what, *_ in table)
    page = (CLONE / "web" / "docs" / "StageLayoutCanvas.md").read_text(encoding="utf-8")
    assert all(f"| {what} | {keys} |" in page for what, keys, *_ in table)
    classic.page.keyboard.press("Escape")
    assert help_.count() == 0
    assert classic.page.evaluate("document.activeElement.className") == "stage-surface"


def test_everything_has_a_name_for_those_who_do_not_see_it(classic):
    classic.page.mouse.click(*classic.at(*centre(CAT)))
    nameless = classic.page.locator(".stage-canvas").evaluate(
        """(root) => [...root.querySelectorAll("button, input, textarea, select, [role=application]")]
            .filter((each) => !(each.getAttribute("aria-label") || each.innerText.trim()))
            .map((each) => each.outerHTML)"""
    )
    assert nameless == []
    label = classic.page.locator(".stage-surface").get_attribute("aria-label")
    assert "a cat, from 256, 256 to 384, 448" in label
    assert (
        classic.page.locator(".stage-row.is-selected").get_attribute("aria-label") == "a cat, 1 of 2 from near to far"
    )
