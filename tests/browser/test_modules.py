"""The parts of the canvas that need no page, run in the browser, against the core's Python and by themselves."""

import base64
import json
import zlib

import numpy as np
import pytest
import torch
from stagecraft.core.layout import Layout, Region
from stagecraft.core.layout_import import import_layout
from stagecraft.core.run_length import decode_runs, encode_runs

MOST = 2**26


@pytest.fixture(scope="module")
def run(editors, pinned):
    """Runs statements in the page with one of the canvas' modules; they take (module, argument)."""
    page = editors.get(pinned, "classic").page

    def run(module, statements, argument=None):
        script = f"""async (argument) => {{
            const module = await import("/extensions/stagecraft/layout_canvas/{module}.js");
            {statements} }}"""
        return page.evaluate(script, argument)

    return run


def shapes():
    noise = np.random.default_rng(1)
    yield "one", torch.ones(1, 1)
    yield "none", torch.zeros(3, 5)
    yield "all", torch.ones(5, 3)
    yield "corner", torch.eye(4)[:, :3]
    yield "noise", torch.from_numpy(noise.integers(0, 2, (37, 61))).float()
    yield "tall", torch.from_numpy(noise.integers(0, 2, (300, 2))).float()
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(200.0), indexing="ij")
    yield "disc", ((x - 140) ** 2 + (y - 30) ** 2 < 600).float()


@pytest.mark.parametrize("mask", [pytest.param(mask, id=name) for name, mask in shapes()])
def test_masks_are_written_and_read_as_in_python(run, mask):
    written = run(
        "masks",
        """const [height, width] = [argument.length, argument[0].length];
        const pixels = { width, height, data: Uint8Array.from(argument.flat()) };
        return { mask: { size: [height, width], counts: module.encodeRuns(module.runsOf(pixels)) },
                 bounds: module.boundsOf(pixels) };""",
        mask.int().tolist(),
    )
    assert written["mask"] == encode_runs(mask)
    read = run("masks", "return Array.from(module.readMask(argument, 9, 9).data)", encode_runs(mask))
    assert torch.equal(torch.tensor(read).reshape(mask.shape), mask.int())
    rows, columns = mask.amax(1).nonzero().flatten(), mask.amax(0).nonzero().flatten()
    if len(rows):
        height, width = mask.shape
        box = [columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height]
        assert written["bounds"] == pytest.approx([float(value) for value in box])
    else:
        assert written["bounds"] is None


def test_a_scribble_of_1024_pixels_stays_small(run):
    mask = run(
        "masks",
        """const pixels = module.emptyPixels(1024, 1024);
        let last = [512, 512];
        for (let i = 1; i <= 400; i++) {
            const next = [512 + 480 * Math.sin(i * 0.7), 512 + 480 * Math.cos(i * 1.13)];
            module.paintLine(pixels, last, next, 6, i % 5 ? 1 : 0);
            last = next;
        }
        return module.writeMask(pixels)""",
    )
    covered = decode_runs(mask, MOST).float().mean()
    assert 0.3 < covered < 0.95  # a wild scribble, not a blob
    assert len(json.dumps(mask)) < 60_000


def test_a_line_covers_what_lies_within_its_radius(run):
    painted = run(
        "masks",
        """const pixels = module.emptyPixels(60, 40);
        return [Array.from(pixels.data), module.paintLine(pixels, [10.2, 12.7], [41, 30.5], 6.3, 1),
                Array.from(pixels.data)]""",
    )
    y, x = np.mgrid[0:40, 0:60] + 0.5
    start, along = np.array([10.2, 12.7]), np.array([41 - 10.2, 30.5 - 12.7])
    share = (((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (along @ along)).clip(0, 1)
    distance = np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])
    assert np.array_equal(np.array(painted[2]).reshape(40, 60) == 1, distance <= 6.3)
    left, top, right, bottom = painted[1]
    inside = np.zeros((40, 60), bool)
    inside[top:bottom, left:right] = True
    assert inside[distance <= 6.3].all()


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
    assert by_order(Layout.from_dict(written)) == by_order(LAYOUT)
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


def soft(values, height=4, width=4):
    """A soft mask as a layout's JSON holds it."""
    packed = base64.b64encode(zlib.compress(np.asarray(values, "<f4").tobytes())).decode()
    return {"height": height, "width": width, "float32_zlib_base64": packed}


