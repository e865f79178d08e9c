import json
import pytest
from stagecraft.tests.browser.test_editing import TWO

SHOTS = "/work/out/canvas"

@pytest.mark.parametrize("rendering", ["classic", "vue"])
def test_window(editors, pinned, rendering):
    editor = editors.get(pinned, rendering)
    editor.add_canvas(json.dumps(TWO))
    page = editor.page
    page.screenshot(path=f"{SHOTS}/dev_node_{rendering}.png")
    editor.press("w")
    editor.settle()
    page.screenshot(path=f"{SHOTS}/dev_window_{rendering}.png")
    print(page.evaluate("""() => [[5,5],[750,5],[1495,5],[5,500],[1495,500],[5,995],[750,995],[1495,995],[100,60]].map(([x,y]) => document.elementFromPoint(x,y)?.className)"""))
    editor.draw("a kite", 300, 40, 420, 120)
    print(editor.phrases, page.evaluate("document.activeElement.className"))
    editor.press("p"); 
    for k in "}}}}}": page.keyboard.press(k)
    editor.drag((100, 400), (300, 450), (350,300))
    page.screenshot(path=f"{SHOTS}/dev_soft_{rendering}.png")
    editor.press("Escape", "Escape", "Escape")
    editor.settle()
    page.screenshot(path=f"{SHOTS}/dev_back_{rendering}.png")
    print(editor.text[:1500], editor.problems)
    assert 0
