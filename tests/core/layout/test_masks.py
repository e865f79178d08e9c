"""Masks: exact areas, boxes, pieces, edges and holes, against independent slow versions."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from stagecraft.core.layout.masks import (
    box_coverage,
    fill_hole,
    grown,
    inside_of,
    is_same_aspect,
    largest_components,
    outer_box,
    resample_by_area,
    soften,
)

SIDES = st.integers(1, 23)
SHARES = st.floats(0, 1, width=32)
masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
HEIGHT, WIDTH = 40, 56
SIZE = 48


@st.composite
def boxes(draw):
    x0, x1 = sorted(draw(st.lists(SHARES, min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(draw(st.lists(SHARES, min_size=2, max_size=2, unique=True)))
    return x0, y0, x1, y1


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


def test_the_same_picture_at_another_resolution_is_the_same_aspect():
    assert is_same_aspect(64, 64, 512, 512) and is_same_aspect(65, 97, 520, 776)
    assert is_same_aspect(64, 64, 515, 512) and is_same_aspect(1, 1, 512, 512)
    assert not is_same_aspect(64, 96, 512, 512) and not is_same_aspect(64, 66, 512, 512)


def flood_fill_components(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Components by flood fill, 8 neighbours, in reading order of their first pixel."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    components = []
    for start in sorted(left):
        if start not in left:
            continue
        front, component = [start], set()
        left.discard(start)
        while front:
            y, x = front.pop()
            component.add((y, x))
            for neighbour in itertools.product((y - 1, y, y + 1), (x - 1, x, x + 1)):
                if neighbour in left:
                    left.discard(neighbour)
                    front.append(neighbour)
        components.append(component)
    return components


@given(masks, st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_components_equal_flood_fill(mask, number):
    slow = sorted(flood_fill_components(mask), key=len, reverse=True)[:number]
    fast = largest_components(mask, number)
    assert [len(component) for component in slow] == [int(component.sum()) for component in fast]
    every = flood_fill_components(mask)
    for component in fast:
        assert {(int(y), int(x)) for y, x in np.argwhere(component)} in every


def test_equal_components_keep_reading_order():
    mask = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0]], bool)
    first, second, third = largest_components(mask, 5)
    assert first[2].tolist() == [True, True, False]
    assert second[0, 0] and third[0, 2]


@given(masks)
@settings(max_examples=100, deadline=None)
def test_the_box_around_a_mask_is_tight(mask):
    box = outer_box(mask)
    if not mask.any():
        assert box is None
        return
    height, width = mask.shape
    x0, y0, x1, y1 = (round(v * s) for v, s in zip(box, (width, height, width, height), strict=True))
    points = np.argwhere(mask)
    assert (x0, y0) == (points[:, 1].min(), points[:, 0].min())
    assert (x1 - 1, y1 - 1) == (points[:, 1].max(), points[:, 0].max())


def test_a_soft_pixel_is_inside_from_half_of_the_highest_on():
    assert outer_box(np.array([[0.49, 0.98]])) == (0.0, 0.0, 1.0, 1.0)
    assert outer_box(np.array([[0.48, 0.98]])) == (0.5, 0.0, 1.0, 1.0)
    assert outer_box(torch.tensor([[0.0, 1 / 16]])) == (0.5, 0.0, 1.0, 1.0)
    assert outer_box(torch.tensor([[0.0, 0.06]])) is None
    both = inside_of(torch.tensor([[[0.2, 0.1, 0.0]], [[1.0, 0.4, 0.0]]]))
    assert both.tolist() == [[[True, True, False]], [[True, False, False]]]


def block(top, left, height, width):
    mask = torch.zeros(HEIGHT, WIDTH)
    mask[top : top + height, left : left + width] = 1
    return mask


def distance(mask):
    """How many pixels every pixel is away from the mask, along the longer side."""
    inside = [(y, x) for y in range(HEIGHT) for x in range(WIDTH) if mask[y, x] == 1]
    return torch.tensor(
        [[min(max(abs(y - v), abs(x - u)) for v, u in inside) for x in range(WIDTH)] for y in range(HEIGHT)]
    )


@pytest.mark.parametrize("edge", [1, 4, 7])
def test_edges_fall_from_one_to_zero(edge):
    mask = block(14, 20, 5, 3)
    soft, away = soften(mask, edge), distance(mask)
    reach = edge + edge % 2
    assert (soft[away == 0] == 1).all()
    assert (soft[away > reach] == 0).all()
    assert ((soft > 0) & (soft < 1))[(away > 0) & (away < reach)].all()
    middle = soft[16, 22:]  # straight away from the mask
    assert (middle.diff() <= 0).all()


def test_no_edge_is_the_mask_itself():
    mask = 0.3 * block(3, 4, 5, 6)
    assert torch.equal(soften(mask, 0), mask)


def test_soft_masks_and_the_border_of_the_picture():
    assert torch.allclose(soften(torch.full((8, 9), 0.4), 6), torch.tensor(0.4))
    at_border = soften(block(0, 0, 10, 10), 6)
    assert (at_border[:10, :10] == 1).all() and at_border[:, 20:].max() == 0


def test_boxes_around_masks():
    assert outer_box(block(10, 14, 20, 7)) == (14 / WIDTH, 10 / HEIGHT, 21 / WIDTH, 30 / HEIGHT)


def square(x0, y0, x1, y1):
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., y0:y1, x0:x1] = 1
    return mask


def test_a_hole_is_filled_from_around_it_and_the_rest_stays():
    slope = torch.linspace(0, 1, SIZE).expand(1, 1, SIZE, SIZE).contiguous()
    hole = square(18, 12, 30, 36)
    spoiled = torch.where(hole > 0, 50.0, slope)
    filled = fill_hole(spoiled, hole)
    torch.testing.assert_close(filled[hole == 0], slope[hole == 0])
    assert (filled - slope).abs().max() < 0.15
    torch.testing.assert_close(fill_hole(torch.where(hole > 0, 9.0, 0.3), hole), torch.full_like(slope, 0.3))
    assert (fill_hole(slope, torch.ones_like(slope)) == 0).all()


def test_growing_reaches_so_many_pixels_to_all_sides():
    assert torch.equal(grown(square(10, 12, 20, 22), 3), square(7, 9, 23, 25))
    assert torch.equal(grown(square(10, 12, 20, 22), 0), square(10, 12, 20, 22))
