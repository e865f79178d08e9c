"""Maps of joint attention without its whole softmax, the readings of a call, and which blocks are read."""

import pytest
import torch
from stagecraft.core.attention import in_blocks
from stagecraft.core.attention.block_choice import WordMaps, choose_blocks, pooled_map
from stagecraft.core.attention.maps import among_words, indicator_maps, region_maps, smoothed, token_maps
from stagecraft.core.attention.recorder import AttentionRecorder
from stagecraft.core.attention.sites import (
    ALL_BLOCKS,
    BLOCK,
    CROSS,
    DOWN,
    FOUND,
    MIDDLE_BLOCKS,
    QUARTER,
    SELF,
    Site,
    check_choice,
    choose_sites,
    is_past,
)
from stagecraft.core.attention.token_order import TokenOrder, views

TEXT, IMAGE, ALL = slice(2, 7), slice(7, 19), 20  # two registers, five words, a picture of 3 x 4, one pad
COLUMNS = torch.tensor([3, 6])


def joint(batch=2, heads=2, width=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, heads, ALL, width, generator=generator).to(dtype) for _ in range(2)]


def whole(q, k, mask=None):
    logits = q.double() @ k.double().mT * q.shape[-1] ** -0.5
    return (logits if mask is None else logits + mask).softmax(-1)


def bias():
    """Some keys are hidden from some rows, one from all; nobody is left alone."""
    hidden = torch.rand(2, 1, ALL, ALL, generator=torch.Generator().manual_seed(1)) < 0.2
    hidden[..., 3], hidden[..., 4] = False, True
    return torch.zeros(2, 1, ALL, ALL).masked_fill(hidden, -1e4)


@pytest.mark.parametrize("read", [token_maps, indicator_maps])
@pytest.mark.parametrize("mask", [None, bias(), bias()[:1, :, :1], bias()[:, 0]])
def test_columns_are_those_of_the_whole_softmax(read, mask, monkeypatch):
    monkeypatch.setattr(in_blocks, "AT_ONCE", 2 * 2 * ALL * 5)  # five rows at a time
    q, k = joint()
    found = read(q, k, 2, COLUMNS, mask=mask, rows=IMAGE)
    full = whole(q, k, mask if mask is None or mask.ndim == 4 else mask[:, None])[:, :, IMAGE]
    torch.testing.assert_close(found, full[..., COLUMNS].float(), rtol=0, atol=1e-6)
    flat = [each.transpose(1, 2).flatten(2) for each in (q, k)]
    torch.testing.assert_close(read(*flat, 2, COLUMNS, mask=mask, rows=IMAGE), found, rtol=0, atol=1e-6)
    own = read(q, k, 2, torch.tensor([[3], [6]]), mask=mask, rows=IMAGE)
    torch.testing.assert_close(own, torch.stack([found[0, ..., [0]], found[1, ..., [1]]]), rtol=0, atol=1e-6)


def test_both_ways_have_the_same_gradient():
    slopes = []
    for read in (token_maps, indicator_maps):
        q, k = (each.requires_grad_() for each in joint())
        out = read(q, k, 2, COLUMNS, rows=IMAGE)
        weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
        slopes.append(torch.autograd.grad((out * weights).sum(), (q, k)))
    for one, other in zip(*slopes, strict=True):
        assert one.abs().max() > 0.01
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_more_columns_than_keys_are_wide():
    q, k = joint()
    found = indicator_maps(q, k, 2, torch.arange(ALL), rows=IMAGE)
    torch.testing.assert_close(found, token_maps(q, k, 2, torch.arange(ALL), rows=IMAGE), rtol=0, atol=1e-6)


def test_indicators_keep_small_numbers_in_half_precision():
    q, k = joint(dtype=torch.float16)
    k[:, :, 3] -= 4 * q.mean((0, 1, 2))
    found = indicator_maps(q, k, 2, COLUMNS, rows=IMAGE)
    torch.testing.assert_close(found, whole(q, k)[:, :, IMAGE][..., COLUMNS].float(), rtol=5e-3, atol=1e-6)


def test_heads_that_share_keys_are_read_like_others():
    q, k = joint(heads=4)
    shared = k[:, :2]
    for read in (token_maps, indicator_maps):
        found = read(q, shared, 4, COLUMNS, rows=IMAGE)
        expected = whole(q, shared.repeat_interleave(2, 1))[:, :, IMAGE][..., COLUMNS]
        torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-6)


def test_a_regions_attention_is_to_the_picture_alone(monkeypatch):
    monkeypatch.setattr(in_blocks, "AT_ONCE", 2 * 2 * ALL * 5)
    (q, k), pools = joint(), torch.rand(3, 12)
    full = whole(q[:, :, IMAGE], k[:, :, IMAGE])
    expected = torch.einsum("oq,bhqk->bhko", (pools / pools.sum(-1, keepdim=True)).double(), full)
    torch.testing.assert_close(region_maps(q, k, 2, pools, rows=IMAGE), expected.float(), rtol=0, atol=1e-6)


def test_shares_among_words_are_a_softmax_over_the_words():
    q, k = joint()
    words = torch.arange(3, 7)
    found = among_words(token_maps(q, k, 2, words, rows=IMAGE))
    expected = whole(q[:, :, IMAGE], k[:, :, 3:7])
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-6)
    some = among_words(token_maps(q, k, 2, words, rows=IMAGE), [0, 2])
    torch.testing.assert_close(some[..., [0, 2]].sum(-1), torch.ones(2, 2, 12))


