"""From measured fits to noise: TCIG's second stage before any model is asked."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.tcig.refinement import Denoising, plan_refinement, refinement_report, refinement_text

LAYOUT = parse_layout("a dog: 0 0 0.5 1\nan apple: 0.75 0.5 1 1", width=64, height=32)
STEPS = 40
SHARES = st.floats(0, 1)


def plan(overlaps, denoising, steps=STEPS):
    return plan_refinement(LAYOUT, overlaps, denoising, steps, 16, 32)


@given(SHARES, SHARES, SHARES, SHARES)
def test_better_masks_are_noised_less(first, second, one, other):
    denoising = Denoising(*sorted((one, other)))
    worse, better = sorted((first, second))
    assert plan({0: better, 1: better}, denoising).steps <= plan({0: worse, 1: worse}, denoising).steps
    assert denoising.least - 1e-9 <= denoising.of(first) <= denoising.most + 1e-9


def test_ends_of_the_line_and_the_mean():
    denoising = Denoising(0.25, 0.75)
    assert plan({0: 1.0, 1: 1.0}, denoising).steps == 10
    assert plan({0: 0.0, 1: 0.0}, denoising).steps == 30
    assert plan({0: 1.0, 1: 0.0}, denoising).steps == 20
    assert plan({0: 1.0, 1: 0.0}, denoising).change is None
    assert plan({0: 0.3}, Denoising(fixed=0.5)).steps == 20
    assert plan({0: 0.3}, Denoising(fixed=0.0, hold=1.0)).steps == 0
    assert plan({0: 0.3}, Denoising(fixed=0.4), steps=1).steps == 1  # what is to be painted is painted


def test_held_regions_have_levels_of_their_own():
    held = plan({0: 1.0, 1: 0.0}, Denoising(0.25, 0.75, hold=1.0))
    assert held.steps == 30  # the most that a region needs
    third, whole, background = held.change[8, 4], held.change[12, 28], held.change[2, 20]
    torch.testing.assert_close(torch.stack([third, whole, background]), torch.tensor([1 / 3, 1.0, 2 / 3]))
    half = plan({0: 1.0, 1: 0.0}, Denoising(0.25, 0.75, hold=0.5))
    assert half.steps == 25  # half-way from the mean
    torch.testing.assert_close(half.change[8, 4], torch.tensor(0.375 / 0.625))
    # By hand the strongest gets what was asked for, and the others their share of it.
    fixed = plan({0: 1.0, 1: 0.0}, Denoising(0.25, 0.75, fixed=0.5, hold=1.0))
    assert fixed.steps == 20 and torch.equal(fixed.change, held.change)


@given(SHARES, SHARES, SHARES)
def test_maps_of_changes_are_shares_and_somewhere_whole(first, second, hold):
    change = plan({0: first, 1: second}, Denoising(0.2, 0.9, hold=hold)).change
    if hold == 0:
        assert change is None
    else:
        assert change.min() >= 0 and change.max() <= 1 and change.max() > 0.999


def test_what_is_not_measured_counts_as_background():
    measured = plan({0: 1.0}, Denoising(0.25, 0.75, hold=1.0))
    assert measured.steps == 10 and torch.equal(measured.change, torch.ones(16, 32))


@pytest.mark.parametrize(
    ("given_values", "message"),
    [
        ({"least": 0.8, "most": 0.5}, "denoise_if_fits is 0.8, above denoise_if_not, which is 0.5"),
        ({"fixed": 1.5}, "fixed is 1.5; expected a share"),
        ({"hold": float("nan")}, "hold is nan; expected a share"),
    ],
)
def test_impossible_strengths_are_refused(given_values, message):
    with pytest.raises(ValueError, match=message):
        Denoising(**given_values)


def test_report_has_both_stages_side_by_side():
    report = refinement_report([LAYOUT] * 2, [{0: 0.5, 1: 0.7}, {1: 0.9}], [{0: 0.6, 1: 0.8}, {1: 1.0}], [0.5, 0.25])
    assert report["draft"] == pytest.approx(0.7) and report["refined"] == pytest.approx(0.8)
    assert report["pictures"][1] == {
        "denoise": 0.25,
        "regions": [{"phrase": "an apple", "draft": 0.9, "refined": 1.0}],
    }
    assert refinement_text(report).splitlines()[:3] == [
        "mask IoU: draft 0.70, refined 0.80",
        "picture 1, denoise 0.50",
        "a dog: 0.50 -> 0.60",
    ]
