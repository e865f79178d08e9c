"""Drawings over pictures: outlines, plates, heat maps."""

import pytest
import torch
from PIL import Image, ImageDraw
from stagecraft.core.attention.heat_maps import draw_heat_map
from stagecraft.core.drawing.plates import SMALLEST_SIDE, draw_plate, enlarged, mask_outline


@pytest.mark.parametrize("width", [1, 3])
def test_an_outline_is_the_mask_without_its_inside(width):
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[4:14, 5:25] = True
    inside = torch.zeros_like(mask)
    inside[4 + width : 14 - width, 5 + width : 25 - width] = True
    assert torch.equal(mask_outline(mask, width), mask & ~inside)


def test_a_mask_that_reaches_the_edge_is_outlined_there_too():
    assert mask_outline(torch.ones(8, 8, dtype=torch.bool), 1).sum() == 8 * 8 - 6 * 6


@pytest.mark.parametrize(("height", "width", "expected"), [(256, 256, 512), (500, 300, 1000), (600, 800, 600)])
def test_pictures_are_enlarged_by_whole_factors(height, width, expected):
    large = enlarged(torch.rand(height, width, 4))
    assert large.shape == (expected, width * expected // height, 3)
    assert min(large.shape[:2]) >= SMALLEST_SIDE


@pytest.mark.parametrize("corner", [(0, 0), (190, 95), (-50, 40)])
def test_a_plate_stays_inside_and_below_those_in_its_way(corner):
    canvas = Image.new("RGB", (200, 100))
    draw = ImageDraw.Draw(canvas)
    first = draw_plate(draw, "a dog", corner, canvas.size, letters=12, margin=2)
    second = draw_plate(draw, "a very long name " * 9, (corner[0], 0), canvas.size, letters=12, margin=2, taken=[first])
    for left, top, right, bottom in (first, second):
        assert left >= 0
        assert top >= 0
        assert right <= canvas.width
        assert bottom <= canvas.height
    apart = first[3] <= second[1] or second[3] <= first[1] or first[1] + first[3] > canvas.height
    assert apart


def test_every_place_of_a_phrase_is_outlined_on_its_heat_map():
    left, right = torch.zeros(64, 64), torch.zeros(64, 64)
    left[8:24, 8:24], right[40:56, 40:56] = 1, 1
    drawn = draw_heat_map(torch.zeros(64, 64, 3), torch.zeros(8, 8), "", [left, right])
    white = drawn.amin(-1) > 0.99
    for mask in (left, right):
        inside = torch.nn.functional.interpolate(mask[None, None], (512, 512))[0, 0] > 0
        outline = white & inside
        assert outline.sum() > 4 * 100
        rows, columns = outline.nonzero().T
        assert rows.max() - rows.min() > 120
        assert columns.max() - columns.min() > 120
