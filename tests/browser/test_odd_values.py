"""Texts that are no layout, many regions, tiny and huge canvases, foreign words and markup: never a dead widget."""

import json

import pytest
from stagecraft.tests.browser.test_editing import paste

BROKEN = ['{"width": 512, "regions": [', "a dog: 0.1 0.2 0.5 0.9", "[[[", '{"regions": [{"phrase": 5}]}', "\u0000"]


def region(phrase, box=(0.1, 0.1, 0.5, 0.5), **others):
    return {"phrase": phrase, "box": list(box), "prompt": "", "strength": 1.0, "order": 0, **others}


def drawn(editor):
    """How many pixels of the surface are not transparent."""
    return editor.surface.evaluate(
        """(surface) => {
            const { canvas, context } = surface.stageSurface;
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let at = 3; at < data.length; at += 4) count += data[at] > 0;
            return count / (canvas.width * canvas.height) }"""
    )


@pytest.mark.parametrize("text", BROKEN)
def test_a_text_that_is_no_layout_is_kept_and_can_be_mended(editor, text):
    editor.add_canvas(text)
    trouble = editor.page.get_by_role("alert").filter(has_text="cannot be shown as a layout")
    trouble.wait_for()
    assert editor.text == text
    saved = json.loads(editor.page.evaluate("JSON.stringify(app.graph.serialize())"))
    assert saved["nodes"][0]["widgets_values"] == [text]
    trouble.get_by_role("textbox").fill(json.dumps({"regions": [region("a dog")]}))
    trouble.get_by_role("button", name="Try again").click()
    assert trouble.count() == 0
    assert editor.phrases == ["a dog"]


def test_one_can_start_anew(editor):
    editor.add_canvas(BROKEN[0])
    editor.page.get_by_role("button", name="Start anew").click()
    assert editor.layout["regions"] == []
    editor.draw("a cat", 100, 100, 200, 200)
    assert [each["phrase"] for each in editor.layout["regions"]] == ["a cat"]


def test_a_broken_text_gives_way_to_a_good_one_from_outside(editor):
    editor.add_canvas(BROKEN[0])
    editor.page.evaluate(
        "(text) => { app.graph.nodes[0].widgets[0].value = text }", json.dumps({"regions": [region("x")]})
    )
    assert editor.page.locator(".stage-trouble").count() == 0
    assert editor.phrases == ["x"]


def test_nothing_is_drawn_over_a_text_that_is_no_layout(editor):
    editor.add_canvas(BROKEN[0])
    box = editor.page.locator(".stage-trouble textarea")
    box.focus()
    for _ in range(3):
        editor.page.keyboard.press("Shift+Tab")
        editor.page.keyboard.type("x")
    paste(editor, "", "text/plain", json.dumps({"phrases": ["a fox"], "boxes": [[0, 0, 0.5, 0.5]]}).encode())
    editor.page.evaluate("document.querySelector('.stage-surface').stageSurface.editor.addInMiddle()")
    assert editor.text == BROKEN[0]
    # Another text with the same fault in it is another text.
    for text in ('{"regions": [3]}', '{"width": 64, "regions": [3]}'):
        editor.page.evaluate("(text) => { app.graph.nodes[0].widgets[0].value = text }", text)
        assert box.input_value() == text
    editor.page.get_by_role("button", name="Start anew").click()
    editor.draw("a cat", 100, 100, 200, 200)
    assert editor.phrases == ["a cat"]


PHRASES = [
    '<img src=x onerror="window.wasInjected = true">',
    "</textarea><script>window.wasInjected = true</script>",
    "🐼 一隻熊貓 עברית à la fenêtre",
    "a" * 5000,
]


