"""Boxes laid over each other: as pixel by pixel, and as cheap on a poster as on a stamp."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.masks import box_coverage, visible_boxes
from stagecraft.core.layout.region import Region
from torch import Tensor

SIDES = st.floats(0, 1, width=32)


@st.composite
def boxes(draw):
    x0, x1 = sorted(draw(st.lists(SIDES, min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(draw(st.lists(SIDES, min_size=2, max_size=2, unique=True)))
    return x0, y0, x1, y1


def by_pixels(places: list[tuple[float, ...]], height: int, width: int, finer: int) -> Tensor:
    uncovered, seen = torch.ones(height * finer, width * finer, dtype=torch.float64), []
    for box in reversed(places):
        left = uncovered * (1 - box_coverage(box, *uncovered.shape).double())
        seen.insert(0, uncovered - left)
        uncovered = left
    planes = torch.stack([uncovered, *seen])
    return planes.reshape(-1, height, finer, width, finer).mean((2, 4)).float()


@given(st.lists(boxes(), min_size=1, max_size=5), st.integers(1, 20), st.integers(1, 20), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_they_are_what_pixels_say(places, height, width, finer):
    found = visible_boxes(places, height, width, finer)
    torch.testing.assert_close(found, by_pixels(places, height, width, finer), atol=2e-6, rtol=0)


def test_pixels_inside_are_exactly_one():
    found = visible_boxes([(0.1, 0.2, 0.7, 0.9), (0.3, 0.3, 0.5, 0.5)], 512, 512, 1)
    assert found[1, 120, 100] == found[2, 200, 200] == found[0, 10, 10] == 1
    assert found[1, 200, 200] == found[0, 200, 200] == 0


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("mask", [None, torch.ones(8, 8)])
def test_they_stop_between_two_regions(mask):
    layout = Layout(64, 64, "", "", (Region("a", (0, 0, 1, 1), mask), Region("b", (0, 0, 0.5, 1))))

    def cancelled(regions):
        yield regions[0]
        raise Cancelled

    with pytest.raises(Cancelled):
        layout.visible_masks(16, 16, cancelled)
