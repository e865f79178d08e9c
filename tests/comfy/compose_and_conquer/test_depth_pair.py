"""Depth Pair as the graph runs it: every source and variant, batches, sizes, and what it refuses before the run."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from stagecraft.core.compose_and_conquer.depth_pair import CUT_OUT, MASKED, VARIANTS, WHOLE, DepthPairError
from stagecraft.core.layout.reading import parse_layout
from stagecraft.nodes.compose_and_conquer.depth_pair import ONE, PLANES, TWO, StageDepthPair
from stagecraft.nodes.layout.layout import StageLayout, StageLayoutBatch

import nodes as comfy_nodes

DEFAULTS = {"variant": CUT_OUT, "margin": 0, "front": 1, "ground": 0.0, "round_boxes": False}
HEIGHT, WIDTH = 48, 64


def run(source, **given):
    """Outputs of the node, which are ordinary IMAGEs and a MASK whatever came in."""
    foreground, background, mask, preview = StageDepthPair.execute(source, **{**DEFAULTS, **given}).args
    assert foreground.shape == background.shape == preview.shape and foreground.shape[-1] == 3
    assert mask.shape == foreground.shape[:3] and set(mask.unique().tolist()) <= {0.0, 1.0}
    for each in (foreground, background, preview):
        assert each.dtype == torch.float32 and 0 <= each.min() and each.max() <= 1
        assert (each == each[..., :1]).all()
    return foreground, background, mask, preview


def depth(batch=1, height=HEIGHT, width=WIDTH, seed=0):
    """An IMAGE as a depth preprocessor makes one: grey, in 0..1."""
    values = torch.rand(batch, height, width, 1, generator=torch.Generator().manual_seed(seed))
    return (0.2 + 0.6 * values).expand(-1, -1, -1, 3)


def square(batch=1, height=HEIGHT, width=WIDTH):
    mask = torch.zeros(batch, height, width)
    mask[:, height // 4 : height // 2, width // 4 : width // 2] = 1
    return mask


@pytest.fixture
def check(monkeypatch):
    """What ComfyUI itself finds wrong with the node in a queued graph: a sentence for each input that it blames."""
    import execution

    monkeypatch.setitem(comfy_nodes.NODE_CLASS_MAPPINGS, "StageDepthPair", StageDepthPair)
    monkeypatch.setitem(comfy_nodes.NODE_CLASS_MAPPINGS, "StageLayout", StageLayout)

    def check(**given):
        pixels = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
        canvas = {"layout": "a dog: 0 0 1 1", "prompt": "", "background": "", "width": 64, "height": 64}
        prompt = {
            "image": {"class_type": "EmptyImage", "inputs": pixels},
            "mask": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}},
            "layout": {"class_type": "StageLayout", "inputs": canvas},
            "pair": {"class_type": "StageDepthPair", "inputs": {**DEFAULTS, **given}},
        }
        if "SolidMask" not in comfy_nodes.NODE_CLASS_MAPPINGS:
            from comfy_extras.nodes_mask import SolidMask

            monkeypatch.setitem(comfy_nodes.NODE_CLASS_MAPPINGS, "SolidMask", SolidMask)
        # In a thread of its own: after browser tests an event loop is running in this one.
        with ThreadPoolExecutor(1) as thread:
            checking = execution.validate_inputs("test", prompt, "pair", {})
            _, errors, _ = thread.submit(asyncio.run, checking).result()
        return [error["details"] for error in errors]

    return check


@pytest.mark.parametrize(
    ("source", "connected", "message"),
    [
        (TWO, (), "foreground_depth or background_depth, and neither is connected"),
        (TWO, ("depth", "mask"), "neither is connected"),
        (ONE, ("depth",), "depth and mask, but mask is not connected"),
        (ONE, ("layout", "foreground_depth"), "but depth and mask are not connected"),
        (PLANES, ("depth", "mask"), "needs layout, but layout is not connected"),
        ("photographs", ("depth", "mask"), 'no source "photographs"; expected one of: two depth images'),
    ],
)
def test_missing_inputs_show_in_the_editor_and_in_the_run(check, source, connected, message):
    kinds = {"mask": ["mask", 0], "layout": ["layout", 0]}
    found = check(source=source, **{name: kinds.get(name, ["image", 0]) for name in connected})
    assert found and all(message in each for each in found)
    values = {"mask": square(), "layout": parse_layout("a dog: 0 0 1 1", width=64, height=64)}
    with pytest.raises(ValueError, match=message):
        run(source, **{name: values.get(name, depth()) for name in connected})


def test_sources_with_their_inputs_pass(check):
    image = ["image", 0]
    assert check(source=TWO, foreground_depth=image) == [] == check(source=TWO, background_depth=image)
    assert check(source=ONE, depth=image, mask=["mask", 0]) == []
    assert check(source=PLANES, layout=["layout", 0]) == []
    assert StageDepthPair.validate_inputs(None) is True  # a connected source is not known yet


def test_two_depth_images_stay_whole_without_a_mask_and_follow_the_variant_with_one():
    near, far, mask = depth(seed=1), depth(seed=2), square()
    foreground, background, found, _ = run(TWO, foreground_depth=near, background_depth=far)
    assert foreground.amin() == background.amin() == 0 and foreground.amax() == background.amax() == 1
    assert torch.equal(found, (foreground[..., 0] > 0.1).float())
    swapped = run(TWO, foreground_depth=far, background_depth=near)
    assert torch.equal(swapped[0], background) and torch.equal(swapped[1], foreground)
    cut = {name: run(TWO, foreground_depth=near, background_depth=far, mask=mask, variant=name) for name in VARIANTS}
    assert all(torch.equal(each[2], mask) and torch.equal(each[1], background) for each in cut.values())
    assert torch.equal(cut[WHOLE][0], foreground)
    torch.testing.assert_close(cut[MASKED][0], foreground * mask[..., None])
    inside = mask[..., None].expand(-1, -1, -1, 3) > 0
    torch.testing.assert_close(cut[CUT_OUT][0][inside], near[inside] / near[inside].max())


@pytest.mark.parametrize("name", ["foreground_depth", "background_depth"])
def test_one_depth_of_two_leaves_the_other_map_empty(name):
    pair = dict(zip(("foreground_depth", "background_depth"), run(TWO, **{name: depth(2)})[:2], strict=True))
    assert pair.pop(name).amax() == 1
    (other,) = pair.values()
    assert other.shape == (2, HEIGHT, WIDTH, 3) and not other.any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_depth_image_loses_its_foreground_from_the_background(variant):
    slope = torch.linspace(0, 0.5, HEIGHT)[None, :, None].expand(1, -1, WIDTH)
    mask = square()
    seen = torch.where(mask > 0, 0.9, slope)[..., None].expand(-1, -1, -1, 3)
    foreground, background, found, preview = run(ONE, depth=seen, mask=mask, variant=variant, margin=2)
    assert torch.equal(found, mask) and (foreground[mask > 0] == 1).all()
    assert (foreground[mask == 0].amax() > 0) == (variant == WHOLE)
    # A strip as wide as the picture tells how near what is left may come: the hole goes on with the slope around it.
    assert (background[..., 0] - 2 * slope).abs().max() < 0.2
    assert preview[mask > 0].min() >= 0.5 and preview[mask == 0].max() <= 0.5


def test_batches_and_sizes_come_together():
    two, mask = depth(2), square(1, 2 * HEIGHT, 2 * WIDTH)
    both = run(ONE, depth=two, mask=mask)
    assert both[0].shape == (2, HEIGHT, WIDTH, 3) and torch.equal(both[2], square(2))
    for row in range(2):
        alone = run(ONE, depth=two[row : row + 1], mask=square())
        assert all(torch.equal(one[0], each[row]) for one, each in zip(alone, both, strict=True))
    larger = run(TWO, foreground_depth=depth(3, 2 * HEIGHT, 2 * WIDTH), background_depth=depth())
    assert larger[1].shape == (3, 2 * HEIGHT, 2 * WIDTH, 3)
    with pytest.raises(DepthPairError, match="depth has 2 pictures, another input has 3"):
        run(ONE, depth=two, mask=square(3))
    with pytest.raises(DepthPairError, match=r"mask has 64 x 64 pixels, which is not the shape of depth \(64 x 48\)"):
        run(ONE, depth=two, mask=square(1, 64, 64))
    assert run(TWO, foreground_depth=torch.cat([depth(), torch.zeros(1, HEIGHT, WIDTH, 1)], -1))[0].amax() == 1


def test_layouts_are_drawn_nearest_on_top_and_masks_as_silhouettes():
    ring = torch.zeros(HEIGHT, WIDTH)
    ring[8:40, 8:56] = 1
    ring[16:32, 16:48] = 0
    text = "a ring: mask 1 | order=2\na tree: 0 0 0.5 1\na house: 0.25 0 1 1 | order=1"
    layout = parse_layout(text, width=WIDTH, height=HEIGHT, masks=[ring])
    foreground, background, mask, _ = run(PLANES, layout=layout, round_boxes=True)
    assert torch.equal(mask[0], ring) and torch.equal(foreground[0, ..., 0], ring)
    flat = run(PLANES, layout=layout)[1][0, ..., 0]
    assert flat[24, 40] == flat[24, 20] == 1 > flat[24, 8] > 0  # the house covers the tree, also behind the ring
    assert (background[..., 0] <= flat).all() and background[0, 0, 0, 0] == 0  # ellipses lie inside their boxes
    two = run(PLANES, layout=layout, front=2)
    assert torch.equal(two[2][0], ((ring > 0) | (flat == 1)).float())
    assert two[0][0, 10, 60, 0] < two[0][0, 10, 10, 0] == 1  # among those in front, too, the nearer shows
    order = {"a tree": 3, "a house": 1, "a ring": 2}
    changed = "\n".join(
        f"{phrase}: {place} | order={order[phrase]}"
        for phrase, place in (("a ring", "mask 1"), ("a tree", "0 0 0.5 1"), ("a house", "0.25 0 1 1"))
    )
    nearest = run(PLANES, layout=parse_layout(changed, width=WIDTH, height=HEIGHT, masks=[ring]))
    assert nearest[2][0, :, : WIDTH // 2].all() and not nearest[2][0, :, WIDTH // 2 :].any()


def test_a_batch_of_layouts_gives_a_batch_of_pairs():
    layouts = [parse_layout(f"a dog: 0 0 {x} 1", width=WIDTH, height=HEIGHT) for x in (0.25, 0.5)]
    (batch,) = StageLayoutBatch.execute(*layouts).args
    together = run(PLANES, layout=batch, ground=0.2)
    alone = [run(PLANES, layout=layout, ground=0.2) for layout in layouts]
    for number, output in enumerate(together):
        assert torch.equal(output, torch.cat([each[number] for each in alone]))
    with pytest.raises(DepthPairError, match="front is 2, but the layout has 1 regions"):
        run(PLANES, layout=batch, front=2)