@pytest.mark.parametrize("phrase", PHRASES, ids=["image", "script", "unicode", "long"])
def test_a_phrase_is_a_phrase_whatever_is_in_it(editor, phrase):
    layout = {"regions": [region(phrase), region(phrase, reference=phrase[:50], colour=phrase[:30])], "prompt": phrase}
    editor.add_canvas(json.dumps(layout))
    editor.page.mouse.click(*editor.at(150, 150))
    assert editor.phrases == [phrase, phrase]
    editor.page.get_by_label("Longer prompt").fill(phrase)
    editor.press("Enter")
    editor.page.keyboard.press("End")
    editor.page.keyboard.type("!")
    assert editor.layout["regions"][1]["phrase"] == phrase + "!"
    assert editor.layout["regions"][1]["prompt"] == phrase
    assert editor.page.evaluate("window.wasInjected") is None
    assert editor.page.locator(".stage-canvas script, .stage-canvas img:not(.stage-reference img)").count() == 0


def test_two_hundred_regions_are_shown_and_edited(editor):
    boxes = [((i % 20) / 20, (i // 20) / 10, (i % 20) / 20 + 0.04, (i // 20) / 10 + 0.08) for i in range(200)]
    regions = [region(f"thing {i}", box, order=i) for i, box in enumerate(boxes)]
    editor.add_canvas(json.dumps({"width": 1024, "height": 1024, "regions": regions}))
    assert len(editor.phrases) == 200
    assert "200 regions take part" in editor.page.locator(".stage-status").inner_text()
    editor.press("n")  # the nearest lies in the lower right corner
    editor.press("ArrowUp", "ArrowUp")
    assert editor.layout["regions"][199]["box"][1] == pytest.approx(0.9 - 16 / 1024, abs=1e-5)
    editor.press("PageDown")
    assert editor.phrases[:2] == ["thing 198", "thing 199"]
    editor.press("Delete", "Control+z")
    assert len(editor.phrases) == 200


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (8192, 8192), (16384, 16), (333, 777)])
def test_a_canvas_of_any_size_can_be_drawn_on(editor, size):
    width, height = size
    editor.add_canvas(json.dumps({"width": width, "height": height, "regions": [region("a dog", (0, 0, 1, 1))]}))
    assert drawn(editor) > 0
    editor.press("b")
    editor.drag((0.2 * width, 0.2 * height), (0.6 * width, 0.7 * height))
    editor.page.keyboard.type("a cat")
    x0, y0, x1, y1 = editor.layout["regions"][1]["box"]
    assert 0 <= x0 < x1 <= 1
    assert 0 <= y0 < y1 <= 1
    if min(size) >= 64:
        assert (x0, y0, x1, y1) == pytest.approx((0.2, 0.2, 0.6, 0.7), abs=8 / min(size))
    status = editor.page.locator(".stage-status").inner_text()
    assert ("16 to 16384" in status) == (min(size) < 16)
    editor.press("p")
    editor.drag((0.5 * width, 0.5 * height), (0.8 * width, 0.8 * height))
    mask = editor.layout["regions"][1]["mask"]
    assert max(mask["size"]) <= 1024
    assert len(json.dumps(mask)) < 60_000
    if min(size) < 16:
        # The way out of a canvas that no node takes: any other size.
        editor.page.get_by_label("Width", exact=True).fill("512")
        editor.page.keyboard.press("Tab")
        assert editor.layout["width"] == 512
    assert not editor.problems


def test_zooming_in_on_a_large_canvas_draws_exactly(editor):
    editor.add_canvas(json.dumps({"width": 8192, "height": 8192, "regions": []}))
    x, y = editor.at(4096, 4096)
    editor.page.mouse.move(x, y)
    editor.page.keyboard.down("Control")
    for _ in range(6):
        editor.page.mouse.wheel(0, -200)
    editor.page.keyboard.up("Control")
    editor.press("b")
    editor.drag((4096, 4096), (4160, 4136))
    assert [value * 8192 for value in editor.layout["regions"][0]["box"]] == pytest.approx(
        [4096, 4096, 4160, 4136], abs=4
    )
    editor.press("f")
    assert editor.page.evaluate("document.querySelector('.stage-surface').stageSurface.isFitted")
