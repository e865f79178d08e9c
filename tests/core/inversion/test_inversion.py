"""Inversion against closed forms and against the sampler's own way back."""

import pytest
import torch
from stagecraft.core.inversion.inversion import SMALLEST_SIGMA, blend_noise, invert, rising_sigmas, state_at

DEVIATION = 0.7  # of the data in the closed forms


def gaussian(x, sigma):
    """E[x_0 | x_0 + sigma eps] for data of N(0, DEVIATION^2)."""
    return x * DEVIATION**2 / (DEVIATION**2 + sigma**2)


def gaussian_flow(x, sigma):
    """E[x_0 | (1 - sigma) x_0 + sigma eps] for the same data."""
    return (1 - sigma) * DEVIATION**2 * x / ((1 - sigma) ** 2 * DEVIATION**2 + sigma**2)


def two_hills(x, sigma):
    """E[x_0 | x_0 + sigma eps] for data of N(-1, DEVIATION^2) and N(1, DEVIATION^2) with equal chance: a curved one."""
    variance = DEVIATION**2 + sigma**2
    return (DEVIATION**2 * x + sigma**2 * torch.tanh(x / variance)) / variance


def sample(denoise, x, sigmas):
    """Euler's method from the last level down to the first, and from there to the clean prediction."""
    for sigma, following in zip(sigmas.flip(0)[:-1], sigmas.flip(0)[1:], strict=True):
        x = x + (following - sigma) * (x - denoise(x, sigma)) / sigma
    return x


@pytest.mark.parametrize("refinements", [0, 3])
@pytest.mark.parametrize(
    ("denoise", "last", "size"),
    [
        (gaussian, 14.0, lambda sigma: (DEVIATION**2 + sigma**2) ** 0.5),
        (gaussian_flow, 1.0, lambda sigma: ((1 - sigma) ** 2 * DEVIATION**2 + sigma**2) ** 0.5),
    ],
    ids=["eps", "flow"],
)
def test_it_follows_the_closed_form_at_every_level(denoise, last, size, refinements):
    """The ODE keeps every point at its share of the data's deviation, so states grow as the deviation does."""
    sigmas = torch.linspace(1e-3, last**0.5, 2000, dtype=torch.float64) ** 2
    x = torch.tensor([[0.3], [-1.2]], dtype=torch.float64)
    found = invert(denoise, x, sigmas, refinements)
    expected = x * (size(sigmas) / size(sigmas[0])).reshape(-1, 1, 1)
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=0)
    assert torch.equal(found[0], x)


def test_more_refinements_come_back_closer():
    sigmas = torch.linspace(0.3, 3.2, 12, dtype=torch.float64) ** 2
    x = torch.linspace(-1.3, 1.3, 7, dtype=torch.float64)[:, None]
    errors = []
    for refinements in (0, 1, 2, 4, 60):
        inverted = invert(two_hills, x, sigmas, refinements)[-1]
        errors.append((sample(two_hills, inverted, sigmas) - x).abs().max().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.05 and errors[-1] < 1e-9


def test_the_explicit_step_is_ddim_inversion():
    """In the variance-preserving form: x_0 from eps, then put together again at the next level."""
    sigmas = torch.tensor([0.1, 0.5, 2.0, 9.0], dtype=torch.float64)
    x = torch.tensor([[0.4], [-0.2]], dtype=torch.float64)
    found = invert(two_hills, x, sigmas)
    z = x / (sigmas[0] ** 2 + 1) ** 0.5
    for i in range(3):
        abar, following = (1 / (sigma**2 + 1) for sigma in sigmas[i : i + 2])
        eps = (z / abar**0.5 - two_hills(z / abar**0.5, sigmas[i])) / sigmas[i]
        clean = (z - (1 - abar) ** 0.5 * eps) / abar**0.5
        z = following**0.5 * clean + (1 - following) ** 0.5 * eps
        torch.testing.assert_close(found[i + 1], z / following**0.5)


@pytest.mark.parametrize(("refinements", "expected"), [(0, 5), (1, 6), (3, 16)])
def test_it_costs_what_it_says_and_reports_every_step(refinements, expected):
    calls, reports = [], []

    def denoise(x, sigma):
        calls.append(float(sigma))
        return gaussian(x, sigma)

    sigmas = torch.linspace(0.1, 5.0, 6)
    found = invert(denoise, torch.ones(1, 1), sigmas, refinements, lambda i, clean, x: reports.append((i, x)))
    assert len(calls) == expected
    assert [i for i, _ in reports] == list(range(5))
    assert all(torch.equal(x, found[i + 1]) for i, x in reports)


def test_rising_levels_begin_above_zero():
    torch.testing.assert_close(
        rising_sigmas(torch.tensor([9.0, 1.0, 0.0])), torch.tensor([SMALLEST_SIGMA, 1.0, 9.0]), rtol=0, atol=0
    )
    torch.testing.assert_close(
        rising_sigmas(torch.tensor([9.0, 1.0])), torch.tensor([SMALLEST_SIGMA, 1.0, 9.0]), rtol=0, atol=0
    )
    low = rising_sigmas(torch.tensor([9.0, 1.5e-4, 0.0]))
    assert 0 < low[0] < low[1] == 1.5e-4
    assert len(rising_sigmas(torch.tensor([5.0, 0.0]))) == 2


@pytest.mark.parametrize("sigmas", [[1.0, 2.0, 3.0], [2.0, 2.0, 0.0], [1.0], []])
def test_levels_that_do_not_fall_are_refused(sigmas):
    with pytest.raises(ValueError, match="do not rise step by step"):
        rising_sigmas(torch.tensor(sigmas))


def test_an_inversion_from_zero_is_refused():
    with pytest.raises(ValueError, match="starts at sigma 0; expected a small one above 0"):
        invert(gaussian, torch.ones(1, 1), torch.tensor([0.0, 1.0]))


def test_states_between_the_levels():
    sigmas = torch.tensor([0.5, 1.0, 3.0])
    trajectory = torch.arange(24, dtype=torch.float32).reshape(3, 2, 4) ** 2
    for i, sigma in enumerate(sigmas):
        assert torch.equal(state_at(trajectory, sigmas, sigma.expand(2)), trajectory[i])
    found = state_at(trajectory, sigmas, torch.tensor([2.5, 0.6]))  # every row has its own
    torch.testing.assert_close(found[0], 0.25 * trajectory[1, 0] + 0.75 * trajectory[2, 0])
    torch.testing.assert_close(found[1], 0.8 * trajectory[0, 1] + 0.2 * trajectory[1, 1])
    beyond = state_at(trajectory, sigmas, torch.tensor([5.0, 0.0]))
    torch.testing.assert_close(beyond[0], 2 * trajectory[2, 0] - trajectory[1, 0])
    torch.testing.assert_close(beyond[1], 2 * trajectory[0, 1] - trajectory[1, 1])


def test_blended_noise_keeps_its_variance_and_its_ends():
    generator = torch.Generator().manual_seed(0)
    kept, fresh = torch.randn(2, 1, 100_000, generator=generator)
    assert torch.equal(blend_noise(kept, fresh, torch.tensor(1.0)), kept)
    assert torch.equal(blend_noise(kept, fresh, torch.tensor(0.0)), fresh)
    for keep in (0.2, 0.5, 0.9):
        blended = blend_noise(kept, fresh, torch.tensor(keep))
        assert blended.std().item() == pytest.approx(1.0, abs=0.01)
        assert (blended * kept).mean().item() == pytest.approx(keep, abs=0.01)
