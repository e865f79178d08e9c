"""Layout energies: closed forms, each paper's terms written out, and that they fall as attention comes into place."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stagecraft.core.attention.sites import CROSS, SELF, Site
from stagecraft.core.attention_guidance.energies import (
    boxdiff,
    cross_refocusing,
    in_box_share,
    sali,
    self_refocusing,
)
from stagecraft.core.attention_guidance.published import ENERGIES, named_energy
from stagecraft.core.attention_guidance.step import NORMALISED, PLAIN, RULES, SIGMA_SQUARED, guidance_step
from stagecraft.core.attention_guidance.target import Target
from stagecraft.core.layout.masks import resample_by_area

GRID = (8, 8)
SITE, OTHER = Site("middle", 0, CROSS, GRID), Site("up", 0, CROSS, (16, 16))
LOOK = Site("middle", 0, SELF, GRID)


def box(x0, y0, x1, y1, side=16):
    mask = torch.zeros(side, side)
    mask[y0:y1, x0:x1] = 1
    return mask


DOG, CAT = Target((0,), box(0, 0, 8, 8)), Target((1, 2), box(8, 4, 16, 16), 0.5)


def attention(site, tokens=4, batch=2, heads=3, seed=0):
    cells = site.grid[0] * site.grid[1]
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(batch, heads, cells, tokens, generator=generator)).softmax(-1)


def self_attention(things=2, batch=2, heads=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, heads, GRID[0] * GRID[1], things, generator=generator).softmax(2)


def test_the_share_in_the_box_is_chens_energy():
    maps = {SITE: attention(SITE), OTHER: attention(OTHER)}
    for row in range(2):
        total = 0.0
        for site, found in maps.items():
            for target in (DOG, CAT):
                mask = torch.nn.functional.interpolate(target.mask[None, None], site.grid)[0, 0].flatten()
                for column in target.columns:
                    for head in range(3):
                        seen = found[row, head, :, column]
                        share = (seen * mask).sum() / seen.sum()
                        total += target.weight * (1 - share) ** 2 / (3 * len(target.columns) * 2 * 2)
        torch.testing.assert_close(in_box_share(maps, [DOG, CAT])[row], total)


def test_closed_forms():
    inside = torch.zeros(1, 2, 64, 1)
    inside[..., DOG.mask[::2, ::2].flatten() == 1, :] = 0.125
    assert in_box_share({SITE: inside}, [DOG]).item() == 0
    even = torch.ones(1, 2, 64, 1)
    assert in_box_share({SITE: even}, [DOG]).item() == pytest.approx(0.75**2)
    assert in_box_share({SITE: torch.zeros_like(even)}, [DOG]).item() == 1, "no attention is nowhere, not NaN"
    assert sali({SITE: inside}, [DOG]).item() == 0
    assert sali({SITE: even}, [DOG], eta=2.0).item() == pytest.approx(0.75**2 + 2)
    assert torch.equal(sali({SITE: attention(SITE)}, [CAT], eta=0.0), in_box_share({SITE: attention(SITE)}, [CAT]))
    looks = torch.zeros(1, 1, 64, 2)
    looks[0, 0, 0, 0] = looks[0, 0, 0, 1] = 1  # both look at the first cell, which only the first one has
    targets = [DOG, Target((1,), box(8, 8, 16, 16))]
    assert self_refocusing({LOOK: looks}, targets).item() == pytest.approx(0.5)


def blurred(found):
    """Mean over layers and heads, times 100, softmax over words, 3 x 3 Gaussian with sigma 0.5, reflected."""
    mean = torch.stack([each.mean(1) for each in found]).mean(0)
    maps = (100 * mean).softmax(-1).movedim(-1, 1).unflatten(-1, GRID)
    weights = torch.tensor(
        [[torch.exp(-torch.tensor((i * i + j * j) / 0.5)) for j in (-1.0, 0, 1)] for i in (-1.0, 0, 1)]
    )
    weights = weights / weights.sum()
    padded = torch.nn.functional.pad(maps, (1, 1, 1, 1), mode="reflect")
    rows = range(GRID[0])
    return torch.stack(
        [torch.stack([(padded[:, :, i : i + 3, j : j + 3] * weights).sum((2, 3)) for j in rows], -1) for i in rows], -2
    )


def test_boxdiff_written_out():
    second = Site("up", 1, CROSS, GRID)
    maps = {SITE: attention(SITE), second: attention(second, seed=1)}
    words = blurred(list(maps.values()))
    boxes = {DOG: (0, 0, 4, 4), CAT: (4, 2, 8, 8)}  # on the grid
    for row in range(2):
        total = 0.0
        for target, (x0, y0, x1, y1) in boxes.items():
            mask = torch.zeros(GRID)
            mask[y0:y1, x0:x1] = 1
            for column in target.columns:
                found = words[row, column]
                inner = sorted((found * mask).flatten().tolist())[-int(0.2 * mask.sum()) :]
                outer = sorted((found * (1 - mask)).flatten().tolist())[-int(0.2 * (1 - mask).sum()) :]
                corner = 0.0
                for axis, (start, end) in ((0, (x0, x1)), (1, (y0, y1))):
                    near = {cell for edge in (start, end) for cell in (edge - 1, edge, edge + 1) if 0 <= cell < 8}
                    error = (found.amax(axis) - mask.amax(axis)).abs()
                    corner += sum(error[cell].item() for cell in near) / 8
                terms = max(0, 1 - sum(inner) / len(inner)) + sum(outer) / len(outer) + corner
                total += target.weight * terms
        assert boxdiff(maps, list(boxes))[row].item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("progress", [0.0, 0.29, 0.31])
def test_cross_refocusing_written_out(progress):
    maps = {SITE: attention(SITE)}
    words = blurred(list(maps.values()))
    masks = {DOG: box(0, 0, 4, 4, 8), CAT: box(4, 2, 8, 8, 8)}
    late = 0 if progress >= 0.3 else 1
    for row in range(2):
        total = 0.0
        for target, other in ((DOG, CAT), (CAT, DOG)):
            for column in target.columns:
                found = words[row, column]
                inside, astray = ((found * masks[each]).max().item() for each in (target, other))
                background = (found * (1 - masks[DOG] - masks[CAT])).max().item()
                pull = 6 if inside < 0.1 else 1 if inside < 0.2 else late
                push = 4 if astray > 0.15 else 1 if astray > 0.1 else late
                total += target.weight * (pull * (1 - inside) + push * astray + 0.5 * background) / 2
        assert cross_refocusing(maps, [DOG, CAT], progress)[row].item() == pytest.approx(total, rel=1e-5)


def all_maps():
    return {SITE: attention(SITE), LOOK: self_attention()}


@pytest.mark.parametrize("name", ENERGIES)
def test_every_energy_falls_along_its_gradient_and_pictures_are_apart(name):
    energy = named_energy(name)
    logits = {site: found.log().requires_grad_() for site, found in all_maps().items()}

    def measure(logits):
        dims = {CROSS: -1, SELF: 2}
        return energy.measure({s: each.softmax(dims[s.stream]) for s, each in logits.items()}, [DOG, CAT], 0.1)

    before = measure(logits)
    assert before.shape == (2,) and torch.isfinite(before).all()
    gradients = torch.autograd.grad(before[0], list(logits.values()), allow_unused=True)
    moved = {}
    for (site, each), gradient in zip(logits.items(), gradients, strict=True):
        gradient = torch.zeros_like(each) if gradient is None else gradient
        assert not gradient[1].any(), "the second picture must not depend on the first"
        moved[site] = each - 0.5 * gradient / gradient.abs().amax().clamp(min=1e-9)
    after = measure(moved)
    assert after[0] < before[0] and after[1] == before[1]


@pytest.mark.parametrize("name", ENERGIES)
def test_a_region_is_brought_to_a_grid_once_and_leaves_inference_mode(monkeypatch, name):
    resampled = []

    def count(mask, *grid):
        resampled.append(grid)
        return resample_by_area(mask, *grid)

    monkeypatch.setattr("stagecraft.core.attention_guidance.target.resample_by_area", count)
    with torch.inference_mode():
        targets = [Target((0,), box(0, 0, 8, 8)), Target((1, 2), box(8, 4, 16, 16))]
        before = named_energy(name).measure(all_maps(), targets, 0.1)
    maps = {site: found.requires_grad_() for site, found in all_maps().items()}
    for _ in range(3):
        found = named_energy(name).measure(maps, targets, 0.1)
        found.sum().backward()
    torch.testing.assert_close(found.detach(), before.clone())
    assert resampled == [GRID] * 2


@pytest.mark.parametrize("name", ENERGIES)
def test_masks_of_one_cell_and_of_less(name):
    tiny = torch.zeros(64, 64)
    tiny[17, 42] = 1  # a part of one cell of the grid
    targets = [Target((0,), tiny), Target((1,), torch.ones(3, 5))]
    maps = {site: found.requires_grad_() for site, found in all_maps().items()}
    energy = named_energy(name).measure(maps, targets, 0.0)
    gradients = torch.autograd.grad(energy.sum(), list(maps.values()), allow_unused=True)
    assert torch.isfinite(energy).all() and all(torch.isfinite(each).all() for each in gradients if each is not None)
    right = torch.zeros(1, 1, 64, 1)
    right[0, 0, (17 // 8) * 8 + 42 // 8] = 1
    assert in_box_share({SITE: right}, targets[:1]).item() == 0, "its cell is all of its place"


def test_published_settings():
    chen, diff, focus = (named_energy(name) for name in ("chen", "boxdiff", "refocusing"))
    assert chen.schedule(0.1, 0.12) == (30.0, 5) and chen.threshold == 0.2 and chen.persists
    scales = [diff.schedule(step / 7, (step + 1) / 7)[0] for step in range(7)]
    torch.testing.assert_close(torch.tensor(scales), 20 * torch.linspace(1, 0.5, 7).sqrt())
    assert diff.schedule(0.0, 1.0) == (20.0, 1)
    published = [(4, 2)] * 2 + [(4, 6)] * 3 + [(3, 3)] * 5 + [(3, 2), (0, 0), (0, 0), (0, 0), (0, 0), (3, 2)]
    assert [focus.schedule(step / 50, (step + 1) / 50) for step in range(16)] == published
    assert focus.schedule(25 / 50, 26 / 50) == (1, 2) and focus.schedule(26 / 50, 27 / 50) == (0, 0)
    with pytest.raises(ValueError, match='no energy "other"; known: chen, boxdiff, refocusing, sali'):
        named_energy("other")


@given(st.integers(1, 200))
def test_refocusing_guides_where_a_fifth_step_of_50_is_for_any_number_of_steps(count):
    schedule = named_energy("refocusing").schedule
    guided = [step for step in range(count) if schedule(step / count, (step + 1) / count)[1]]
    early = [step for step in range(count) if 5 * step < count]
    assert guided == sorted({*early, *(count * fifth // 50 for fifth in range(10, 50, 5))})


# Of a state a x0 + b eps: its shares at a noise level sigma, or at a flow's time t.
MIXTURES = {
    "VE": lambda sigma: (1.0, sigma),
    "VP": lambda sigma: ((sigma**2 + 1) ** -0.5, sigma * (sigma**2 + 1) ** -0.5),
    "flow": lambda sigma: (1 / (sigma + 1), sigma / (sigma + 1)),
}


@pytest.mark.parametrize("mixture", MIXTURES)
@given(st.floats(0.01, 20), st.floats(0.1, 3))
def test_step_rules(mixture, sigma, strength):
    """The published step of x0 + sigma eps, in other units: x is a times that, its gradient in x is that by a."""
    a, b = MIXTURES[mixture](sigma)
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    g = x / a
    expected = 30 * strength * sigma**2 * x
    torch.testing.assert_close(guidance_step(g, a, b, SIGMA_SQUARED, 30, strength) / a, expected)
    # A plain step of z = x / s with the gradient in z, which is s times that in x.
    s = (sigma**2 + 1) ** 0.5
    torch.testing.assert_close(guidance_step(g, a, b, PLAIN, 20, strength) / a, s * 20 * strength * (s * x))
    size = guidance_step(1e-6 * g, a, b, NORMALISED, 30, strength).pow(2).mean((1, 2, 3)).sqrt() / a
    torch.testing.assert_close(size, torch.full_like(size, 0.05 * sigma * strength))
    assert all(not guidance_step(0 * g, a, b, rule, 30, strength).any() for rule in RULES)
    with pytest.raises(ValueError, match='no step rule "other"'):
        guidance_step(g, a, b, "other", 30, strength)


def test_step_rules_of_a_flow_in_figures():
    """At t = 0.8, a = 0.2: sigma squared 0.64 g, plain 0.68 g, normalised 0.04 g / rms(g)."""
    g = torch.tensor([[3.0, 4.0]])
    steps = {SIGMA_SQUARED: 0.64 * g, PLAIN: 0.68 * g, NORMALISED: 0.04 * g / 12.5**0.5}
    for rule, expected in steps.items():
        torch.testing.assert_close(guidance_step(g, 1 - 0.8, 0.8, rule, 1.0, 1.0), expected)
