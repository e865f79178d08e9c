"""The canvas' masks in the browser, against the core's Python and by themselves."""

import base64
import json
import zlib

import numpy as np
import pytest
import torch
from stagecraft.core.layout.region import Region
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
        "runs",
        """const { boundsOf } = await import("/extensions/stagecraft/layout_canvas/pixels.js");
        const [height, width] = [argument.length, argument[0].length];
        const pixels = { width, height, data: Uint8Array.from(argument.flat()) };
        return { mask: { size: [height, width], counts: module.encodeRuns(module.runsOf(pixels)) },
                 bounds: boundsOf(pixels) };""",
        (255 * mask.int()).tolist(),
    )
    assert written["mask"] == encode_runs(mask)
    read = run("masks", "return Array.from(module.readMask(argument, 9, 9).data)", encode_runs(mask))
    assert torch.equal(torch.tensor(read).reshape(mask.shape), 255 * mask.int())
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
        """const { emptyPixels } = await import("/extensions/stagecraft/layout_canvas/pixels.js");
        const { paintLine } = await import("/extensions/stagecraft/layout_canvas/painting.js");
        const pixels = emptyPixels(1024, 1024);
        let last = [512, 512];
        for (let i = 1; i <= 400; i++) {
            const next = [512 + 480 * Math.sin(i * 0.7), 512 + 480 * Math.cos(i * 1.13)];
            paintLine(pixels, last, next, 6, i % 5 > 0);
            last = next;
        }
        return module.writeMask(pixels)""",
    )
    covered = decode_runs(mask, MOST).float().mean()
    assert 0.3 < covered < 0.95  # a wild scribble, not a blob
    assert len(json.dumps(mask)) < 60_000


@pytest.mark.parametrize("softness", [0, 0.4, 1])
def test_a_line_covers_what_lies_within_its_radius(run, softness):
    painted = run(
        "painting",
        """const { emptyPixels } = await import("/extensions/stagecraft/layout_canvas/pixels.js");
        const pixels = emptyPixels(60, 40);
        const changed = module.paintLine(pixels, [10.2, 12.7], [41, 30.5], 6.3, true, argument);
        const added = Array.from(pixels.data);
        module.paintLine(pixels, [10.2, 12.7], [41, 30.5], 6.3, false, argument);
        return [changed, added, Array.from(pixels.data)]""",
        softness,
    )
    y, x = np.mgrid[0:40, 0:60] + 0.5
    start, along = np.array([10.2, 12.7]), np.array([41 - 10.2, 30.5 - 12.7])
    share = (((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (along @ along)).clip(0, 1)
    distance = np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])
    added, left_over = (np.array(each).reshape(40, 60) for each in painted[1:])
    hard = 6.3 * (1 - softness)
    far = ((distance - hard) / (6.3 - hard)).clip(0, 1) if softness else (distance > hard).astype(float)
    assert np.abs(added - 255 * (1 - far * far * (3 - 2 * far))).max() <= 0.51
    assert np.array_equal(left_over, np.minimum(added, 255 - added))
    left, top, right, bottom = painted[0]
    inside = np.zeros((40, 60), bool)
    inside[top:bottom, left:right] = True
    assert inside[distance <= 6.3].all() and not added[distance > 6.3].any()


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


def greys(height, width):
    """What a soft brush and a segmenter leave: nothing, all, a ramp, and noise."""
    noise = np.random.default_rng(3)
    y, x = np.mgrid[0:height, 0:width]
    yield "one", np.full((1, 1), 77)
    yield "ramp", np.arange(256).reshape(16, 16)
    yield "noise", noise.integers(0, 256, (37, 61))
    yield "disc", (255 * (1.5 - np.hypot(x - width / 3, y - height / 2) / height * 4).clip(0, 1)).round()
    yield "columns", np.tile(noise.integers(0, 256, width), (height, 1))