def test_a_soft_mask_without_an_inside_stays_what_it_is(run):
    faint = soft(np.full(16, 0.3))
    moved, resized = run(
        "state",
        """const masks = await import("/extensions/stagecraft/layout_canvas/masks.js");
        if (!(await masks.loadSoftMask(argument))) throw new Error("it cannot be read");
        const [from, to] = [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]];
        const layout = { ...module.emptyLayout(), regions: [{ key: 1, mask: argument, box: from }] };
        const moved = module.settle({ ...layout.regions[0], box: to, warp: { from, to } }, layout);
        return [moved, module.resizeCanvas(layout, 256, 512).regions[0]]""",
        faint,
    )
    for region in (moved, resized):
        assert region == {"key": 1, "mask": faint, "box": [0, 0, 0.5, 0.5]}


def test_a_soft_mask_becomes_hard_with_a_word(run):
    layout = {"regions": [{"phrase": "a fog", "mask": soft(np.linspace(0, 1, 16))}]}
    notices = run(
        "editor",
        """const editor = new module.Editor({ changed() {} });
        editor.read(argument);
        const [region] = editor.layout.regions;
        for (let i = 0; i < 100 && !editor.pixelBox(region); i++) await new Promise((go) => setTimeout(go, 20));
        editor.change(region.key, { strength: 2 });
        const before = editor.notice;
        editor.duplicate(region.key);
        const copied = editor.notice;
        editor.undo();
        editor.say("");
        editor.resize(256, 256);
        return [before, copied, editor.notice]""",
        json.dumps(layout),
    )
    assert notices[0] == ""
    assert all("“a fog” has a hard mask now" in notice for notice in notices[1:])


@pytest.mark.parametrize(
    "mask",
    [soft(np.zeros(2**22)), soft(np.zeros(15)), soft(np.zeros(4), 2**14, 2**14), soft([]) | {"width": -4}],
    ids=["bomb", "short", "huge", "negative"],
)
def test_a_damaged_soft_mask_is_unpacked_at_most_once_and_never_as_a_whole(run, mask):
    loaded, streams, given = run(
        "masks",
        """let [streams, given] = [0, 0];
        const Own = window.DecompressionStream;
        window.DecompressionStream = function (kind) {
            streams++;
            const own = new Own(kind);
            const count = new TransformStream({ transform(chunk, to) { given += chunk.length; to.enqueue(chunk) } });
            return { writable: own.writable, readable: own.readable.pipeThrough(count) };
        };
        try {
            const loaded = [await module.loadSoftMask(argument), await module.loadSoftMask(argument)];
            return [[...loaded, module.readMask(argument, 8, 8)], streams, given];
        } finally { window.DecompressionStream = Own }""",
        mask,
    )
    assert loaded == [False, False, None]
    assert streams <= (mask["width"] == mask["height"] == 4)
    assert given < 2**20


def test_masks_beyond_the_limit_for_all_are_not_unpacked(run):
    drawn = run(
        "masks",
        """const masks = Array.from({ length: 5 }, () => ({ size: [8192, 8192], counts: [2 ** 26] }));
        const last = masks[4];
        const drawn = [];
        for (const list of [masks, masks.slice(1), masks]) {
            module.limitMasks(list);
            drawn.push(module.readMask(last, 64, 64) !== null);
        }
        return drawn""",
    )
    assert drawn == [False, True, False]


def test_pixels_of_a_mask_that_only_an_undo_brings_back_are_let_go(run):
    layout = {"regions": [{"phrase": "a", "mask": encode_runs(torch.eye(64))}]}
    seen = run(
        "editor",
        """const masks = await import("/extensions/stagecraft/layout_canvas/masks.js");
        const editor = new module.Editor({ changed() {} });
        editor.read(argument);
        const [{ key, mask }] = editor.layout.regions;
        const before = masks.readMask(mask, 512, 512);
        editor.change(key, { strength: 2 });
        const kept = masks.readMask(mask, 512, 512) === before;
        editor.change(key, { mask: masks.writeMask(masks.emptyPixels(64, 64)), box: [0, 0, 1, 1] });
        const letGo = masks.readMask(mask, 512, 512) !== before;
        editor.undo();
        const again = masks.readMask(editor.layout.regions[0].mask, 512, 512);
        return [kept, letGo, again.data.every((value, at) => value === before.data[at])]""",
        json.dumps(layout),
    )
    assert seen == [True, True, True]


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


