"""Means, spreads, differences and ratios of pictures' numbers: values and what their intervals are over."""

import numpy as np
import pytest
from stagecraft.evaluation.records.lines import picture_line
from stagecraft.evaluation.records.pictures import PictureRecords
from stagecraft.evaluation.summary.compared import Compared
from stagecraft.evaluation.summary.means import difference_of, estimate, mean_of, ratio_of, spread_of
from stagecraft.evaluation.summary.rows import summary_row


def lines(values, method="a", set_name="s", number=0):
    return [picture_line(method, set_name, n, number, measures={"x": value}) for n, value in enumerate(values)]


def x(line):
    return line.measures.get("x")


def test_a_mean_is_that_of_the_pictures_to_which_it_applies():
    found = mean_of(lines([0.0, None, 1.0, 0.5]), x)
    assert found.value == 0.5 and found.interval[0] < 0.5 < found.interval[1]
    assert mean_of(lines([None]), x).value is None and mean_of([], x).interval is None
    assert mean_of(lines([3.0]), x).value == 3 and mean_of(lines([3.0]), x).interval is None
    # Pictures weigh the same, whichever set they are of.
    assert mean_of(lines([1.0]) + lines([0.0, 0.0, 0.0], set_name="t"), x).value == 0.25


def test_intervals_are_over_items_and_not_over_pictures():
    values = np.random.default_rng(0).normal(size=30)
    once = mean_of(lines(values), x)
    again = mean_of([line for number in range(5) for line in lines(values, number=number)], x)
    assert again.interval == once.interval and again.value == pytest.approx(once.value, abs=2e-6)
    expected = 1.96 * values.std() / 30**0.5
    assert once.interval == pytest.approx((values.mean() - expected, values.mean() + expected), abs=0.06)


def test_spread_is_a_standard_deviation():
    assert spread_of(lines([0.5, 0.9]), x).value == pytest.approx(0.2)
    assert spread_of(lines([0.3] * 4), x).value == 0


def test_differences_and_ratios_are_of_the_same_items():
    ours, theirs = lines([1.0, 2.0, 3.0]), lines([0.5, 1.0, 1.5, 100.0], "b")
    assert difference_of(ours, theirs, x).value == 1
    ratio = ratio_of(ours, theirs, x)
    assert (ratio.value, ratio.interval) == (2, (2, 2))
    assert ratio_of(ours, lines([0.0, 0.0, 0.0], "b"), x).value is None
    assert ratio_of(lines([None, 2.0]), lines([1.0, None], "b"), x).value == 2
    assert difference_of(lines([None, 2.0]), lines([1.0, None], "b"), x).value is None


def test_an_estimate_is_any_function_of_means():
    found = estimate([("s", n, (n, 1.0)) for n in range(5)], lambda means: means[0] * 10 + means[1])
    assert found.value == 21 and found.interval[0] < 21 < found.interval[1]


def test_a_measure_named_as_a_score_is_that_score():
    """Parts without regions measure mask IoU and bleed by themselves; rows and differences have them in their place."""

    def of(method, value):
        return [picture_line(method, "s", n, measures={"mask_iou": value + n / 10, "bleed": 0.1}) for n in range(3)]

    row = summary_row("a", "s", of("a", 0.5))
    assert row["mask_iou"] == pytest.approx(0.6) and row["intervals"]["mask_iou"] == [0.5, 0.7]
    assert row["bleed"] == pytest.approx(0.1) and row["box_iou"] is None and list(row).count("mask_iou") == 1
    records = PictureRecords(None, {})
    records.add([*of("a", 0.5), *of("b", 0.3)])
    found = {each["score"]: each["difference"] for each in Compared(records, ("s",)).rows([("a", "b")])}
    assert found == {"mask_iou": pytest.approx(0.2), "bleed": pytest.approx(0)}
