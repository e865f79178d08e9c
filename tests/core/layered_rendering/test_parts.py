"""Parts around regions, and the sizes that they share."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stagecraft.core.layered_rendering.parts import (
    EVALUATION,
    PART_STEP,
    Part,
    cost_of_sizes,
    part_around,
    shared_sizes,
)

CANVAS = (40, 52)
SIDES = st.integers(1, 10).map(lambda steps: PART_STEP * steps)
PARTS = st.lists(st.tuples(st.tuples(SIDES, SIDES), st.integers(1, 4)), min_size=1, max_size=8)


def partitions(items):
    """All ways to divide a list into groups."""
    if not items:
        yield []
        return
    first, *rest = items
    for groups in partitions(rest):
        yield [[first], *groups]
        for i, group in enumerate(groups):
            yield [*groups[:i], [first, *group], *groups[i + 1 :]]


@given(
    top=st.integers(0, 39), left=st.integers(0, 51), rows=st.integers(1, 40), columns=st.integers(1, 52), data=st.data()
)
def test_a_part_holds_what_is_seen_with_its_margin(top, left, rows, columns, data):
    margin = data.draw(st.integers(0, 9))
    seen = torch.zeros(CANVAS, dtype=torch.bool)
    seen[top : top + rows, left : left + columns] = True
    bottom, right = min(top + rows, CANVAS[0]), min(left + columns, CANVAS[1])
    part = part_around(seen, margin)
    assert 0 <= part.top <= max(0, top - margin) and 0 <= part.left <= max(0, left - margin)
    assert min(CANVAS[0], bottom + margin) <= part.top + part.height <= CANVAS[0]
    assert min(CANVAS[1], right + margin) <= part.left + part.width <= CANVAS[1]
    for side, whole, needed in zip(part.size, CANVAS, (bottom - top, right - left), strict=True):
        assert side == whole or (side % PART_STEP == 0 and side < needed + 2 * margin + PART_STEP)


@given(part=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 20), st.integers(0, 32)), data=st.data())
def test_a_grown_part_holds_the_part_and_stays_on_the_canvas(part, data):
    part = Part(*part)
    size = data.draw(st.integers(part.height, CANVAS[0])), data.draw(st.integers(part.width, CANVAS[1]))
    grown = part.grown(size, CANVAS)
    assert grown.size == size
    assert 0 <= grown.top <= part.top and part.top + part.height <= grown.top + grown.height <= CANVAS[0]
    assert 0 <= grown.left <= part.left and part.left + part.width <= grown.left + grown.width <= CANVAS[1]
    assert part.grown(part.size, CANVAS) == part


@given(PARTS)
def test_shared_sizes_hold_the_parts_and_cost_no_more(parts):
    sizes, rows = zip(*parts, strict=True)
    shared = shared_sizes(sizes, rows)
    assert all(new[0] >= old[0] and new[1] >= old[1] for old, new in zip(sizes, shared, strict=True))
    assert cost_of_sizes(shared, rows) <= cost_of_sizes(sizes, rows)
    assert shared_sizes(shared, rows) == shared, "nothing is left to save"


def test_shared_sizes_are_as_good_as_the_best_of_all_divisions_nearly_always():
    draw, worse = random.Random(0), []
    for _ in range(60):
        sizes = [(PART_STEP * draw.randint(2, 6), PART_STEP * draw.randint(2, 6)) for _ in range(5)]
        rows = [draw.randint(1, 2) for _ in sizes]
        best = min(
            sum(
                EVALUATION
                + max(sizes[i][0] for i in group) * max(sizes[i][1] for i in group) * sum(rows[i] for i in group)
                for group in groups
            )
            for groups in partitions(list(range(5)))
        )
        worse.append(cost_of_sizes(shared_sizes(sizes, rows), rows) / best - 1)
    assert min(worse) > -1e-9
    assert max(worse) < 0.05 and sum(excess > 1e-9 for excess in worse) < 15


@pytest.mark.parametrize(
    ("sizes", "shared"),
    [
        ([(16, 16), (16, 16)], [(16, 16), (16, 16)]),
        ([(12, 12), (12, 16)], [(12, 16), (12, 16)]),  # 2 rows of 48 cells more, less than an evaluation
        ([(12, 16), (16, 12)], [(16, 16), (16, 16)]),  # 4 rows of 64 cells more
        ([(16, 16), (16, 32)], [(16, 16), (16, 32)]),  # 2 rows of 256 cells more, as much as an evaluation
        ([(8, 32), (32, 8)], [(8, 32), (32, 8)]),  # a union of four times the cells
        ([(8, 8), (64, 64)], [(8, 8), (64, 64)]),
        ([(12, 16), (16, 12), (16, 16)], [(16, 16)] * 3),
    ],
)
def test_parts_grow_only_where_that_is_cheaper(sizes, shared):
    assert shared_sizes(sizes, [2] * len(sizes)) == shared
