"""From the first drag to the score of the picture, in both renderings and with both front ends."""

import json

import pytest
from stagecraft.commands.environment import CLONE
from stagecraft.core.layout.canvas import read_canvas

CELL = 8  # pixels
SIDE = 256
EMPTY = json.dumps({"width": SIDE, "height": SIDE, "prompt": "", "background": "", "regions": []})
STEPS = 2  # the picture only has to be one
DRAWN = {
    "a house": (8, 30, 120, 150),
    "a panda": (130, 100, 240, 220),
    "a mushroom": (40, 160, 96, 240),
}
STROKE = ((200, 40), (240, 60))


def with_canvas(workflow, object_info):
    """The workflow with a layout canvas in the place of the layout that is written by hand."""
    old = next(node for node in workflow["nodes"] if node["type"] == "StageLayout")
    names, types = (object_info["StageLayoutCanvas"][key] for key in ("output_name", "output"))
    outputs = [{"name": name, "type": kind, "links": []} for name, kind in zip(names, types, strict=True)]
    for link in workflow["links"]:
        if link[1] == old["id"]:
            slot = names.index(old["outputs"][link[2]]["name"])
            link[2] = slot
            outputs[slot]["links"].append(link[0])
    # Far from the other nodes, which would cover it.
    old |= {"type": "StageLayoutCanvas", "pos": [-1200, 0], "size": [680, 720], "inputs": [], "outputs": outputs}
    old["properties"] = {"Node name for S&R": "StageLayoutCanvas"}
    old["widgets_values"] = [EMPTY]
    for node in workflow["nodes"]:
        if node["type"] == "KSampler":
            node["widgets_values"][2] = STEPS
        if node["type"] == "EmptyLatentImage":
            node["widgets_values"][2] = 1
    return workflow


def in_pixels(region):
    return [value * SIDE for value in region["box"]]


def assert_is_drawn(layout):
    """The layout is what the mouse drew, to a cell of the latent grid, and what the keys said."""
    regions = sorted(layout["regions"], key=lambda region: region["order"])
    assert [region["phrase"] for region in regions] == ["a mushroom", "a house", "a panda"]
    mushroom, house, panda = regions
    for region in (mushroom, house):
        assert in_pixels(region) == pytest.approx(DRAWN[region["phrase"]], abs=CELL)
        assert "mask" not in region
    mask = read_canvas(json.dumps(layout)).regions[layout["regions"].index(panda)].mask
    x0, y0, x1, y1 = DRAWN["a panda"]
    assert mask[y0 + CELL : y1 - CELL, x0 + CELL : x1 - CELL].min() == 1  # the box that it was
    assert all(mask[y, x] == 1 for x, y in STROKE)
    assert mask[20, 20] == 0  # the stroke that was undone
    # The brush is round, 24 pixels of 512 in radius, and the line is 45 pixels long.
    around = 24 / 512 * SIDE
    outside = mask.clone()
    outside[y0 - CELL : y1 + CELL, x0 - CELL : x1 + CELL] = 0
    assert outside.sum().item() == pytest.approx(2 * around * 44.7 + 3.14 * around**2, rel=0.1)


def drag_row(editor, phrase, below):
    """Drag a row of the list by its grip to below another one."""
    row, other = (
        editor.page.locator(".stage-row", has=editor.page.get_by_label("Phrase", exact=True)).nth(index)
        for index in (editor.phrases.index(phrase), editor.phrases.index(below))
    )
    grip, target = row.locator(".stage-grip").bounding_box(), other.bounding_box()
    x = grip["x"] + grip["width"] / 2
    editor.page.mouse.move(x, grip["y"] + grip["height"] / 2)
    editor.page.mouse.down()
    editor.page.mouse.move(x, target["y"] + target["height"] - 2, steps=6)
    editor.page.mouse.up()


@pytest.mark.parametrize("rendering", ["classic", "vue"])
@pytest.mark.parametrize("front_end", ["pinned", "newest"])
def test_what_is_drawn_reaches_the_server_and_the_picture(editors, request, front_end, rendering):
    server = request.getfixturevalue(front_end)
    editor = editors.get(server, rendering)
    page = editor.page
    workflow = json.loads((CLONE / "workflows" / "lrdiff_boxes.json").read_text(encoding="utf-8"))
    editor.load(with_canvas(workflow, server.object_info()))

    for phrase, box in DRAWN.items():
        editor.draw(phrase, *box)
    assert editor.phrases == ["a mushroom", "a panda", "a house"]  # nearest first
    drag_row(editor, "a mushroom", below="a house")
    assert editor.phrases == ["a panda", "a house", "a mushroom"]
    page.mouse.click(*editor.at(185, 160))
    editor.press("p")
    editor.drag(*STROKE)
    before = editor.text
    editor.drag((20, 20), (30, 30))
    assert editor.text != before
    editor.press("Control+z")
    assert editor.text == before
    assert_is_drawn(editor.layout)

    name = f"drawn-{front_end}-{rendering}"
    page.keyboard.press("Control+s")
    page.get_by_role("dialog").get_by_role("textbox").fill(name)
    page.keyboard.press("Enter")
    page.wait_for_function("app.extensionManager.workflow.activeWorkflow?.isModified === false")
    saved = server.get_json(f"/userdata/workflows%2F{name}.json")
    (node,) = [node for node in saved["nodes"] if node["type"] == "StageLayoutCanvas"]
    assert node["widgets_values"] == [before]

    editor.open()
    editor.show()
    assert editor.text == before
    assert editor.phrases == ["a panda", "a house", "a mushroom"]

    known = set(server.get_json("/history"))
    editor.press("Control+Enter")
    entry = server.wait_for_new(known, 120)
    assert entry["status"]["status_str"] == "success", entry["status"]
    (inputs,) = [node["inputs"] for node in entry["prompt"][2].values() if node["class_type"] == "StageLayoutCanvas"]
    assert inputs["layout"] == before
    assert_is_drawn(json.loads(inputs["layout"]))
    (score,) = [each["text"][0] for each in entry["outputs"].values() if "text" in each]
    assert all(phrase.removeprefix("a ") in score for phrase in DRAWN), score
    # The picture of the run now lies under the boxes.
    page.locator('.stage-toolbar [data-command="result"][aria-pressed="true"]').wait_for()
    assert page.evaluate("document.querySelector('.stage-surface').stageSurface.editor.result.naturalWidth") == SIDE
    assert not editor.problems