def test_smoothing_spreads_a_peak_and_keeps_the_even():
    even = torch.full((1, 4, 5), 3.0)
    torch.testing.assert_close(smoothed(even), even)
    peak = torch.zeros(1, 5, 5)
    peak[0, 2, 2] = 1
    spread = smoothed(peak)[0]
    torch.testing.assert_close(spread.sum(), torch.tensor(1.0))
    torch.testing.assert_close(spread[2, 1] / spread[2, 2], torch.exp(torch.tensor(-0.5)))
    assert int((spread > 0).sum()) == 9


def test_what_a_call_shows():
    joint_call = TokenOrder(TEXT, IMAGE, (3, 4))
    assert {stream: (view.rows, view.keys, view.words) for stream, view in views(joint_call).items()} == {
        CROSS: (IMAGE, None, TEXT),
        SELF: (IMAGE, IMAGE, slice(0, 0)),
    }
    assert list(views(TokenOrder(slice(0, 9), IMAGE, (3, 4), is_joint=False))) == [CROSS]
    assert list(views(TokenOrder(slice(0, 0), IMAGE, (3, 4), is_joint=False))) == [SELF]


def test_a_recorder_counts_columns_from_either_end_and_knows_the_prompts_length():
    q, k = joint(1)
    order, site = TokenOrder(TEXT, IMAGE, (3, 4)), Site(BLOCK, 0, CROSS, (3, 4), 1, 1)
    recorder = AttentionRecorder(ALL_BLOCKS, (6, 8), [torch.tensor([1, -1])], lengths=[5])
    assert recorder.wants(site)
    recorder.record(site, q, k, 2, order=order)
    full = whole(q, k)[:, :, IMAGE]
    torch.testing.assert_close(recorder.maps[site], full[..., [3, 6]].float(), rtol=0, atol=1e-6)
    other = AttentionRecorder(ALL_BLOCKS, (6, 8), [torch.tensor([1])], lengths=[7])
    with pytest.raises(ValueError, match=r"reads 5 tokens of text where 7 were expected.*one by one"):
        other.record(site, q, k, 2, order=order)


def sites(blocks):
    return [Site(BLOCK, i, stream, (3, 4), 1, blocks) for i in range(blocks) for stream in (CROSS, SELF)]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (ALL_BLOCKS, range(20)),
        (FOUND, range(20)),
        (QUARTER, range(20)),
        (MIDDLE_BLOCKS, [5, 7, 9, 11]),
        ("8-12", range(8, 13)),
        ("3, 5-6", [3, 5, 6]),
        ("19-40", [19]),
    ],
)
def test_blocks_that_are_read(which, expected):
    chosen = choose_sites(sites(20), which, (6, 8))
    assert sorted({site.number for site in chosen}) == list(expected)
    assert {site.stream for site in chosen} == {CROSS, SELF}
    past = [site.number for site in sites(20) if is_past(site, [], which, (6, 8))]
    assert min(past, default=20) == max(expected) + 1


@pytest.mark.parametrize("which", ["eight", "", "8-", "-3", "8;9"])
def test_what_is_no_choice_is_said(which):
    with pytest.raises(ValueError, match="numbers of blocks, such as 8-12"):
        check_choice(which)


def test_a_u_net_reads_a_transformers_places():
    unet = [Site(DOWN, i, stream, (2**i, 2**i)) for i in (3, 2, 1) for stream in (SELF, CROSS)]
    assert choose_sites(unet, FOUND, (16, 16)) == choose_sites(unet, QUARTER, (16, 16))
    assert choose_sites(unet, ALL_BLOCKS, (16, 16)) == frozenset(unet)
    assert choose_sites(unet, "1", (16, 16)) == frozenset(unet[2:4])


def shown(place, noise, seed):
    """A block's map of two phrases and a word: each phrase at its place, under what all words share."""
    generator = torch.Generator().manual_seed(seed)
    maps = 0.1 + 0.05 * torch.rand(1, 3, 1, 8, 8, generator=generator)
    if place:
        maps[:, 0, :, :4, :4] += 1
        maps[:, 1, :, 4:, 4:] += 1
    return maps * (1 + noise * torch.rand(1, 1, 1, 8, 8, generator=generator))


def test_blocks_that_agree_are_found_under_what_all_words_share():
    maps = [shown(i in (2, 5, 6, 11), 3.0, i) for i in range(15)]
    prompt = WordMaps(maps, [[0], [1]], [0, 1, 2])
    assert choose_blocks([prompt]) == [2, 5, 6], "the eleventh is too late"
    barely = [1e-6 * map_ if i == 5 else map_ for i, map_ in enumerate(maps)]
    assert choose_blocks([WordMaps(barely, [[0], [1]], [0, 1, 2])]) == [2, 5, 6], (
        "how much text a block reads says nothing"
    )
    assert choose_blocks([WordMaps(maps, [], [0])]) == []
    assert choose_blocks([WordMaps(maps, [[0, 1]], [0, 1])]) == [], "no other word to stand out from"
    assert choose_blocks([WordMaps(maps, [[0, 1], [0], [1]], [0, 1]), WordMaps(maps, [[0]], [0])]) == [2, 5, 6]
    assert choose_blocks([WordMaps(maps[:1], [[0]], [0, 1])]) == [0]


def test_maps_are_compared_on_a_coarse_grid():
    found = torch.rand(2, 3, 2 * 48 * 64, 5)
    pooled = pooled_map(found, (48, 64))
    assert pooled.shape == (2, 5, 2, 24, 32)
    expected = found.mean(1).reshape(2, 2, 24, 2, 32, 2, 5).mean((3, 5))
    torch.testing.assert_close(pooled, expected.movedim(-1, 1))
