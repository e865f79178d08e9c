"""Masks of joint attention, cell by cell of the table of who sees whom."""

import itertools
import math

import pytest
import torch
from stagecraft.core.attention.token_order import TokenOrder
from stagecraft.core.soft_guidance.joint import cross_bias, joint_bias, text_bias
from stagecraft.core.soft_guidance.soft_guidance import AREA, TokenColumns, column_bias

GRID, FRAMES, WORDS = (2, 3), 2, 9
SPANS = [slice(3, 5), slice(5, 8)]  # the prompt has the first three columns; nobody sees the last one
WEIGHTS = (2.0, 0.5)
ORDERS = {
    "text first": TokenOrder(slice(0, 9), slice(9, 21), GRID, FRAMES),
    "picture first": TokenOrder(slice(12, 21), slice(0, 12), GRID, FRAMES),
    "registers and references": TokenOrder(
        slice(2, 11), slice(11, 23), GRID, FRAMES, others=(slice(0, 2), slice(23, 26))
    ),
}


def masks():
    """The left column is the first region's, the middle one both's, the right one nobody's."""
    first, second = torch.zeros(1, *GRID), torch.zeros(1, *GRID)
    first[..., :2], second[..., 1] = 1, 1
    return [first, second]


def seen():
    columns = [TokenColumns(span.start, span.stop, k, weight=WEIGHTS[k]) for k, span in enumerate(SPANS)]
    bias = column_bias(masks(), columns, WORDS, GRID, AREA)
    bias[..., WORDS - 1] = -torch.inf
    return bias


def part_of(order, token):
    """What a token is: ("G", None), ("R", region), ("I", cell), ("unseen", None) or ("other", None)."""
    if order.text.start <= token < order.text.stop:
        column = token - order.text.start
        region = next((k for k, span in enumerate(SPANS) if span.start <= column < span.stop), None)
        return ("unseen", None) if column == WORDS - 1 else ("G", None) if region is None else ("R", region)
    if order.image.start <= token < order.image.stop:
        return "I", (token - order.image.start) % (GRID[0] * GRID[1])
    return "other", None


def regions_of(cell):
    return {k for k, mask in enumerate(masks()) if mask.flatten()[cell]}


def allowed(row, key, hard):
    """What the table says: the weight of a key for a row, 0 for closed."""
    (what, who), (of, whose) = row, key
    if of == "unseen":
        return None if what == "unseen" else 0.0
    if what == "unseen":
        return None  # nobody sees it, so it may see anything
    if what == "R":
        return float((of, whose) == ("R", who) or (of == "I" and who in regions_of(whose)))
    if of == "R":
        return WEIGHTS[whose] if what == "I" and whose in regions_of(who) else 0.0
    if hard and what == of == "I" and regions_of(who) and regions_of(whose):
        return float(bool(regions_of(who) & regions_of(whose)))
    return 1.0


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_who_sees_whom(order, hard):
    tokens = 26 if order.others else 21
    bias = joint_bias(order, tokens, seen(), SPANS, (hard, hard))[0]
    for row, key in itertools.product(range(tokens), repeat=2):
        expected = allowed(part_of(order, row), part_of(order, key), hard)
        if expected is not None:
            found = math.exp(bias[row, key])
            assert found == pytest.approx(expected), (part_of(order, row), part_of(order, key))
    assert (bias > -torch.inf).any(-1).all(), "a row that sees nothing would be NaN"


def test_refined_text_sees_its_own():
    """What stands behind the text, as learned padding does, is everybody's."""
    parts = [*SPANS, slice(8, 9)]
    bias = text_bias(parts, 12)
    for row, key in itertools.product(range(12), repeat=2):
        own = [next((k for k, span in enumerate(parts) if span.start <= each < span.stop), "G") for each in (row, key)]
        assert float(bias[row, key]) == (0.0 if own[0] == own[1] else -torch.inf)


def test_cross_attention_of_a_video_with_a_reference():
    """Two tokens before the video and one behind it see no region."""
    order = TokenOrder(slice(0, WORDS), slice(2, 14), GRID, FRAMES, is_joint=False)
    bias = cross_bias(order, 15, seen(), SPANS)
    assert torch.equal(bias[:, 2:8], seen()) and torch.equal(bias[:, 8:14], seen())
    for row in (0, 1, 14):
        assert (bias[0, row, :3] == 0).all() and (bias[0, row, 3:] == -torch.inf).all()


def test_each_picture_has_its_own():
    both = torch.cat([seen(), seen().flip(1)])
    order = ORDERS["text first"]
    found = joint_bias(order, 21, both, SPANS)
    assert torch.equal(found[1:], joint_bias(order, 21, both[1:], SPANS))
    assert not torch.equal(found[0], found[1])
