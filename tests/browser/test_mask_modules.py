"""The canvas' masks in the browser, against the core's Python and by themselves."""

import base64
import json
import zlib

import numpy as np
import pytest
import torch
from stagecraft.core.layout.run_length import decode_runs, encode_runs

MOST = 2**26


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


def soft(values, height=4, width=4):
    """A soft mask as a layout's JSON holds it."""
    packed = base64.b64encode(zlib.compress(np.asarray(values, "<f4").tobytes())).decode()
    return {"height": height, "width": width, "float32_zlib_base64": packed}


def test_a_soft_mask_without_an_inside_stays_what_it_is(run):
    faint = soft(np.full(16, 0.05))  # below a sixteenth, a mask is empty
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
