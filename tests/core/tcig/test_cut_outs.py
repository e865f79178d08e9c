"""Cut-outs: warps against their definition, bounds of what is drawn, and draws that come from one generator alone."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from stagecraft.core.tcig.cut_outs import (
    CORNERS,
    DEGREES,
    SHEAR,
    TRANSLATION,
    CutOuts,
    draw_warps,
    erase,
    jitter,
    pool,
    square_to_corners,
    warp,
)

SIZE = 16
seeds = st.integers(0, 2**32)


def make(seed=0):
    return torch.Generator().manual_seed(seed)


def test_without_augmentation_every_cut_out_is_the_pooled_picture():
    pictures = torch.rand(2, 3, 24, 40, generator=make())
    found = CutOuts(3, augmented=False)(pictures, 8, make())
    cells = pictures.unflatten(2, (8, 3)).unflatten(4, (8, 5)).movedim(3, 4).flatten(4)
    assert cells.shape == (2, 3, 8, 8, 15)
    expected = (cells.mean(-1) + cells.amax(-1)) / 2
    torch.testing.assert_close(found, expected.repeat_interleave(3, 0))


@given(seeds)
def test_the_square_is_mapped_onto_its_corners(seed):
    corners = torch.tensor(CORNERS) + 0.3 * torch.rand(5, 4, 2, generator=make(seed))
    matrices = square_to_corners(corners)
    places = torch.tensor([[*corner, 1.0] for corner in CORNERS])
    found = torch.einsum("nij,kj->nki", matrices, places)
    torch.testing.assert_close(found[..., :2] / found[..., 2:], corners, atol=1e-4, rtol=1e-4)


def test_warps_look_up_what_their_matrix_says():
    pictures = torch.rand(2, 3, SIZE, SIZE, generator=make())
    same = torch.eye(3).expand(4, 3, 3)
    torch.testing.assert_close(warp(pictures, same), pictures.repeat_interleave(2, 0), atol=1e-5, rtol=0)
    # Looked up two pixels to the right and one up; three times the matrix is the same map.
    moved = 3 * torch.tensor([[1.0, 0, 2 / SIZE], [0, 1, -1 / SIZE], [0, 0, 1]])
    found = warp(pictures, moved[None].expand(2, 3, 3))
    torch.testing.assert_close(found[:, :, 1:, :-2], pictures[:, :, :-1, 2:], atol=1e-5, rtol=0)
    assert not found[:, :, 0].any() and not found[..., -2:].any(), "outside is black"
    behind = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
    assert not warp(pictures, behind[None].expand(2, 3, 3)).any()


@given(seeds)
@example(407)  # the middle moves by 0.5: a perspective leaves it in the picture, the turn after it need not
def test_drawn_warps_stay_near_the_picture(seed):
    matrices = draw_warps(16, make(seed))
    middle = matrices @ torch.tensor([0.5, 0.5, 1])
    # A perspective shows the middle from within the picture, less than 0.5 away; then it is turned and shifted.
    turn, shear = math.radians(DEGREES), math.tan(math.radians(SHEAR))
    farthest = 0.5 * (math.cos(turn) * (1 + shear) + math.sin(turn)) + TRANSLATION
    assert ((middle[:, :2] / middle[:, 2:] - 0.5).abs() < farthest).all()
    shown = warp(torch.ones(1, 1, SIZE, SIZE), matrices)
    assert (shown.mean((1, 2, 3)) > 0.05).all()
    unchanged = torch.isclose(shown.mean((1, 2, 3)), torch.ones(16)).sum()
    assert unchanged < 12  # about 0.3 * 0.3 of them


@given(seeds)
def test_jitter_keeps_greys_grey_and_colours_near(seed):
    grey = torch.rand(8, 1, 4, 4, generator=make(seed)).expand(8, 3, 4, 4)
    found = jitter(grey, make(seed))
    assert (found.amax(1) - found.amin(1)).max() < 1e-5
    assert (found - grey).abs().max() <= 0.1 + 0.1 + 1e-5  # brightness, and contrast of the brightest
    colours = torch.rand(8, 3, 4, 4, generator=make(seed))
    found = jitter(colours, make(seed))
    assert 0 <= found.min() and found.max() <= 1 and (found - colours).abs().max() < 0.75
    assert not torch.equal(found, colours)


def test_one_rectangle_is_erased_in_all():
    shares = []
    for seed in range(200):
        kept = erase(torch.ones(3, 2, 40, 40), make(seed))
        assert torch.equal(kept[0], kept[2]) and torch.equal(kept[:, 0], kept[:, 1])
        erased = kept[0, 0] == 0
        rows, columns = erased.any(1), erased.any(0)
        assert erased.sum() == rows.sum() * columns.sum(), "no rectangle"
        shares.append(erased.float().mean().item())
    happened = [share for share in shares if share]
    assert 0.6 < len(happened) / len(shares) < 0.8
    assert min(happened) > 0.07 and max(happened) < 0.43


def test_draws_come_from_the_generator_alone():
    pictures = torch.rand(1, 3, 32, 32, generator=make())
    before = torch.get_rng_state()
    first, again, other = (CutOuts(4)(pictures, SIZE, make(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (4, 3, SIZE, SIZE) and len(first.flatten(1).unique(dim=0)) == 4


def test_every_pixel_of_the_picture_gets_a_gradient():
    picture = torch.rand(1, 3, 32, 32, generator=make()).requires_grad_()
    CutOuts(8)(picture, SIZE, make()).sum().backward()
    assert picture.grad.isfinite().all() and (picture.grad != 0).float().mean() > 0.9


def test_cut_outs_of_a_batch_belong_to_their_pictures():
    pictures = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])
    found = CutOuts(6)(pictures, 8, make(3)).mean((1, 2, 3))
    assert (found[:6] < 0.1).all() and (found[6:] > 0.1).all()
    assert pool(pictures, 4).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("size", [1, 7])
def test_odd_sizes(size):
    assert CutOuts(2)(torch.rand(1, 3, 5, 9), size, make()).shape == (2, 3, size, size)
