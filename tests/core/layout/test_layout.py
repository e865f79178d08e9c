"""Layouts: text and JSON in, errors that say what to change, and masks that are exact areas."""

import base64
import json
import math
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stagecraft.core.layout.boxes import read_bounding_boxes
from stagecraft.core.layout.layout import Layout, LayoutError, Region
from stagecraft.core.layout.masks import box_coverage, is_same_aspect, resample_by_area
from stagecraft.core.layout.preview import draw_layout
from stagecraft.core.layout.reading import layout_from_data, parse_layout
from stagecraft.core.layout.writing import write_bounding_boxes

SIDES = st.integers(1, 23)
SHARES = st.floats(0, 1, width=32)


@st.composite
def boxes(draw):
    x0, x1 = sorted(draw(st.lists(SHARES, min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(draw(st.lists(SHARES, min_size=2, max_size=2, unique=True)))
    return x0, y0, x1, y1


@st.composite
def soft_masks(draw, height, width):
    seed, factor = draw(st.integers(0, 2**31)), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(height * factor, width * factor, generator=generator).clamp(min=1e-3)


@st.composite
def layouts(draw, with_masks=True):
    width, height = draw(st.integers(16, 40)), draw(st.integers(16, 40))
    regions = []
    for _ in range(draw(st.integers(1, 5))):
        mask = draw(soft_masks(height, width)) if with_masks and draw(st.booleans()) else None
        box = None if mask is not None and draw(st.booleans()) else draw(boxes())
        colour = draw(st.sampled_from(["", "red", "#12ab9f"]))
        text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")))
        phrase = draw(text.filter(lambda words: words.strip()))
        strength = draw(st.floats(-3, 3))
        regions.append(Region(phrase, box, mask, draw(text), strength, draw(st.integers(-2, 2)), colour))
    return Layout(width, height, draw(st.sampled_from(["", "a scene"])), "on grass", tuple(regions))


def slow_coverage(box, height, width):
    """Every cell's overlap with the box, one cell at a time."""
    x0, y0, x1, y1 = box
    cells = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            across = min(x1, (column + 1) / width) - max(x0, column / width)
            down = min(y1, (row + 1) / height) - max(y0, row / height)
            cells[row, column] = max(across, 0) * width * max(down, 0) * height
    return cells


def slow_resample(mask, height, width):
    """Every new cell as the sum of the old cells' overlaps with it, one pair at a time."""
    old_height, old_width = mask.shape
    out = torch.zeros(height, width)
    for row in range(height):
        for column in range(width):
            cell = (column / width, row / height, (column + 1) / width, (row + 1) / height)
            out[row, column] = (slow_coverage(cell, old_height, old_width) * mask).sum() * height * width
    return out / (old_height * old_width)


@given(boxes(), SIDES, SIDES)
def test_box_coverage_is_exact_area(box, height, width):
    fast = box_coverage(box, height, width)
    torch.testing.assert_close(fast, slow_coverage(box, height, width), atol=1e-5, rtol=0)
    area = (box[2] - box[0]) * (box[3] - box[1])
    assert fast.double().mean().item() == pytest.approx(area, abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(7, 5), (64, 64), (33, 90)])
def test_full_box_is_exactly_one(height, width):
    assert torch.equal(box_coverage((0, 0, 1, 1), height, width), torch.ones(height, width))


def test_box_on_an_odd_grid():
    assert box_coverage((0, 0, 0.5, 1), 1, 5).tolist() == [[1, 1, 0.5, 0, 0]]


@given(*[st.integers(1, 9)] * 4, st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_resampling_is_by_area(old_height, old_width, height, width, seed):
    mask = torch.rand(old_height, old_width, generator=torch.Generator().manual_seed(seed))
    fast = resample_by_area(mask, height, width)
    torch.testing.assert_close(fast, slow_resample(mask, height, width), atol=1e-5, rtol=0)
    assert fast.double().mean().item() == pytest.approx(mask.double().mean().item(), abs=1e-6)


@given(SIDES, SIDES, SIDES, SIDES)
def test_resampled_ones_are_exactly_ones(old_height, old_width, height, width):
    assert torch.equal(
        resample_by_area(torch.ones(1, old_height, old_width), height, width), torch.ones(1, height, width)
    )


def test_resampling_to_the_same_size_changes_nothing():
    mask = torch.rand(3, 9, 7)
    assert torch.equal(resample_by_area(mask, 9, 7), mask)


@given(layouts(), SIDES, SIDES)
@settings(max_examples=60, deadline=None)
def test_visible_masks_are_a_partition_of_unity(layout, height, width):
    visible = layout.visible_masks(height, width)
    assert visible.shape == (len(layout.regions) + 1, height, width)
    assert visible.min() >= 0
    torch.testing.assert_close(visible.sum(0), torch.ones(height, width), atol=1e-6, rtol=0)


@given(layouts())
@settings(max_examples=30, deadline=None)
def test_visible_masks_are_over_compositing_per_pixel(layout):
    """Painting opaque colours i from the farthest to the nearest leaves sum_i visible_i * i, pixel by pixel."""
    own, visible = layout.masks(layout.height, layout.width), layout.visible_masks(layout.height, layout.width)
    for row, column in [(0, 0), (layout.height // 2, layout.width // 2), (layout.height - 1, 3)]:
        weights = [1.0]
        for mask in own:
            opacity = mask[row, column].item()
            weights = [weight * (1 - opacity) for weight in weights] + [opacity]
        assert visible[:, row, column].tolist() == pytest.approx(weights, abs=1e-6)


@given(boxes(), SIDES, SIDES)
def test_a_single_region_is_seen_as_its_own_mask(box, height, width):
    layout = Layout(64, 48, "", "", (Region("a dog", box),))
    assert layout.masks(height, width).shape == (1, height, width)
    torch.testing.assert_close(
        layout.visible_masks(height, width)[1], layout.masks(height, width)[0], atol=1e-6, rtol=0
    )


def test_boxes_that_touch_inside_a_cell_leave_no_background_between_them():
    layout = parse_layout("a dog: 0 0 0.5 1\na cat: 0.5 0 1 1", width=32, height=32)
    torch.testing.assert_close(layout.visible_masks(1, 3)[:, 0], torch.tensor([[0, 0, 0], [1, 0.5, 0], [0, 0.5, 1.0]]))


def test_painters_order():
    text = "a dog: 0 0 1 1 | order=1\na cat: 0 0 0.5 1 | order=1\na tree: 0 0 1 1 | order=-3"
    layout = parse_layout(text, width=16, height=16)
    assert [region.phrase for region in layout.sorted_regions()] == ["a tree", "a dog", "a cat"]
    assert layout.visible_masks(1, 2)[:, 0].tolist() == [[0, 0], [0, 0], [0, 1], [1, 0]]


@given(layouts())
@settings(max_examples=60, deadline=None)
def test_json_round_trip_is_exact(layout):
    again = layout_from_data(json.loads(json.dumps(layout.to_dict())))
    assert again == layout
    assert hash(again) == hash(layout)
    assert parse_layout(json.dumps(layout.to_dict())) == layout


def test_layouts_differ_by_a_single_mask_value():
    mask = torch.full((16, 16), 0.5)
    other = mask.clone()
    other[3, 4] = 0.6
    first, second = (Layout(16, 16, "", "", (Region("a dog", mask=each),)) for each in (mask, other))
    assert first != second


def test_lines():
    text = """
    # a comment
    a dog: 0.1, 0.2 0.5 0.8 | a fluffy brown dog, 3=4 | colour=#ff8800 | strength = 1.5
    12:30 on a clock: 0 0 1 1|order=-2
    """
    layout = parse_layout(text, width=640, height=480, background="in a room")
    dog, clock = layout.regions
    assert dog == Region("a dog", (0.1, 0.2, 0.5, 0.8), None, "a fluffy brown dog, 3=4", 1.5, 0, "#ff8800")
    assert clock == Region("12:30 on a clock", (0, 0, 1, 1), order=-2)
    assert (layout.width, layout.height) == (640, 480)
    assert layout.prompt == "a dog and 12:30 on a clock in a room"


def test_joined_prompt():
    assert parse_layout("a: 0 0 1 1\nb: 0 0 1 1\nc: 0 0 1 1", background="at night").prompt == "a, b and c at night"
    assert parse_layout("a: 0 0 1 1", prompt="mine").prompt == "mine"


def test_json_wins_over_what_is_given_and_a_list_is_enough():
    region = {"phrase": "a dog", "box": [0, 0, 1, 1], "color": "red"}
    layout = parse_layout(json.dumps({"width": 64, "prompt": "", "regions": [region]}), width=32, height=48, prompt="p")
    assert (layout.width, layout.height, layout.prompt, layout.regions[0].colour) == (64, 48, "p", "red")
    assert parse_layout(json.dumps([region])).regions == layout.regions


def test_masks_by_number_and_in_order():
    first, second = torch.ones(20, 20), torch.full((40, 40), 0.5)
    layout = parse_layout("a dog: mask 2\na cat: 0 0 1 1\na tree: MASK 1", masks=[first, second])
    assert torch.equal(layout.regions[0].mask, second) and torch.equal(layout.regions[2].mask, first)
    assert layout.regions[1].mask is None
    layout = parse_layout("a dog\na cat: 0 0 1 1", masks=[first, second])
    assert torch.equal(layout.regions[0].mask, first) and torch.equal(layout.regions[1].mask, second)


def test_bounding_boxes_in_every_shape():
    box = {"x": 16, "y": 8, "width": 32, "height": 40, "metadata": {"text": "a cat"}}
    element = {"type": "obj", "bbox": [125, 250, 750, 750], "desc": "a cat"}
    expected = [{"box": (0.25, 0.125, 0.75, 0.75), "phrase": "a cat"}]
    for value in (box, [box], [[box]], {"boxes": [box]}, json.dumps([box]), [element], [[element]]):
        assert read_bounding_boxes(value, 64, 64) == expected
    assert parse_layout("", width=64, height=64, boxes=box).regions == (Region("a cat", expected[0]["box"]),)
    layout = parse_layout("a tree: 0 0 1 1\na dog", width=64, height=64, boxes=[[box]])
    assert [region.phrase for region in layout.regions] == ["a tree", "a dog"]
    assert layout.regions[1].box == expected[0]["box"]


@given(layouts(with_masks=False))
@settings(max_examples=40, deadline=None)
def test_written_boxes_are_rounded_to_whole_pixels(layout):
    read = read_bounding_boxes(write_bounding_boxes(layout), layout.width, layout.height)
    sides = (layout.width, layout.height) * 2
    for region, box in zip(layout.sorted_regions(), read, strict=True):
        assert box["phrase"] == region.phrase.strip()
        for i, (old, new, side) in enumerate(zip(region.box, box["box"], sides, strict=True)):
            thinner_than_a_pixel = (region.box[i % 2 + 2] - region.box[i % 2]) * side < 1
            assert abs(old - new) * side <= 0.5 + thinner_than_a_pixel + 1e-5


def test_written_box_of_a_mask():
    mask = torch.zeros(32, 32)
    mask[4:9, 10:30] = 0.3
    (written,) = write_bounding_boxes(Layout(32, 32, "", "", (Region("a dog", mask=mask),)))
    assert written[0] | {"metadata": None} == {"x": 10, "y": 4, "width": 20, "height": 5, "metadata": None}


TWO_BY_TWO = base64.b64encode(zlib.compress(bytes(16))).decode()
GOOD = {"phrase": "a dog", "box": [0, 0, 1, 1]}
BAD_TEXTS = {
    "": "empty",
    "\n# nothing\n": "empty",
    "[]": "empty",
    "a dog": "neither a box nor a mask",
    "a dog: 0.1 0.2 0.3": "four numbers",
    "a dog: 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8": "four numbers",
    "a dog: left": "four numbers",
    "a dog:": "four numbers",
    "a dog: 0.1 0.2 1.2 0.4": "leaves the canvas",
    "a dog: -0.1 0.2 0.9 0.4": "leaves the canvas",
    "a dog: 10 20 200 300": "not pixels",
    "a dog: 0.5 0.2 0.1 0.4": "reversed corners; expected the top left corner first: 0.1 0.2 0.5 0.4",
    "a dog: 0.1 0.4 0.5 0.2": "reversed corners",
    "a dog: 0.1 0.2 0.1 0.4": "no area",
    "a dog: nan 0.2 0.5 0.4": "finite",
    "a dog: 0.1 0.2 inf 0.4": "finite",
    ": 0 0 1 1": "no phrase",
    "a dog: 0 0 1 1 | one | two": "two prompts",
    "a dog: 0 0 1 1 | strenght=2": 'Did you mean "strength"',
    "a dog: 0 0 1 1 | strength=big": "a number",
    "a dog: 0 0 1 1 | strength=inf": "finite",
    "a dog: 0 0 1 1 | order=1.5": "whole number",
    "a dog: 0 0 1 1 | colour=oragne": 'Did you mean "orange"',
    "a dog: mask 1": "0 masks are connected",
    "a\x00dog: 0 0 1 1": "control character",
    "\n".join(f"dog {i}: 0 0 1 1" for i in range(300)): "300 regions; at most 64",
    '{"regions": [': "line 1, column",
    '{\n"regions": [}': "line 2, column 13",
    '{"regions": 3}': "expected a list",
    '{"regions": [3]}': "expected an object",
    '{"region": []}': 'Did you mean "regions"',
    json.dumps([GOOD | {"bbox": []}]): 'unknown key "bbox". Did you mean "box"',
    '[{"phrase": "a", "phrase": "b", "box": [0, 0, 1, 1]}]': "twice",
    json.dumps([GOOD | {"box": [0, 0, 1]}]): "four numbers",
    json.dumps([GOOD | {"box": [0, 0, True, 1]}]): "finite",
    json.dumps([GOOD | {"box": [0, 0, "1", 1]}]): "finite",
    json.dumps([GOOD | {"box": [0, 0, 10**400, 1]}]): "finite",
    json.dumps([GOOD | {"box": [math.nan, 0, 1, 1]}]): "finite",
    json.dumps([GOOD | {"order": True}]): "whole number",
    json.dumps([GOOD | {"phrase": 3}]): "expected text",
    json.dumps([{"box": [0, 0, 1, 1]}]): 'no "phrase"',
    json.dumps([GOOD | {"mask": True}]): "expected an object",
    json.dumps([GOOD | {"mask": {"height": 2, "width": 2, "float32_zlib_base64": "!"}}]): "cannot be unpacked",
    json.dumps([GOOD | {"mask": {"height": 9, "width": 9, "float32_zlib_base64": TWO_BY_TWO}}]): "too few",
    json.dumps({"width": 1e9, "regions": [GOOD]}): "width",
    json.dumps({"width": 100000, "regions": [GOOD]}): "16384",
    json.dumps({"width": None, "regions": [GOOD]}): "width",
    "[" * 100_000: "nested too deeply",
    '[{"order": ' + "1" * 5000 + "}]": "not valid JSON",
}


@pytest.mark.parametrize("text", BAD_TEXTS, ids=lambda text: text[:30])
def test_bad_texts_say_what_is_wrong(text):
    with pytest.raises(LayoutError) as caught:
        parse_layout(text)
    assert BAD_TEXTS[text] in str(caught.value)
    assert len(str(caught.value)) < 400


BAD_MASKS = {
    "values from 0 to 1.5": torch.tensor([[0, 1.5]] * 2),
    "values from -0.5": torch.tensor([[1, -0.5]] * 2),
    "not finite": torch.tensor([[0, math.nan]] * 2),
    "empty mask": torch.zeros(8, 8),
    "not the shape of the canvas": torch.ones(8, 32),
    "expected a tensor": torch.ones(1, 8, 8),
}


@pytest.mark.parametrize("message", BAD_MASKS)
def test_bad_masks_say_what_is_wrong(message):
    with pytest.raises(LayoutError, match=message):
        Layout(64, 64, "", "", (Region("a dog", mask=BAD_MASKS[message]),))


def test_masks_and_boxes_that_do_not_fit_the_regions():
    two = [torch.ones(8, 8)] * 2
    with pytest.raises(LayoutError, match="2 masks are connected for 1 regions"):
        parse_layout("a dog", masks=two)
    with pytest.raises(LayoutError, match="Mask 2 is connected but no region"):
        parse_layout("a dog: mask 1", masks=two)
    with pytest.raises(LayoutError, match='says "mask 3", but 2 masks'):
        parse_layout("a dog: mask 3", masks=two)
    box = {"x": 0, "y": 0, "width": 8, "height": 8}
    with pytest.raises(LayoutError, match="no names"):
        parse_layout("", boxes=[box])
    with pytest.raises(LayoutError, match="2 boxes are connected, but 1 regions"):
        parse_layout("a dog", boxes=[box, box])
    for bad, message in [
        ([[box], [box]], "2 frames"),
        ({"x": 1}, "expected x, y, width and height"),
        (3, "expected boxes"),
        ("{", "not valid JSON"),
        (box | {"width": 600}, "leaves the canvas"),
        (box | {"width": math.nan}, "leaves the canvas"),
    ]:
        with pytest.raises(LayoutError, match=message):
            parse_layout("a dog", boxes=bad)


def test_the_same_picture_at_another_resolution_is_the_same_aspect():
    assert is_same_aspect(64, 64, 512, 512) and is_same_aspect(65, 97, 520, 776)
    assert is_same_aspect(64, 64, 515, 512) and is_same_aspect(1, 1, 512, 512)
    assert not is_same_aspect(64, 96, 512, 512) and not is_same_aspect(64, 66, 512, 512)


def test_preview_shows_every_region_in_its_own_colour():
    layout = parse_layout("a dog: 0 0 0.5 1\na cat: 0.5 0 1 1", width=64, height=64)
    drawn = draw_layout(layout)
    assert drawn.shape == (1, 512, 512, 3) and drawn.min() >= 0 and drawn.max() <= 1
    left, right = drawn[0, 300, 128], drawn[0, 300, 384]
    assert left[0] > left[2] + 0.1 and right[2] > right[0] + 0.1
    pictures = torch.rand(2, 32, 32, 3)
    mask = torch.zeros(16, 16)
    mask[4:12, 4:12] = 1
    masked = Layout(64, 64, "", "", (Region("a dog " * 40, mask=mask),))
    drawn = draw_layout(masked, pictures)
    assert drawn.shape == (2, 512, 512, 3)
    assert not torch.equal(drawn[0], drawn[1])
    assert (drawn[:, 300, 130] - torch.tensor([255, 99, 71]) / 255).abs().max() < 0.01  # the outline, 4 pixels in
