"""The canvas' layouts, boxes and steps in the browser, against the core's Python and by themselves."""

import json

import pytest
import torch
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.reading import layout_from_data
from stagecraft.core.layout.region import Region

LAYOUT = Layout(
    width=640,
    height=448,
    prompt="a dog and a cat",
    background="on a meadow",
    regions=(
        Region("a dog", box=(0.1, 0.2, 0.5, 0.9), prompt='a "brown" dog\n<b>', strength=1.5, order=3, colour="brown"),
        Region("猫 🐈", box=(0.25, 0.125, 1.0, 1.0), order=-1, strength=0.0),
        Region("a tree", mask=(torch.arange(448 * 640).reshape(448, 640) % 7 > 3).float(), order=3),
    ),
)


def by_order(layout):
    return [(each.phrase, each.box, each.prompt, each.strength, each.colour) for each in layout.sorted_regions()]


def test_a_layout_comes_through_unchanged(run):
    data = LAYOUT.to_dict()
    data["regions"][0]["editor"] = {"locked": True, "colour": "#123456", "other": [1]}
    data["regions"][1]["hidden"] = False
    data["editor"] = {"theirs": 1}
    text = run("state", "return module.writeLayout(module.parseLayout(argument))", json.dumps(data))
    written = json.loads(text)
    assert by_order(layout_from_data(written)) == by_order(LAYOUT)
    masks = [region.get("mask") for region in written["regions"]]
    assert masks[:2] == [None, None]
    assert masks[2] == data["regions"][2]["mask"]
    assert written["regions"][1]["editor"] == {"locked": True, "colour": "#123456", "other": [1]}
    assert written["editor"] == {"theirs": 1}
    again = run("state", "return module.writeLayout(module.parseLayout(argument))", text)
    assert again == text


def test_unknown_keys_are_kept_for_the_server_to_refuse(run):
    data = {"width": 64, "height": 64, "promt": "x", "regions": [{"phrase": "a", "box": [0, 0, 1, 1], "colr": "red"}]}
    written = json.loads(run("state", "return module.writeLayout(module.parseLayout(argument))", json.dumps(data)))
    assert written["promt"] == "x"
    assert written["regions"][0]["colr"] == "red"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"width": ', "not valid JSON"),
        ("a dog: 0.1 0.2 0.3 0.4", "not valid JSON"),
        ('"a dog"', "not a layout"),
        ('{"width": "wide", "height": 5}', 'width is "wide"'),
        ('{"regions": {}}', "regions are {}"),
        ('{"regions": [3]}', "Region 1 is 3"),
        ('{"regions": [{"phrase": 5}]}', "phrase 5"),
        ('{"regions": [{"phrase": "a", "box": [0, 0, 1]}]}', "box [0,0,1]"),
        ('{"regions": [{"phrase": "a", "strength": "much"}]}', 'strength "much"'),
    ],
)
def test_a_text_that_is_no_layout_is_refused_with_a_reason(run, text, message):
    refusal = run(
        "state",
        """try { module.parseLayout(argument); return "taken" }
        catch (error) { return error instanceof module.LayoutTextError ? error.message : `crashed: ${error}` }""",
        text,
    )
    assert message in refusal
    assert not refusal.startswith("crashed")


