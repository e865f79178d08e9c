"""Soft guidance against the published rule written down once more, pixel by pixel and column by column."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stagecraft.core.attention.sites import CROSS, SELF, Site
from stagecraft.core.soft_guidance.soft_guidance import (
    AREA,
    SoftGuidance,
    TokenColumns,
    cell_mask,
    column_bias,
    column_mask,
    joined_mask,
    two_sides,
)

TEXT, TOKENS = 77, 4


def cubic(x, a=-0.75):
    """Weight of a pixel at a distance, as every bicubic resampling of PyTorch has it."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def slow_cells(mask, grid):
    """The published resize with loops: four pixels per axis around each cell's centre, edges repeated, then != 0."""
    cells = np.zeros(grid, bool)
    for row in range(grid[0]):
        for column in range(grid[1]):
            total = 0.0
            centres = [(i + 0.5) * n / g - 0.5 for i, n, g in zip((row, column), mask.shape, grid, strict=True)]
            for y in range(math.floor(centres[0]) - 1, math.floor(centres[0]) + 3):
                for x in range(math.floor(centres[1]) - 1, math.floor(centres[1]) + 3):
                    pixel = mask[min(max(y, 0), mask.shape[0] - 1), min(max(x, 0), mask.shape[1] - 1)]
                    total += cubic(y - centres[0]) * cubic(x - centres[1]) * float(pixel)
            cells[row, column] = abs(total) > 1e-6  # of a sum of sixteen: nothing else comes so near to 0
    return cells


def slow_attention(q, k, v, heads, cells):
    """One head, position and column after the other; text first, then foreground, then background tokens."""
    b, n, width = q.shape
    size, text = width // heads, k.shape[1] - 2 * TOKENS
    out = np.zeros((b, n, width))
    q, k, v = (x.double().numpy() for x in (q, k, v))
    for row in range(b):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(n):
                inside = cells[row].reshape(-1)[i]
                seen = [
                    *range(text),
                    *range(text + (0 if inside else TOKENS), text + (TOKENS if inside else 2 * TOKENS)),
                ]
                logits = np.array([q[row, i, part] @ k[row, c, part] for c in seen]) / math.sqrt(size)
                weights = np.exp(logits - logits.max())
                out[row, i, part] = (weights / weights.sum()) @ v[row, seen, part]
    return torch.from_numpy(out).float()


