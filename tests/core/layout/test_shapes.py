"""Shapes in a layout's text: their area, where they lie, and what is refused."""

import math

import pytest
import torch
from stagecraft.core.layout.reading import layout_from_data, parse_layout
from stagecraft.core.layout.region import LayoutError
from stagecraft.core.layout.shapes import draw_shape


def test_an_ellipse_has_its_area_and_centre():
    mask = draw_shape({"ellipse": [0.25, 0.5, 0.75, 1.0]}, 100, 200, "it")
    assert mask.shape == (100, 200)
    assert float(mask.mean()) == pytest.approx(math.pi / 4 * 0.25, rel=0.01)
    rows, columns = mask.sum(1), mask.sum(0)
    centre = (rows @ torch.arange(100.0)) / mask.sum(), (columns @ torch.arange(200.0)) / mask.sum()
    assert float(centre[0]) == pytest.approx(74.5, abs=0.1) and float(centre[1]) == pytest.approx(99.5, abs=0.1)
    assert mask[75, 100] == 1 and mask[51, 52] == 0


@pytest.mark.parametrize(
    ("corners", "area"),
    [([0.0, 0.0, 1.0, 0.0, 0.0, 1.0], 0.5), ([0.2, 0.2, 0.8, 0.2, 0.8, 0.6, 0.2, 0.6], 0.24)],
)
def test_a_polygon_has_its_area(corners, area):
    assert float(draw_shape({"polygon": corners}, 64, 96, "it").mean()) == pytest.approx(area, rel=0.02)


def test_a_full_polygon_covers_every_pixel():
    assert torch.equal(draw_shape({"polygon": [0, 0, 1, 0, 1, 1, 0, 1]}, 30, 50, "it"), torch.ones(30, 50))


def test_lines_and_json_say_the_same():
    lines = "a dog: ellipse 0.1, 0.2, 0.5, 0.8 | colour=red\na cat: Polygon 0.5 0.1 0.9 0.1 0.9 0.9"
    by_lines = parse_layout(lines, width=64, height=32)
    by_json = layout_from_data(
        {
            "width": 64,
            "height": 32,
            "regions": [
                {"phrase": "a dog", "mask": {"ellipse": [0.1, 0.2, 0.5, 0.8]}, "colour": "red"},
                {"phrase": "a cat", "mask": {"polygon": [0.5, 0.1, 0.9, 0.1, 0.9, 0.9]}},
            ],
        }
    )
    assert by_lines == by_json
    assert layout_from_data(by_lines.to_dict()) == by_lines, "drawn masks travel on as masks"


def test_very_large_canvases_are_drawn_with_fewer_samples():
    assert draw_shape({"ellipse": [0, 0, 1, 1]}, 16, 5000, "it").shape == (16, 5000)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("ellipse 0.1 0.2 0.5", "expected four numbers"),
        ("ellipse 0.5 0.2 0.1 0.8", "top left corner first"),
        ("ellipse 10 20 30 40", "not pixels"),
        ("polygon 0.1 0.2 0.5 0.6", "three or more corners"),
        ("polygon 0.1 0.2 0.5 0.6 0.7", "three or more corners"),
        ("polygon 0.1 nan 0.5 0.6 0.7 0.8", "not pixels"),
        ("polygon a b c", 'a shape of "a b c"'),
        ("star 0.1 0.2 0.5 0.8", '"polygon x y x y x y"'),
    ],
)
def test_shapes_that_cannot_be(place, message):
    with pytest.raises(LayoutError, match=message):
        parse_layout(f"a dog: {place}")


def test_a_shape_of_other_values_in_json():
    for values in ("text", [True, 0, 1, 1], [[0, 0], [1, 1]]):
        with pytest.raises(LayoutError, match="expected four numbers"):
            layout_from_data({"width": 64, "height": 64, "regions": [{"phrase": "a dog", "mask": {"ellipse": values}}]})
