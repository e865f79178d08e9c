"""The published loop without a host: against a quadratic energy, whose every step has a closed form."""

from dataclasses import replace

import pytest
import torch
from stagecraft.core.attention_guidance.descent import Descent, descend
from stagecraft.core.attention_guidance.published import ENERGIES
from stagecraft.core.attention_guidance.step import NORMALISED, PLAIN, SIGMA_SQUARED

SIGMA = 3.0
# E = c |x - goal|^2 / 2 has the gradient c (x - goal), so a step of size s leaves (1 - s c) of the distance.
CURVES = (0.01, 0.02, 0.005)
SIZES = {SIGMA_SQUARED: SIGMA**2, PLAIN: SIGMA**2 + 1}


def bowl(x):
    """E and its gradient for pictures with curves of their own; goal is 1 everywhere."""
    curves = torch.tensor(CURVES, dtype=x.dtype)[: len(x)]
    away = x.detach() - 1
    return curves * away.square().flatten(1).sum(1) / 2, curves.reshape(-1, 1, 1, 1) * away


def start(count=3):
    generator = torch.Generator().manual_seed(0)
    return 1 + torch.randn(count, 4, 5, 6, dtype=torch.float64, generator=generator)


def closed_form(x, curve, size, threshold, most):
    """One picture by plain numbers: the distance shrinks by a factor, the energy by its square."""
    left, energy, energies = 1.0, float("inf"), []
    first = curve * float((x - 1).square().sum()) / 2
    for _ in range(most):
        if energy <= threshold:
            break
        energy = first * left**2
        energies.append(energy)
        left *= 1 - size * curve
    return 1 + left * (x - 1), energies


@pytest.mark.parametrize("rule", SIZES)
@pytest.mark.parametrize("strength", [1.0, 0.5, -0.25])
@pytest.mark.parametrize("threshold", [-torch.inf, 0.3, 1e9])
def test_it_is_the_closed_form_and_every_picture_stops_by_itself(rule, strength, threshold):
    how, reports = Descent(rule, 2.0, strength, 6, threshold), []
    given = start()
    found, energy = descend(given.clone(), 1.0, SIGMA, bowl, how, report=lambda each: reports.append(each.tolist()))
    counts = []
    for row, curve in enumerate(CURVES):
        expected, energies = closed_form(given[row], curve, SIZES[rule] * 2.0 * strength, threshold, 6)
        torch.testing.assert_close(found[row], expected)
        assert energy[row].item() == pytest.approx(energies[-1])
        # A picture that has stopped keeps its energy while others go on.
        told = energies + energies[-1:] * (len(reports) - len(energies))
        assert [each[row] for each in reports] == pytest.approx(told)
        counts.append(len(energies))
    assert len(reports) == max(counts)
    if threshold == 0.3 and strength > 0:
        assert len(set(counts)) > 1, "the pictures must stop apart for this to say anything"


def test_nothing_is_measured_once_every_picture_is_low_enough():
    asked = []

    def measure(x):
        asked.append(len(x))
        return bowl(x)

    how, given = Descent(PLAIN, 1.0, 1.0, 5, 0.25), start()
    low = torch.tensor([0.25, 0.1, -1.0])
    found, energy = descend(given, 1.0, SIGMA, measure, how, low)
    assert torch.equal(found, given) and torch.equal(energy, low) and not asked
    some = torch.tensor([0.25, 5.0, 0.1])
    found, energy = descend(given, 1.0, SIGMA, measure, how, some)
    assert torch.equal(found[[0, 2]], given[[0, 2]]) and torch.equal(energy[[0, 2]], some[[0, 2]])
    assert not torch.equal(found[1], given[1]) and energy[1] != 5
    found, energy = descend(given, 1.0, SIGMA, bowl, replace(how, iterations=0))
    assert torch.equal(found, given) and torch.equal(energy, torch.full((3,), torch.inf))


def test_the_given_state_stays_and_keeps_its_precision():
    how, given = Descent(SIGMA_SQUARED, 1.0, 1.0, 3, -torch.inf), start().float()
    before = given.clone()
    found, energy = descend(given, 1.0, SIGMA, bowl, how)
    assert torch.equal(given, before) and found.dtype == energy.dtype == torch.float32

    def in_float32(x):
        return bowl(x.float())

    half, energy = descend(given.half(), 1.0, SIGMA, in_float32, how)
    assert half.dtype == torch.float16 and energy.dtype == torch.float32
    torch.testing.assert_close(half.float(), found, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("rule", [*SIZES, NORMALISED])
def test_a_state_of_unit_variance_moves_as_the_same_state_in_other_units(rule):
    """Z = x / sqrt(sigma^2 + 1), as DDIM holds it; gradient and step are those of x."""
    unit, how = (SIGMA**2 + 1) ** -0.5, Descent(rule, 1.0, 1.0, 4, 0.3)
    expected, energy = descend(start(), 1.0, SIGMA, bowl, how)
    found, same = descend(unit * start(), 1.0, SIGMA, lambda z: bowl(z / unit), how, unit=unit)
    torch.testing.assert_close(found / unit, expected)
    torch.testing.assert_close(same, energy)


def test_a_normalised_step_has_its_size_whatever_the_slope():
    how, given = Descent(NORMALISED, 7.0, 2.0, 1, -torch.inf), start()
    for steeper in (1.0, 1e3):
        found, _ = descend(given, 1.0, SIGMA, lambda x, by=steeper: tuple(by * each for each in bowl(x)), how)
        moved = (found - given).square().flatten(1).mean(1).sqrt()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.05 * SIGMA * 2.0))


def test_an_error_in_a_measurement_leaves_the_loop():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        descend(start(), 1.0, SIGMA, interrupted, Descent(PLAIN, 1.0, 1.0, 5, 0.0))


@pytest.mark.parametrize("iterations", [None, 1, 7])
@pytest.mark.parametrize("name", ENERGIES)
def test_a_schedule_says_how_often_and_how_far(name, iterations):
    """Of whole runs, each call's steps counted and measured; where a schedule rests nothing is asked."""
    energy = replace(ENERGIES[name], iterations=iterations, threshold=-torch.inf)
    rest = [(0.0, 0)] * 4
    published = {
        "chen": [(30.0, 5)] * 50,
        "sali": [(30.0, 5)] * 50,
        "boxdiff": [(20.0 * (1 - step / 98) ** 0.5, 1) for step in range(50)],
        "refocusing": [(4.0, 2)] * 2 + [(4.0, 6)] * 3 + [(3.0, 3)] * 5 + 2 * [(3.0, 2), *rest] + 6 * [(1.0, 2), *rest],
    }[name]
    size = SIZES[energy.rule]
    for step, (scale, most) in enumerate(published):
        asked = []

        def measure(x, asked=asked):
            asked.append(1)
            return torch.ones(len(x)), torch.ones_like(x)

        given = start(1)
        how = energy.descent(step / 50, (step + 1) / 50, strength=0.5)
        found, _ = descend(given, 1.0, SIGMA, measure, how)
        count = iterations if iterations is not None and most else most
        assert len(asked) == count
        torch.testing.assert_close(given - found, torch.full_like(given, count * 0.5 * scale * size))
    still, _ = descend(given, 1.0, SIGMA, measure, energy.descent(0.0, 0.02, strength=0.0))
    assert torch.equal(still, given)