def test_boxes_stay_on_the_canvas_whatever_is_pulled(run):
    wrong = run(
        "geometry",
        """let seed = 7;
        const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
        const wrong = [];
        for (let i = 0; i < 4000; i++) {
            const [width, height] = [1 + Math.floor(random() ** 3 * 9000), 1 + Math.floor(random() ** 3 * 9000)];
            const corner = () => [random() * width, random() * height];
            const box = module.withLeastSize(module.boxBetween(corner(), corner()), 8, width, height);
            const other = module.boxBetween(corner(), corner());
            const pull = [(random() - 0.5) * 3 * width, (random() - 0.5) * 3 * height];
            const lines = module.snapLines([other], width, height);
            const handle = module.HANDLES[i % 8];
            const moved = module.moveBox(box, ...pull, width, height);
            const resized = module.resizeBox(box, handle, ...pull, width, height);
            const close = (each) => module.closeBox(each, handle, 8, width, height);
            const snapped = module.snapMove(moved, lines, 6, width, height).box;
            const pulled = close(module.snapResize(resized, handle, lines, 6, width, height).box);
            const results = { box, moved, snapped, resized: close(resized), pulled };
            for (const [name, [x0, y0, x1, y1]] of Object.entries(results)) {
                const fits = x0 >= 0 && y0 >= 0 && x1 <= width + 1e-9 && y1 <= height + 1e-9;
                const isLarge = x1 - x0 >= Math.min(8, width) - 1e-6 && y1 - y0 >= Math.min(8, height) - 1e-6;
                if (!fits || !isLarge) wrong.push([name, handle, width, height, [x0, y0, x1, y1]]);
            }
            const size = ([x0, y0, x1, y1]) => [x1 - x0, y1 - y0];
            const isSameSize = size(moved).every((side, axis) => Math.abs(side - size(box)[axis]) < 1e-6);
            if (!isSameSize) wrong.push(["size", box, moved]);
            // The edge opposite to the one that is pulled stays, where the canvas has room on a side of it.
            const opposite = { w: 2, e: 0, n: 3, s: 1 };
            for (const side of Math.min(width, height) >= 16 ? handle : "") {
                const [fixed, axis] = [box[opposite[side]], opposite[side] % 2];
                if (![pulled[axis], pulled[axis + 2]].some((edge) => Math.abs(edge - fixed) < 1e-6))
                    wrong.push(["fixed", handle, box, pulled]);
            }
        }
        return wrong.slice(0, 3)""",
    )
    assert wrong == []


@pytest.mark.parametrize(
    ("box", "handle", "right", "expected"),
    [
        ([63, 0, 200, 64], "e", -180, [24, 0, 63, 64]),  # through the edge that stays, which is on no grid
        ([100, 0, 200, 64], "w", 98, [192, 0, 200, 64]),  # nothing of it is left, so it grows the way it came from
        ([100, 0, 200, 64], "ne", -102, [92, 0, 100, 64]),
        ([3, 0, 200, 64], "e", -197, [3, 0, 11, 64]),  # no room on the other side
    ],
)
def test_the_edge_opposite_to_a_handle_stays(run, box, handle, right, expected):
    pulled = run(
        "geometry",
        """const [box, handle, right] = argument;
        const resized = module.resizeBox(box, handle, right, 0, 512, 512);
        const snapped = module.snapResize(resized, handle, module.snapLines([], 512, 512), 2, 512, 512).box;
        return module.closeBox(snapped, handle, 8, 512, 512)""",
        [box, handle, right],
    )
    assert pulled == expected


def test_an_uploaded_reference_waits_for_the_gesture_and_for_its_region(run):
    seen = run(
        "pictures",
        """const { Editor } = await import("/extensions/stagecraft/layout_canvas/editor.js");
        const editor = new Editor({ changed() {} });
        const key = editor.add({ box: [0, 0, 0.5, 0.5] });
        const pictures = new module.Pictures(editor, { upload: async () => "a.png" });
        const reference = () => editor.layout.regions[0]?.reference;
        editor.hold();
        await pictures.useReference(key, null);
        const seen = [reference()];
        editor.letGo();
        seen.push(reference());
        const upload = pictures.useReference(key, null);
        editor.remove(key);
        await upload;
        return [...seen, editor.notice, editor.history.states.length]""",
    )
    assert seen[:2] == ["", "a.png"]
    assert "is gone" in seen[2]
    assert seen[3] == 4  # empty, added, with its reference, removed


def test_steps_are_undone_and_redone_one_by_one(run):
    seen = run(
        "history",
        """const history = new module.History("a");
        const seen = [];
        history.push("b"); history.push("c", "typing"); history.push("d", "typing"); history.push("e", "other");
        seen.push(history.undo(), history.undo(), history.undo(), history.undo());
        seen.push(history.redo(), history.redo());
        history.push("f");
        seen.push(history.redo(), history.undo(), history.canUndo, history.canRedo);
        for (let i = 0; i < 500; i++) history.push(i);
        let steps = 0;
        while (history.canUndo) { history.undo(); steps++ }
        return [...seen, steps < 500]""",
    )
    assert seen == ["d", "b", "a", "a", "b", "d", "f", "d", True, True, True]