def blob(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(1, 1, 5, 5, generator=generator)
    return (torch.nn.functional.interpolate(rough, (height, width), mode="bilinear")[0] > 0.55).float()


@pytest.mark.parametrize(
    ("size", "grid"), [((64, 64), (8, 8)), ((64, 96), (8, 12)), ((64, 64), (16, 16)), ((60, 44), (7, 9))]
)
def test_published_rule_is_the_resize_of_the_paper(size, grid):
    mask = blob(*size, seed=3)
    mask[0, 5, 7] = 1.0  # a single pixel
    found = cell_mask(mask, grid)
    assert found.dtype == torch.bool and found.shape == (1, grid[0] * grid[1])
    assert np.array_equal(found.reshape(grid).numpy(), slow_cells(mask[0], grid))


@given(st.integers(0, 2**16 - 1), st.sampled_from([4, 8, 16]))
def test_published_rule_is_any_pixel_of_the_middle_four_by_four(bits, scale):
    """Of whole, even scales, as the notes have it: nothing outside that window counts, and nothing inside cancels."""
    window = torch.tensor([float(bits >> i & 1) for i in range(16)]).reshape(4, 4)
    mask = torch.ones(scale, scale) if bits == 0 else torch.zeros(scale, scale)
    middle = slice(scale // 2 - 2, scale // 2 + 2)
    mask[middle, middle] = window
    (found,) = cell_mask(mask[None], (1, 1))[0].tolist()
    assert found == (bits != 0)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_area_rule_is_half_of_the_cell(height, width, seed):
    scale = 4
    mask = (torch.rand(height * scale, width * scale, generator=torch.Generator().manual_seed(seed)) > 0.5).float()
    found = cell_mask(mask[None], (height, width), AREA)[0].reshape(height, width)
    for row in range(height):
        for column in range(width):
            cell = mask[row * scale : (row + 1) * scale, column * scale : (column + 1) * scale]
            assert bool(found[row, column]) == (int(cell.sum()) * 2 >= cell.numel())


def test_rules_differ_where_they_should_and_others_are_refused():
    thin = torch.zeros(1, 64, 64)
    thin[0, :, 0] = 1.0  # at the edge of a cell of 16 pixels, out of the window
    assert not cell_mask(thin, (4, 4)).any()
    wide = torch.zeros(1, 64, 64)
    wide[0, 6:8, 6:8] = 1.0  # four pixels of 256, in the window
    assert cell_mask(wide, (4, 4)).any() and not cell_mask(wide, (4, 4), AREA).any()
    with pytest.raises(ValueError, match='no rule "nearest".*as published, area'):
        cell_mask(wide, (4, 4), "nearest")


@pytest.mark.parametrize(("size", "grid"), [((64, 64), (8, 8)), ((64, 96), (8, 12))])
@pytest.mark.parametrize("text", [77, 154, 20])
def test_masked_attention_is_the_papers(size, grid, text):
    generator = torch.Generator().manual_seed(0)
    heads, width, n = 2, 32, grid[0] * grid[1]
    q, k, v = (torch.randn(2, t, width, generator=generator) for t in (n, text + 8, text + 8))
    masks = torch.cat([blob(*size, 1), blob(*size, 2)])
    soft = SoftGuidance([masks], two_sides(TOKENS))
    expected = slow_attention(q, k, v, heads, [slow_cells(mask, grid) for mask in masks])
    torch.testing.assert_close(soft.attend(q, k, v, heads, grid=grid), expected, atol=1e-5, rtol=0)

    def attend(q, k, v, heads, mask, site):
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        mask = None if mask is None else mask[:, None]
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)

    found = soft(attend, q, k, v, heads, None, Site("up", 0, CROSS, grid))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    itself = soft(attend, q, q, q, heads, None, Site("up", 0, SELF, grid))
    assert torch.equal(itself, attend(q, q, q, heads, None, None)), "self-attention is never masked"


def test_token_mask_of_sd_15_size():
    mask = blob(512, 512, 4)
    for cells in (64, 32, 16, 8):
        found = column_mask([mask], two_sides(TOKENS), TEXT + 8, (cells, cells))
        assert found.shape == (1, cells * cells, 85) and found.dtype == torch.bool
        inside = torch.from_numpy(slow_cells(mask[0], (cells, cells))).reshape(-1)
        expected = torch.ones(cells * cells, 85, dtype=torch.bool)
        expected[:, 77:81], expected[:, 81:85] = inside[:, None], ~inside[:, None]
        assert torch.equal(found[0], expected)
        assert found.sum(-1).eq(TEXT + TOKENS).all(), "no row is ever fully masked, and each sees one side"


def test_swapping_sides_swaps_columns_only():
    mask = blob(64, 64, 5)
    found = column_mask([mask], two_sides(TOKENS), 85, (8, 8))
    swapped = column_mask([mask], [TokenColumns(-8, -4, outside=True), TokenColumns(-4, 0)], 85, (8, 8))
    assert torch.equal(swapped[..., [*range(77), *range(81, 85), *range(77, 81)]], found)
    assert not torch.equal(swapped, found)


def test_a_weight_of_two_is_every_token_twice_and_of_zero_none():
    generator = torch.Generator().manual_seed(1)
    grid, heads = (4, 6), 2
    q, text, mine = (torch.randn(1, t, 16, generator=generator) for t in (24, 10, 3))
    mask = blob(32, 48, 6)

    def attended(k, columns):
        return SoftGuidance([mask], columns).attend(q, k, k, heads, grid=grid)

    once = torch.cat([text, mine], 1)
    twice = attended(torch.cat([text, mine, mine], 1), [TokenColumns(-6, 0)])
    torch.testing.assert_close(attended(once, [TokenColumns(-3, 0, weight=2.0)]), twice, atol=1e-5, rtol=0)
    none = attended(once, [TokenColumns(-3, 0, weight=0.0)])
    torch.testing.assert_close(none, attended(text, []), atol=1e-6, rtol=0)


def test_columns_from_either_end_and_of_many_regions():
    masks = [blob(32, 32, 7), blob(64, 64, 8).repeat(2, 1, 1)]
    ahead = [TokenColumns(5, 7, mask=1), TokenColumns(7, 10, mask=0)]
    behind = [TokenColumns(-5, -3, mask=1), TokenColumns(-3, 0, mask=0)]
    found = column_mask(masks, ahead, 10, (8, 8))
    assert found.shape == (2, 64, 10)
    assert torch.equal(found, column_mask(masks, behind, 10, (8, 8)))
    assert torch.equal(found[0, :, 5], cell_mask(masks[1], (8, 8))[0])
    with pytest.raises(ValueError, match="columns -9 to 0 of a context of 8 tokens"):
        column_mask(masks, [TokenColumns(-9, 0)], 8, (8, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_masks_join_and_stay_finite(dtype):
    bias = column_bias([blob(32, 32, 9)], two_sides(2), 6, (4, 4))
    own = torch.rand(3, 2, 16, 6, generator=torch.Generator().manual_seed(2)) > 0.3
    own[..., 0] = True
    for mask in (None, own, own[:, 0], own[0, 0], torch.where(own[:, 0], 0.5, -1e4).to(dtype)):
        joined = joined_mask(bias, mask, dtype)
        assert joined.dtype == dtype and torch.isfinite(joined).all()
        is_open = joined > torch.finfo(dtype).min / 2
        given = mask if mask is not None and mask.dtype == torch.bool else torch.tensor(True)
        expected = (bias[:, None] if joined.ndim == 4 else bias) > -torch.inf
        assert torch.equal(is_open, (expected & given).expand_as(is_open))