@pytest.mark.parametrize("levels", [pytest.param(each.astype(np.uint8), id=name) for name, each in greys(300, 400)])
def test_greys_are_packed_as_zlib_reads_them_and_read_as_python_packs_them(run, levels):
    height, width = levels.shape
    written = run(
        "masks",
        """const data = Uint8Array.from(atob(argument.text), (letter) => letter.charCodeAt(0));
        return module.writeMask({ width: argument.width, height: argument.height, data })""",
        {"width": width, "height": height, "text": base64.b64encode(levels.tobytes()).decode()},
    )
    unpacked = zlib.decompress(base64.b64decode(written["uint8_zlib_base64"]))
    assert np.array_equal(np.frombuffer(unpacked, np.uint8).reshape(height, width), levels)
    mask = Region("a", mask=torch.from_numpy(levels.astype(np.float32) / 255))
    assert Region.from_dict({"phrase": "a", "mask": written, "box": None}) == mask
    read = run(
        "masks",
        "await module.loadSoftMask(argument); return Array.from(module.readMask(argument, 9, 9).data)",
        mask.to_dict()["mask"],
    )
    assert np.array_equal(np.array(read).reshape(height, width), levels)


def test_a_soft_disc_of_1024_pixels_stays_small_and_is_packed_at_once(run):
    text, milliseconds = run(
        "masks",
        """const { emptyPixels } = await import("/extensions/stagecraft/layout_canvas/pixels.js");
        const { paintLine } = await import("/extensions/stagecraft/layout_canvas/painting.js");
        const pixels = emptyPixels(1024, 1024);
        paintLine(pixels, [300, 500], [700, 550], 200, true, 0.6);
        const start = performance.now();
        const mask = module.writeMask(pixels);
        return [JSON.stringify(mask), performance.now() - start]""",
    )
    assert len(text) < 400_000
    assert milliseconds < 2000  # a busy machine; alone it takes about 40


def test_a_soft_mask_stays_soft_through_every_edit_and_untouched_it_stays_as_it_is(run):
    fine = soft(np.linspace(0, 1, 16) ** 2)
    layout = {"width": 64, "height": 64, "regions": [{"phrase": "a fog", "mask": fine}]}
    untouched, copied, resized, notice = run(
        "editor",
        """const { readMask } = await import("/extensions/stagecraft/layout_canvas/masks.js");
        const editor = new module.Editor({ changed() {} });
        editor.read(argument);
        const [region] = editor.layout.regions;
        for (let i = 0; i < 100 && !editor.pixelBox(region); i++) await new Promise((go) => setTimeout(go, 20));
        editor.change(region.key, { strength: 2 });
        const untouched = JSON.parse(editor.text).regions[0].mask;
        editor.duplicate(region.key);
        const copied = JSON.parse(editor.text).regions[1].mask;
        editor.undo();
        editor.resize(128, 128);
        return [untouched, copied, JSON.parse(editor.text).regions[0].mask, editor.notice]""",
        json.dumps(layout),
    )
    assert untouched == fine and notice == ""
    for mask in (copied, resized):
        values = Region.from_dict({"phrase": "a", "mask": mask}).mask
        assert len(values.unique()) > 8, "greys, not two values"
    grown = Region.from_dict({"phrase": "a", "mask": resized}).mask
    expected = np.repeat(np.repeat((np.linspace(0, 1, 16) ** 2).reshape(4, 4), 32, 0), 32, 1)
    assert np.abs(grown.numpy() - expected).max() <= 0.5 / 255 + 1e-6


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
        const pixels = await import("/extensions/stagecraft/layout_canvas/pixels.js");
        const editor = new module.Editor({ changed() {} });
        editor.read(argument);
        const [{ key, mask }] = editor.layout.regions;
        const before = masks.readMask(mask, 512, 512);
        editor.change(key, { strength: 2 });
        const kept = masks.readMask(mask, 512, 512) === before;
        editor.change(key, { mask: masks.writeMask(pixels.emptyPixels(64, 64)), box: [0, 0, 1, 1] });
        const letGo = masks.readMask(mask, 512, 512) !== before;
        editor.undo();
        const again = masks.readMask(editor.layout.regions[0].mask, 512, 512);
        return [kept, letGo, again.data.every((value, at) => value === before.data[at])]""",
        json.dumps(layout),
    )
    assert seen == [True, True, True]
