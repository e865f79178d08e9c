"""The canvas over the whole window: the same drawing, its keys, its focus, fingers, pens and the browser's zoom."""

import json

import pytest
from stagecraft.tests.browser.editor import HEIGHT, WIDTH, Editor
from stagecraft.tests.browser.test_editing import TWO

WINDOW = ".stage-window"
# Fingers and pens, as the browser's own events, at pixels of the layout's canvas: [event, number, x, y, pointer].
POINT = """(element, steps) => {
    const place = element.getBoundingClientRect();
    element.setPointerCapture = () => {};
    for (const [name, pointerId, x, y, pointerType, button = 0] of steps) {
        const { view } = element.stageSurface;
        const [clientX, clientY] = [place.left + x * view.scale + view.x, place.top + y * view.scale + view.y];
        const more = { pointerId, pointerType, button, clientX, clientY, bubbles: true, cancelable: true };
        element.dispatchEvent(new PointerEvent(name, more));
    } }"""


@pytest.fixture(params=["classic", "vue"])
def canvas(request, editors, pinned):
    """A dog and a cat on a canvas in its node."""
    editor = editors.get(pinned, request.param)
    editor.add_canvas(json.dumps(TWO))
    yield editor
    editor.page.evaluate("document.querySelector('.stage-window .stage-surface')?.stageSurface.actions.leaveWindow()")
    assert not editor.problems


def fills_window(editor):
    """Whether nothing of the graph editor is seen."""
    return editor.page.evaluate(
        """() => [0.01, 0.3, 0.5, 0.99].every((x) => [0.01, 0.5, 0.99].every((y) =>
            document.elementFromPoint(x * innerWidth, y * innerHeight)?.closest(".stage-window"))) """
    )


def finger(name, number, x, y):
    return [name, number, x, y, "touch"]


def pen(name, x, y, button):
    return [name, 9, x, y, "pen", button]


def focused(editor):
    return editor.page.evaluate(
        "() => { const { dataset, className } = document.activeElement;"
        " return dataset.command ?? dataset.field ?? className }"
    )


def test_it_fills_the_window_and_comes_back_with_its_steps(canvas):
    small = canvas.surface.bounding_box()
    canvas.draw("a kite", 300, 40, 420, 120)
    canvas.tool("window")
    canvas.settle()
    large = canvas.surface.bounding_box()
    assert fills_window(canvas) and large["width"] > 1.5 * small["width"]
    assert canvas.page.locator(".stage-surface").count() == 1, "the same canvas, not a second one"
    assert focused(canvas) == "stage-surface"
    canvas.draw("a boat", 40, 400, 200, 480)
    assert canvas.phrases == ["a boat", "a kite", "a cat", "a dog"]
    assert json.loads(canvas.text)["regions"][3]["box"] == [0.078125, 0.78125, 0.390625, 0.9375]
    canvas.press(*["Control+z"] * 4)  # a box and its name are two steps
    assert canvas.phrases == ["a cat", "a dog"], "also the steps from before"
    canvas.press("Control+Shift+z", "Control+Shift+z", "n", "Escape")
    assert canvas.page.locator(WINDOW).count() == 1, "the first lets go of the region"
    canvas.press("Escape")
    assert canvas.page.locator(WINDOW).count() == 0
    assert focused(canvas) == "window", "where it was before"
    canvas.settle()
    assert canvas.surface.bounding_box() == small
    assert canvas.phrases == ["a kite", "a cat", "a dog"]
    canvas.press("Control+z", "Control+z")
    assert canvas.phrases == ["a cat", "a dog"]
    canvas.press("w")
    canvas.press("w")
    assert canvas.page.locator(WINDOW).count() == 0 and focused(canvas) == "stage-surface"


