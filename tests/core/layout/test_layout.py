"""Layouts: painter's order as a partition of unity, JSON there and back, and what is refused."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stagecraft.core.layout.boxes import read_bounding_boxes
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.preview import draw_layout
from stagecraft.core.layout.reading import layout_from_data, parse_layout
from stagecraft.core.layout.region import LayoutError, Region
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


def test_layouts_in_front_of_each_other():
    far = parse_layout("a: 0 0 1 1 | order=5\nb: 0 0 1 1", width=64, height=64)
    near = parse_layout("c: 0 0 1 1\nd: 0 0 1 1 | order=-7", width=64, height=64)
    assert [region.phrase for region in near.in_front_of(far).sorted_regions()] == ["b", "a", "d", "c"]
    with pytest.raises(LayoutError, match="different canvases: 64 x 64 and 32 x 64"):
        parse_layout("c: 0 0 1 1", width=32, height=64).in_front_of(far)
