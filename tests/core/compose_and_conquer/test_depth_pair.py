"""Depth pairs: each source against what it promises, and the published variants against their definitions."""

import pytest
import torch
from stagecraft.core.compose_and_conquer.depth_pair import (
    CUT_OUT,
    FARTHEST,
    GROUND,
    MASKED,
    VARIANTS,
    WHOLE,
    DepthPairError,
    cut_foreground,
    draw_planes,
    pair_from_layouts,
    pair_from_one,
    pair_from_two,
    stretch,
)
from stagecraft.core.layout.reading import parse_layout

SIZE = 48


def random_depth(seed=0, batch=2):
    return torch.rand(batch, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 7 - 3


def square(x0, y0, x1, y1):
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., y0:y1, x0:x1] = 1
    return mask


def test_stretch_goes_from_0_to_1_in_every_picture_and_forgets_scale_and_shift():
    depth = random_depth()
    stretched = stretch(depth)
    assert stretched.amin((1, 2, 3)).tolist() == [0, 0] and stretched.amax((1, 2, 3)).tolist() == [1, 1]
    moved = torch.stack([5 * depth[0] - 2, 0.1 * depth[1] + 9])
    torch.testing.assert_close(stretch(moved), stretched, atol=1e-5, rtol=0)
    assert (stretch(torch.full((1, 1, 4, 4), 0.7)) == 0).all()


def test_variants_are_the_published_ones():
    depth, mask = random_depth(1, 1).abs() + 1, square(10, 10, 30, 40)
    low, high = depth.min(), depth.max()
    inside = depth[mask > 0]
    assert VARIANTS[0] == CUT_OUT
    torch.testing.assert_close(cut_foreground(depth, mask, WHOLE), (depth - low) / (high - low))
    torch.testing.assert_close(cut_foreground(depth, mask, MASKED), (depth - low) / (high - low) * mask)
    torch.testing.assert_close(cut_foreground(depth, mask, CUT_OUT)[mask > 0], inside / inside.max())
    assert (cut_foreground(depth, mask, CUT_OUT)[mask == 0] == 0).all()


def test_cut_out_depth_below_zero_stays_before_what_is_cut_away():
    depth, mask = random_depth(2, 1) - 10, square(8, 8, 20, 20)
    cut = cut_foreground(depth, mask, CUT_OUT)
    assert (cut[mask == 0] == 0).all() and cut[mask > 0].max() == 1 and cut[mask > 0].mean() > 0.2


def test_planes_hide_what_is_farther_and_ground_shows_between():
    masks = torch.cat([square(0, 0, 30, 30), square(20, 20, 48, 48)], 1)
    near_second = draw_planes(masks, torch.tensor([[0.4, 0.8]]), torch.zeros(1))
    near_first = draw_planes(masks, torch.tensor([[0.8, 0.4]]), torch.zeros(1))
    assert near_second[0, 0, 25, 25] == near_first[0, 0, 25, 25] == pytest.approx(0.8)
    assert near_second[0, 0, 5, 5] == near_first[0, 0, 40, 40] == pytest.approx(0.4)
    ground = draw_planes(masks * 0, torch.tensor([[0.4, 0.8]]), torch.tensor([GROUND]))
    assert ground[0, 0, 0, 0] == 0 and ground[0, 0, -1, 0] == pytest.approx(GROUND)
    assert (ground.diff(dim=2) > 0).all() and (ground.diff(dim=3) == 0).all()


def test_two_pictures_swapped_swap_the_pair():
    first, second = random_depth(3), random_depth(4)
    pair, swapped = pair_from_two(first, second, None), pair_from_two(second, first, None)
    assert torch.equal(pair.foreground, swapped.background) and torch.equal(pair.background, swapped.foreground)


def test_missing_depth_is_empty_and_no_depth_is_refused():
    depth = random_depth(5)
    assert (pair_from_two(depth, None, None).background == 0).all()
    alone = pair_from_two(None, depth, None)
    assert (alone.foreground == 0).all() and (alone.mask == 0).all()
    with pytest.raises(DepthPairError, match="foreground_depth"):
        pair_from_two(None, None, None)


def test_one_picture_keeps_nothing_of_its_foreground_in_the_background():
    mask = square(16, 16, 32, 32)
    depth = torch.where(mask > 0, 0.9, torch.linspace(0, 0.3, SIZE)[None, None, :, None].expand(1, 1, SIZE, SIZE))
    blurred = torch.nn.functional.avg_pool2d(depth, 5, 1, 2, count_include_pad=False)
    pair = pair_from_one(blurred, mask, CUT_OUT, margin=3)
    assert pair.foreground[mask > 0].min() > 0.4 and (pair.foreground[mask == 0] == 0).all()
    expected = stretch(torch.linspace(0, 0.3, SIZE)[None, None, :, None].expand(1, 1, SIZE, SIZE))
    assert (pair.background - expected).abs().max() < 0.15


def test_layout_order_decides_the_slot_and_the_same_silhouettes_swap():
    text = "a dog: 0 0 0.6 0.6 | order={}\na cat: 0.4 0.4 1 1 | order={}"
    layouts = [parse_layout(text.format(*orders), width=64, height=64) for orders in ((0, 1), (1, 0))]
    cat_near, dog_near = (pair_from_layouts([layout], 1, 0.0) for layout in layouts)
    assert torch.equal(cat_near.foreground, dog_near.background) and torch.equal(
        dog_near.foreground, cat_near.background
    )
    assert cat_near.mask[0, 0, 32, 32] == cat_near.background[0, 0, 32, 32] == 1  # the hidden part is there
    assert cat_near.mask[0, 0, 5, 5] == 0


def test_layout_with_all_in_front_leaves_the_ground():
    layout = parse_layout("a dog: 0 0 0.5 1\na cat: 0.5 0 1 1", width=64, height=32)
    pair = pair_from_layouts([layout, layout], 2)
    assert pair.foreground.shape == (2, 1, 32, 64)
    torch.testing.assert_close(pair.background[0, 0, :, 0], torch.linspace(0, 1, 32))
    assert pair.foreground[0].unique().tolist() == pytest.approx([(1 + FARTHEST) / 2, 1.0]) and FARTHEST > GROUND


def test_planes_that_cover_the_whole_picture_are_there():
    layout = parse_layout("a wall: 0 0 1 1\na hill: 0 0 0.5 1\na curtain: 0 0 1 1", width=64, height=64)
    pair = pair_from_layouts([layout], 1, 0.0)
    assert (pair.foreground == 1).all() and pair.background[0, 0, 5, 5] == 1 > pair.background[0, 0, 5, 60] > 0.5


def test_round_boxes_are_ellipses():
    layout = parse_layout("a dog: 0.25 0 0.75 1", width=64, height=64)
    flat, round_ = (pair_from_layouts([layout], 1, round_boxes=choice).mask for choice in (False, True))
    assert float(round_.sum() / flat.sum()) == pytest.approx(torch.pi / 4, abs=0.02) and (round_ <= flat).all()


def test_wrong_layouts_are_refused():
    layout = parse_layout("a dog: 0 0 1 1", width=64, height=64)
    with pytest.raises(DepthPairError, match="front is 2"):
        pair_from_layouts([layout], 2)
    with pytest.raises(DepthPairError, match="64 x 64, 32 x 64|32 x 64, 64 x 64"):
        pair_from_layouts([layout, parse_layout("a dog: 0 0 1 1", width=32, height=64)], 1)