def test_the_focus_stays_inside_and_a_screen_reader_hears_where_it_is(canvas):
    page = canvas.page
    canvas.press("w")
    dialog = page.get_by_role("dialog", name="Layout canvas in the full window. Escape leaves.")
    assert dialog.get_attribute("aria-modal") == "true"
    rest = "[...document.body.children].filter((each) => !each.matches('.stage-window, script, style, link'))"
    assert page.evaluate(f"{rest}.every((each) => each.inert)")
    seen = []
    for key in ("Tab", "Shift+Tab"):
        for _ in range(40):
            page.keyboard.press(key)
            seen.append(focused(canvas))
            assert page.evaluate("Boolean(document.activeElement.closest('.stage-window'))"), seen
    assert {"select", "window", "phrase", "stage-surface"} <= set(seen), "all of it is reached"
    # Within a field the first Escape only leaves the field.
    page.get_by_placeholder("Background").focus()
    page.keyboard.press("Escape")
    assert focused(canvas) == "stage-surface"
    canvas.press("?")
    page.get_by_role("dialog", name="Keys of the layout canvas").wait_for()
    page.keyboard.press("Escape")
    assert page.locator(WINDOW).count() == 1
    canvas.press("Escape", "Escape")  # Tab has gone through the rows, so a region is selected
    assert page.locator(WINDOW).count() == 0
    assert page.evaluate(f"{rest}.every((each) => !each.inert)")


def test_fingers_draw_with_one_and_move_the_view_with_two(canvas):
    canvas.press("w")
    canvas.settle()
    canvas.press("b")
    one = [("pointerdown", 1, 300, 40), ("pointermove", 1, 350, 80), ("pointermove", 1, 420, 120)]
    canvas.surface.evaluate(POINT, [finger(*each) for each in [*one, ("pointerup", 1, 420, 120)]])
    assert len(canvas.layout["regions"]) == 3
    view = "(element) => ({ ...element.stageSurface.view })"
    before = canvas.surface.evaluate(view)
    canvas.press("b")
    pinch = [("pointerdown", 2, 200, 200), ("pointermove", 2, 210, 210), ("pointerdown", 3, 300, 200)]
    pinch += [("pointermove", 3, 400, 200), ("pointerup", 3, 400, 200), ("pointermove", 2, 300, 300)]
    canvas.surface.evaluate(POINT, [finger(*each) for each in [*pinch, ("pointerup", 2, 300, 300)]])
    after = canvas.surface.evaluate(view)
    assert after["scale"] > 1.5 * before["scale"]
    assert len(canvas.layout["regions"]) == 3, "what the first finger had begun is gone"
    canvas.surface.evaluate(POINT, [finger(*each) for each in one[:1]] + [finger("pointercancel", 1, 0, 0)])


def test_the_other_end_of_a_pen_erases(canvas):
    canvas.press("w", "n", "p")
    canvas.settle()
    for button in (0, 5):
        steps = [pen("pointerdown", 300, 300, button), pen("pointermove", 340, 300, button)]
        canvas.surface.evaluate(POINT, [*steps, pen("pointerup", 340, 300, button)])
        if button == 0:
            painted = canvas.text
    region = next(each for each in canvas.layout["regions"] if each.get("mask"))
    before = next(each for each in json.loads(painted)["regions"] if each.get("mask"))
    assert region["mask"] != before["mask"]


@pytest.mark.parametrize("factor", [0.67, 1.5])
def test_it_is_sharp_and_hits_at_any_zoom_of_the_browser(browser, pinned, factor):
    # The browser's zoom is fewer or more pixels of the screen to one of the page.
    size = {"width": round(WIDTH / factor), "height": round(HEIGHT / factor)}
    context = browser.new_context(viewport=size, device_scale_factor=factor)
    editor = Editor(context, pinned.url, "classic")
    editor.add_canvas(json.dumps(TWO))
    editor.press("w")
    editor.settle()
    assert fills_window(editor)
    editor.draw("a kite", 304, 40, 424, 120)
    assert json.loads(editor.text)["regions"][2]["box"] == [0.59375, 0.078125, 0.828125, 0.234375]
    wide = editor.surface.evaluate("(element) => element.querySelector('canvas').width / element.clientWidth")
    assert wide == pytest.approx(max(1, factor), rel=0.01)
    context.close()
