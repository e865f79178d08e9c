"""Attention maps of chosen tokens: against the softmax written out, and what a backward pass keeps of them."""

import pytest
import torch
from stagecraft.core.attention.maps import region_maps, token_maps
from stagecraft.core.attention.recomputed import recomputed_attention
from stagecraft.core.attention.recorder import AttentionRecorder
from stagecraft.core.attention.sites import (
    CROSS,
    DOWN,
    FIRST_DOWN,
    HALF,
    MIDDLE,
    MIDDLE_AND_FIRST_UP,
    PLACES,
    QUARTER,
    SELF,
    UP,
    SiteCounter,
    choose_sites,
    is_past,
)


def written_out(q, k, heads, scale=None, mask=None):
    """softmax(q k^T scale + mask), one head of one row at a time: (b heads n t)."""
    maps = []
    for row in range(len(q)):
        for head in range(heads):
            width = q.shape[-1] // heads
            part = slice(head * width, (head + 1) * width)
            logits = q[row, :, part] @ k[row, :, part].T * (width**-0.5 if scale is None else scale)
            maps.append(torch.softmax(logits if mask is None else logits + mask[row, head], -1))
    return torch.stack(maps).unflatten(0, (len(q), heads))


def test_token_maps_are_columns_of_the_softmax():
    q, k = torch.randn(2, 6, 8), torch.randn(2, 5, 8)
    expected = written_out(q, k, 2)
    torch.testing.assert_close(token_maps(q, k, 2, torch.tensor([1, 4])), expected[..., [1, 4]])
    torch.testing.assert_close(token_maps(q, k, 2, torch.arange(5)).sum(-1), torch.ones(2, 2, 6))
    own = token_maps(q, k, 2, torch.tensor([[0, 3], [4, 2]]))
    torch.testing.assert_close(own, torch.stack([expected[0][..., [0, 3]], expected[1][..., [4, 2]]]))
    assert torch.equal(token_maps(q.half(), k.half(), 2, torch.tensor([1])).isfinite().all(), torch.tensor(True))


def test_scale_and_masks_are_those_of_the_attention():
    q, k = torch.randn(2, 6, 8), torch.randn(2, 5, 8)
    bias = torch.randn(2, 2, 6, 5)
    expected = written_out(q, k, 2, 0.1, bias)[..., [2]]
    torch.testing.assert_close(token_maps(q, k, 2, torch.tensor([2]), 0.1, bias), expected)
    allowed = torch.rand(2, 6, 5) > 0.3
    allowed[..., 0] = True
    hidden = torch.zeros(2, 1, 6, 5).masked_fill(~allowed[:, None], -torch.inf).expand(-1, 2, -1, -1)
    torch.testing.assert_close(
        token_maps(q, k, 2, torch.arange(5), mask=allowed), written_out(q, k, 2, mask=hidden), atol=1e-6, rtol=1e-5
    )


def test_region_maps_average_the_rows_of_their_regions():
    q, k, pools = torch.randn(2, 6, 8), torch.randn(2, 6, 8), torch.rand(3, 6)
    full = written_out(q, k, 2)
    expected = torch.einsum("oq,bhqk->bhko", pools / pools.sum(-1, keepdim=True), full)
    found = region_maps(q, k, 2, pools)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(2), torch.ones(2, 2, 3))
    assert torch.equal(region_maps(q, k, 2, torch.zeros(1, 6)), torch.zeros(2, 2, 6, 1)), "an empty region"


