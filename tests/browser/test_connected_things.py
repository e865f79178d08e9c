"""What a segmenter finds is shown on the canvas after a run, and taken over to be named and edited."""

import json

import pytest
from stagecraft.commands.environment import CLONE
from stagecraft.core.layout.canvas import read_canvas

EMPTY = {"width": 512, "height": 512, "prompt": "", "background": "at the sea", "regions": []}
FINDS = (1, 3, 4, 5, 6, 7, 9, 10)  # nodes of the workflow that paint a picture and find what is in it
CONNECT = """(text) => {
    const canvas = LiteGraph.createNode("StageLayoutCanvas");
    app.graph.add(canvas);
    canvas.pos = [-1200, 0];
    const from = (id) => app.graph.getNodeById(id);
    from(10).connect(0, canvas, canvas.findInputSlot("boxes"));
    from(7).connect(0, canvas, canvas.findInputSlot("image"));
    canvas.widgets[0].value = text }"""


@pytest.fixture(scope="module", params=["classic", "vue"])
def found(request, editors, pinned):
    """A canvas with a segmenter's masks and its picture at its inputs, after a run."""
    editor = editors.get(pinned, request.param)
    workflow = json.loads((CLONE / "workflows" / "layout_from_picture.json").read_text(encoding="utf-8"))
    workflow["nodes"] = [node for node in workflow["nodes"] if node["id"] in FINDS]
    workflow["links"] = [link for link in workflow["links"] if link[1] in FINDS and link[3] in FINDS]
    for node in workflow["nodes"]:
        for output in node["outputs"]:
            output["links"] = [link[0] for link in workflow["links"] if link[0] in (output.get("links") or ())]
    editor.load(workflow)
    editor.problems.clear()
    editor.page.evaluate(CONNECT, json.dumps(EMPTY))
    editor.show()
    known = set(pinned.get_json("/history"))
    editor.press("Control+Enter")
    entry = pinned.wait_for_new(known, 120)
    assert entry["status"]["status_str"] == "success", entry["status"]
    editor.page.locator(".stage-offer").wait_for()
    return editor


def test_found_things_are_shown_taken_over_named_and_moved(found):
    page = found.page
    line = page.locator(".stage-offer")
    assert "2 things came in: thing 1, thing 2" in line.inner_text()
    before = found.text
    assert json.loads(before) == EMPTY, "to look at them changes nothing"
    line.get_by_role("button", name="Edit them").click()
    found.wait_for_phrases("thing 2", "thing 1")
    layout = read_canvas(found.text)
    assert (layout.width, layout.height) == (512, 512), "the picture has another size but the same shape"
    assert all(region.mask.shape == (256, 256) for region in layout.regions)
    assert found.layout["prompt"] == "" and layout.background == "at the sea", "what is written stays"
    assert not line.is_visible()
    coloured = page.locator(".stage-row").first
    coloured.get_by_label("Phrase", exact=True).fill("a car")
    assert found.phrases == ["a car", "thing 1"]
    x0, y0, x1, y1 = layout.regions[1].outer_box()
    found.press("ArrowLeft")
    moved = read_canvas(found.text)
    assert moved.regions[1].outer_box() == pytest.approx((x0 - 8 / 512, y0, x1 - 8 / 512, y1))
    assert moved.regions[0] == layout.regions[0]
    for _ in range(20):
        if not json.loads(found.text)["regions"]:
            break
        found.press("Control+z")
    assert json.loads(found.text)["regions"] == [] and line.is_visible(), "undone, they are connected again"
    line.get_by_role("button", name="Leave them connected").click()
    assert not line.is_visible()
    assert not found.problems