COCO = {
    "images": [{"id": 7, "width": 400, "height": 300, "file_name": "x.jpg"}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "tree"}],
    "annotations": [
        {"image_id": 7, "category_id": 2, "bbox": [20, 30, 60, 90]},
        {"image_id": 7, "category_id": 1, "bbox": [100, 60, 200, 150], "segmentation": [[100, 60, 300, 60, 300, 210]]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "segmentation": encode_runs(torch.ones(300, 400))},
    ],
}
PICTURES = {
    "images": [{"id": 1, "width": 64, "height": 48}, {"id": 2, "width": 100, "height": 100}],
    "categories": [{"id": 1, "name": "dog"}],
    "annotations": [
        {"image_id": 2, "category_id": 1, "bbox": [0, 0, 9, 9], "caption": "another one"},
        # Its box is larger than the tree's, but not what is inside its outline.
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 60, 40], "segmentation": [[0, 0, 60, 0, 0, 4, 0, 40]]},
        {"image_id": 1, "phrase": "a tree", "bbox": [4, 4, 32, 32]},
        {"image_id": 1, "caption": " a dog and a tree "},
    ],
}
GLIGEN = {"phrases": ["a dog", "a cat"], "boxes": [[0.1, 0.2, 0.4, 0.5], [0.5, 0.1, 1.0, 0.9]]}
ELEMENTS = [{"type": "obj", "bbox": [100, 200, 500, 600], "desc": "a lamp"}]
FRAMES = [[{"x": 51, "y": 102, "width": 256, "height": 204, "metadata": {"text": "a boat"}}]]


@pytest.mark.parametrize(
    "data", [COCO, PICTURES, GLIGEN, ELEMENTS, FRAMES], ids=["coco", "pictures", "gligen", "elements", "frames"]
)
def test_foreign_layouts_are_read_as_in_python(run, data):
    text = json.dumps(data)
    script = """const state = await import("/extensions/stagecraft/layout_canvas/state.js");
        return state.writeLayout(module.importText(argument, state.emptyLayout(512, 512)))"""
    written = json.loads(run("import", script, text))
    ours, theirs = Layout.from_dict(written), import_layout(text)
    assert (ours.width, ours.height) == (theirs.width, theirs.height)
    # Without a prompt of the text's own it stays empty here and goes on to follow the phrases.
    assert written["prompt"] == (theirs.prompt if data is PICTURES else "")
    pairs = list(zip(ours.sorted_regions(), theirs.sorted_regions(), strict=True))
    assert pairs
    for mine, other in pairs:
        assert mine.phrase == other.phrase
        masks = (region.mask_on(ours.height, ours.width) for region in (mine, other))
        difference = torch.sub(*masks).abs().sum()
        # A pixel along a slanted edge may fall to either side.
        assert difference <= 400


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        (encode_runs(torch.zeros(300, 400)), None),  # nothing inside, so the bbox counts
        ({"size": [300, 400], "counts": "~~~"}, "of “dog” cannot be read: the text of a mask is damaged"),
        ({"size": [300, 400], "counts": [7]}, "of “dog” cannot be read: the runs of a mask do not fill its size"),
        ({"size": [2**20, 2**20], "counts": [2**40]}, "1048576 × 1048576 pixels; at most 67108864"),
    ],
    ids=["empty", "text", "runs", "huge"],
)
def test_a_coco_outline_that_cannot_be_read_is_named(run, outline, message):
    annotation = {"image_id": 7, "category_id": 1, "bbox": [20, 30, 60, 90], "segmentation": outline}
    found = run(
        "import",
        """const state = await import("/extensions/stagecraft/layout_canvas/state.js");
        try { return module.importText(argument, state.emptyLayout(512, 512)).regions.map((each) => each.box) }
        catch (error) { return error instanceof state.LayoutTextError ? error.message : `crashed: ${error}` }""",
        json.dumps(COCO | {"annotations": [annotation]}),
    )
    if message is None:
        assert found == [pytest.approx([20 / 400, 30 / 300, 80 / 400, 120 / 300])]
    else:
        assert message in found
        assert not found.startswith("crashed")