@pytest.mark.parametrize(
    "maps",
    [lambda q, k: token_maps(q, k, 2, torch.tensor([1, 3])), lambda q, k: region_maps(q, k, 2, torch.eye(6)[:2])],
)
def test_gradients_are_those_of_finite_differences(maps):
    q, k = (torch.randn(1, 6, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weights = torch.rand(maps(q, k).shape, dtype=torch.float64)
    found = torch.autograd.grad((maps(q, k) * weights).sum(), (q, k))
    for tensor, gradient in zip((q, k), found, strict=True):
        direction = torch.randn_like(tensor)
        step = 1e-2  # the softmax is evaluated in float32
        ahead, behind = (
            maps(*(each.detach() + sign * step * direction * (each is tensor) for each in (q, k))) for sign in (1, -1)
        )
        slope = ((ahead - behind) * weights).sum() / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), slope, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("of_text", [False, True])
def test_recomputed_attention_has_the_derivatives_of_attention(monkeypatch, of_text, split):
    """Of heads side by side, as U-Nets have them, and apart, as transformers do."""
    monkeypatch.setattr("stagecraft.core.attention.in_blocks.NEAR", 500)  # several blocks
    shapes = [(2, 3, n, 8) if split else (2, n, 24) for n in (33, 21, 21)]
    q, k, v = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    weights = torch.randn(2, 33, 24, dtype=torch.float64)

    def plain(q, k, v):
        if not split:
            q, k, v = (each.unflatten(-1, (3, 8)).transpose(1, 2) for each in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def detached(q, k, v):
        return plain(q.detach(), k.detach(), v.detach())  # a backend without a derivative

    wanted = (q,) if of_text else (q, k, v)
    if of_text:
        k, v = k.detach(), v.detach()
    expected = torch.autograd.grad((plain(q, k, v) * weights).sum(), wanted)
    out = recomputed_attention(q, k, v, 3, detached)
    torch.testing.assert_close(out, plain(q, k, v))
    torch.testing.assert_close(torch.autograd.grad((out * weights).sum(), wanted), expected)


def test_only_the_asked_columns_are_kept_for_the_way_back():
    """What autograd saves beyond q and k does not grow with the number of tokens."""

    def saved(tokens):
        q, k = torch.randn(1, 64, 16, requires_grad=True), torch.randn(1, tokens, 16)
        sizes = []

        def keep(tensor):
            if tensor.data_ptr() not in (q.data_ptr(), k.data_ptr()):
                sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            token_maps(q, k, 2, torch.tensor([1, 2]))
        return sum(sizes)

    assert saved(77) == saved(770)


def unet(levels, latent, depth=1):
    """Sites of a U-Net with cross-attention at some levels, in the order of evaluation."""
    counter, sites = SiteCounter(), []
    grids = [latent]
    while len(grids) < max(levels) + 1:
        grids.append(tuple(-(-side // 2) for side in grids[-1]))

    def block(part, level, count):
        for _ in range(count * depth):
            sites.extend(counter.next(part, stream, grids[level]) for stream in (SELF, CROSS))

    for level in sorted(levels)[: -1 if max(levels) > 2 else None]:
        block(DOWN, level, 2)
    block(MIDDLE, max(levels), 1)
    for level in sorted(levels, reverse=True)[1 if max(levels) > 2 else 0 :]:
        block(UP, level, 3)
    return sites


SD15 = unet([0, 1, 2, 3], (64, 64))


def test_chosen_sites_of_sd_15():
    cross = [site for site in choose_sites(SD15, MIDDLE_AND_FIRST_UP, (64, 64)) if site.stream == CROSS]
    assert sorted((site.part, site.number, site.grid) for site in cross) == [
        ("middle", 0, (8, 8)),
        ("up", 0, (16, 16)),
        ("up", 1, (16, 16)),
        ("up", 2, (16, 16)),
    ]
    quarter = [site for site in choose_sites(SD15, QUARTER, (64, 64)) if site.stream == CROSS]
    assert sorted((site.part, site.number) for site in quarter) == [
        ("down", 4),
        ("down", 5),
        ("up", 0),
        ("up", 1),
        ("up", 2),
    ]
    assert {site.grid for site in quarter} == {(16, 16)}
    assert {site.grid for site in choose_sites(SD15, HALF, (64, 64))} == {(32, 32)}
    first = choose_sites(SD15, FIRST_DOWN, (64, 64))
    assert {(site.number, site.grid) for site in first} == {(0, (64, 64)), (2, (32, 32)), (4, (16, 16))}
    with pytest.raises(ValueError, match='no choice of attentions "all"'):
        choose_sites(SD15, "all", (64, 64))


@pytest.mark.parametrize("which", PLACES)
@pytest.mark.parametrize("levels", [[0, 1, 2, 3], [1, 2], [0, 1], [2], [0]])
@pytest.mark.parametrize("latent", [(64, 64), (13, 50), (7, 7)])
@pytest.mark.parametrize("with_self", [False, True])
def test_a_recorder_finds_the_chosen_sites_while_they_come(monkeypatch, which, levels, latent, with_self):
    sites = unet(levels, latent, depth=2)
    expected = {site for site in choose_sites(sites, which, latent) if with_self or site.stream == CROSS}
    regions = torch.ones(1, *latent) if with_self else None
    recorder = AttentionRecorder(which, latent, [torch.tensor([0, 2])], regions=regions)
    softmaxes = []
    monkeypatch.setattr("stagecraft.core.attention.recorder.region_maps", lambda q, *_: softmaxes.append(len(q)) or q)
    steps = evaluate(recorder, sites)
    assert recorder.maps.keys() == expected
    of_self = [site for site in expected if site.stream == SELF]
    assert len(softmaxes) == len(of_self), "none is evaluated and thrown away"
    again = AttentionRecorder(which, latent, [torch.tensor([0, 2])], regions=regions, known=frozenset(recorder.maps))
    assert evaluate(again, sites) <= steps and again.maps.keys() == expected
    if expected:
        assert again.is_complete and sites[evaluated(again) - 1] in expected, "it stops behind the last"
    for i in range(len(sites)):
        assert not (is_past(sites[i], sites[:i], which, latent) and expected & set(sites[i:]))


def evaluate(recorder, sites):
    for count, site in enumerate(sites, 1):
        if recorder.wants(site):
            cells = site.grid[0] * site.grid[1]
            recorder.record(site, torch.zeros(1, cells, 2), torch.zeros(1, 4, 2), 1)
        if recorder.is_complete:
            return count
    return len(sites)


def evaluated(recorder):
    return len(recorder.seen)


def test_recorded_maps_of_repeated_prompts_are_sums_over_the_copies():
    q, k = torch.randn(2, 16, 8), torch.randn(2, 5, 8)
    site = SiteCounter().next(MIDDLE, CROSS, (4, 4))

    def recorded(keys, lengths):
        recorder = AttentionRecorder(
            MIDDLE_AND_FIRST_UP, (8, 8), [torch.tensor([1]), torch.tensor([2, 3])], lengths=lengths
        )
        assert recorder.wants(site)
        recorder.record(site, q, keys, 2)
        return recorder.maps[site]

    once = recorded(k, [5])
    torch.testing.assert_close(recorded(k.repeat(1, 3, 1), [5]), once)
    torch.testing.assert_close(recorded(k.repeat(1, 3, 1), [5, 15]), torch.stack([once[0], once[1] / 3]))
    assert once.shape == (2, 2, 16, 2)


def test_self_attention_is_recorded_where_regions_are_given():
    q = torch.randn(1, 16, 8)
    regions = torch.zeros(2, 8, 8)
    regions[0, :, :4] = regions[1, :4] = 1
    site = SiteCounter().next(MIDDLE, SELF, (4, 4))
    assert not AttentionRecorder(MIDDLE_AND_FIRST_UP, (8, 8), [torch.tensor([1])]).wants(site)
    recorder = AttentionRecorder(MIDDLE_AND_FIRST_UP, (8, 8), [torch.tensor([1])], regions=regions)
    assert recorder.wants(site)
    recorder.record(site, q, q, 2)
    rows = written_out(q, q, 2).unflatten(2, (4, 4))
    expected = torch.stack([rows[:, :, :, :2].mean((2, 3)), rows[:, :, :2].mean((2, 3))], -1)
    torch.testing.assert_close(recorder.maps[site], expected)
