"""The judges and numbers of `evaluate cnc`: what they promise, against closed forms and perfect pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stagecraft.core.compose_and_conquer.depth_pair import GROUND
from stagecraft.evaluation.compose_and_conquer import looks as cnc_looks
from stagecraft.evaluation.compose_and_conquer import order as cnc_order
from stagecraft.evaluation.compose_and_conquer import reconstruction as cnc_reconstruction
from stagecraft.evaluation.compose_and_conquer import scores as cnc_scores
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.records.lines import picture_line
from stagecraft.evaluation.records.pictures import PictureRecords
from stagecraft.evaluation.sets import pairs as pair_sets
from stagecraft.evaluation.summary.rows import summary_rows
from stagecraft.evaluation.summary.verdicts import MET, MISSED, OPEN
from stagecraft.sticker_world.world.concepts import CANVAS, CONCEPT_NAMES


@pytest.fixture(scope="module")
def yardsticks():
    return Yardsticks.load()


# Two shapes that share the middle column of three, on a canvas whose last row is background.
NEAR, FAR = (np.zeros((4, 3), bool) for _ in range(2))
NEAR[:3, :2] = FAR[:3, 1:] = True


def picture(left: int, middle: int, right: int) -> np.ndarray:
    labels = np.zeros((4, 3), int)
    labels[:3] = left, middle, right
    return labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (picture(1, 1, 2), (True, True, True)),
        (picture(1, 2, 2), (True, False, False)),  # the other one is in front
        (picture(2, 2, 1), (False, False, True)),  # right outlines, but the things changed places
        (picture(1, 1, 0), (False, False, False)),  # one of them is missing
        (picture(1, 1, 1), (False, False, False)),
        (picture(0, 0, 0), (False, False, False)),
        (picture(3, 3, 2), (False, False, True)),  # something else has the near one's shape
        (picture(1, 0, 2), (True, False, False)),  # nothing where they overlap
    ],
)
def test_depth_order_is_read_where_the_shapes_overlap(labels, expected):
    score = cnc_scores.judge_order(labels, NEAR, FAR, (1, 2))
    assert (score.present, score.asked, score.outline) == expected


def test_the_asked_order_takes_more_than_half_of_the_overlap():
    near, far = np.ones((2, 4), bool), np.zeros((2, 4), bool)
    near[:, 3], far[:, 1:] = False, True
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    assert not cnc_scores.judge_order(labels, near, far, (1, 2)).asked
    labels[0, 2] = 1
    assert cnc_scores.judge_order(labels, near, far, (1, 2)).asked


def test_the_depth_of_true_labels_is_the_true_depth():
    order = {name: 1 + i for i, name in enumerate(CONCEPT_NAMES)}
    ground = np.linspace(0, GROUND, CANVAS, dtype=np.float32)[:, None] * np.ones((1, CANVAS), np.float32)
    for real in pair_sets.real_scenes(6):
        planes = {order[thing.concept]: thing.disparity for thing in real.scene.objects}
        depth = cnc_scores.depth_of_labels(real.scene.labels(), planes, ground)
        assert np.abs(depth - real.scene.disparity()).mean() < 2e-3  # soft edges fall to either side
    labels = np.array([[0, 2, 5]])
    found = cnc_scores.depth_of_labels(labels, {2: 0.4}, np.full((1, 3), 0.1, np.float32))
    assert found.tolist() == [pytest.approx([0.1, 0.4, cnc_scores.STRANGER])]


def test_distance_in_features_is_that_of_directions():
    x = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    assert cnc_scores.feature_distance([x, x], [3 * x, x]) == pytest.approx(torch.zeros(2), abs=1e-5)
    assert cnc_scores.feature_distance([x], [-x]) == pytest.approx(torch.full((2,), 4.0), abs=1e-5)
    a, b = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    a[0, 0], b[0, 0, 0, 0], b[0, 1, 0, 1] = 1, 1, 1  # equal at the first position, at right angles at the second
    assert cnc_scores.feature_distance([a], [b]).item() == pytest.approx(1)
    assert cnc_scores.feature_distance([a, a], [b, a]).item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # Bruce Lindbloom's calculator, sRGB, D65
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_colours_have_their_lab_values(rgb, lab):
    assert cnc_scores.lab_of_rgb(np.array(rgb, np.uint8)) == pytest.approx(np.array(lab), abs=0.05)


def test_colour_distance_counts_only_where_it_is_asked():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    half = black.copy()
    half[0] = 255
    everywhere, top = np.ones((2, 2), bool), np.array([[True, True], [False, False]])
    assert cnc_scores.colour_distance(black, white, everywhere) == pytest.approx(100, abs=0.01)
    assert cnc_scores.colour_distance(black, half, everywhere) == pytest.approx(50, abs=0.01)
    assert cnc_scores.colour_distance(black, half, ~top) == 0
    assert cnc_scores.colour_distance(black, white, ~everywhere) is None


def test_the_judge_passes_perfect_pictures_and_no_others(yardsticks):
    """The ceiling of the whole set is in the results; here some pairs, and that the wrong order never passes."""
    right, wrong = [], []
    for pair in pair_sets.load_pairs()[:8]:
        for front in (0, 1):
            labels = yardsticks.labels(pair.perfect_picture(front))
            classes = [yardsticks.segmenter.class_of(pair.concepts[i]) for i in (front, 1 - front)]
            near, far = pair.shapes[front], pair.shapes[1 - front]
            right.append(cnc_scores.judge_order(labels, near, far, tuple(classes)))
            wrong.append(cnc_scores.judge_order(labels, far, near, tuple(classes[::-1])))
    assert sum(score.asked for score in right) >= 15
    assert not any(score.asked or score.outline for score in wrong)


def painted(paint, *arguments):
    """The lines that a part keeps of what needs no painter."""
    records = PictureRecords(None, {"code": "1"})
    for each in arguments:
        paint(None, Yardsticks.load(), records, *each, lambda *_: None)
    return records


def values(measures):
    return [each["value"] for each in measures]


def test_perfect_pairs_give_rows_and_measures():
    pairs = pair_sets.load_pairs()[:3]
    records = painted(cnc_order.paint_pair, *(({cnc_order.PERFECT: None}, pair) for pair in pairs))
    (row,) = summary_rows(records, (cnc_order.SET,), (cnc_order.PERFECT,), by_tag=False)
    assert (row["method"], row["set"], row["pictures"], row["presence"]) == ("perfect", "cnc_order", 6, 1)
    assert row["mask_iou"] > 0.8 and row["seconds"] is row["kid"] is row["box_iou"] is None
    low, high = row["intervals"]["mask_iou"]
    assert low < row["mask_iou"] < high
    assert values(cnc_order.order_measures(list(records))) == [1, 1, 1]
    lines = list(records)
    lines[1] = replace(lines[1], measures=dict(lines[1].measures) | {cnc_order.AS_ASKED: 0.0, cnc_order.OUTLINES: 0.0})
    assert values(cnc_order.order_measures(lines)) == pytest.approx([2 / 3, 5 / 6, 5 / 6], abs=1e-6)


def test_the_asked_order_is_met_only_by_a_whole_interval():
    def measured(method, right):
        lines = [
            picture_line(method, cnc_order.SET, n, front, measures={cnc_order.AS_ASKED: ok, cnc_order.OUTLINES: ok})
            for n in range(40)
            for front, ok in enumerate((True, n < right))
        ]
        return cnc_order.order_measures(lines)[0]

    said = [measured("cnc", right)["verdict"] for right in (39, 34, 20)]
    assert said == [MET, OPEN, MISSED] and measured("plain", 39)["verdict"] is None
    assert measured("cnc", 20)["value"] == 0.5 and measured("cnc", 20)["target"] == cnc_order.TARGET


def test_real_scenes_are_their_own_best_reconstruction(yardsticks):
    scenes = pair_sets.real_scenes(3)
    records = painted(cnc_reconstruction.repaint, *(({cnc_reconstruction.REAL: None}, real) for real in scenes))
    depth, distance, clip = values(cnc_reconstruction.reconstruction_measures(list(records)))
    assert depth < 0.03 and distance < 1e-5 and clip == pytest.approx(1, abs=1e-5)
    mirrored = cnc_reconstruction.compare(yardsticks, scenes[0], scenes[0].scene.image[:, ::-1].copy())
    assert mirrored[cnc_reconstruction.DEPTH] > depth and mirrored[cnc_reconstruction.FEATURES] > 0.05
    assert mirrored[cnc_reconstruction.LIKENESS] < clip


def test_perfect_looks_do_not_bleed():
    pairs = pair_sets.load_looks()[:3]
    records = painted(cnc_looks.place, *(({cnc_looks.PERFECT: None}, looks) for looks in pairs))
    assert {line.set_name for line in records} == {cnc_looks.NAMED, cnc_looks.UNNAMED} and len(records) == 6
    assert all(line.present for line in records)
    rows = summary_rows(records, (cnc_looks.NAMED,), (cnc_looks.PERFECT,), by_tag=False)
    assert rows[0]["bleed"] < 0.05 and rows[0]["intervals"]["bleed"][0] <= rows[0]["bleed"]


def test_bleed_is_compared_with_the_same_tokens_without_a_mask():
    def placed(method, *bleeds):
        return [picture_line(method, cnc_looks.NAMED, n, measures={"bleed": x}) for n, x in enumerate(bleeds)]

    guided, unguided = placed("cnc", 0.1, 0.1), placed("cnc_open", 0.5, 0.4)
    inside, inside_open, ratio = cnc_looks.looks_measures(guided, unguided)
    assert (inside["value"], inside_open["value"]) == pytest.approx((0.9, 0.55))
    assert ratio["value"] == pytest.approx(0.1 / 0.45, abs=1e-6) and ratio["target"] == pytest.approx(1 / 3)
    assert ratio["low"] == pytest.approx(0.2) and ratio["high"] == pytest.approx(0.25) and ratio["verdict"] == MET
    half = cnc_looks.looks_measures(placed("cnc", None, 0.1), unguided)
    assert half[0]["value"] == pytest.approx(0.9)  # what is nowhere has no bleed
    assert cnc_looks.looks_measures(placed("cnc", None, None), unguided)[2]["value"] is None


def test_a_foreground_that_stays_the_same_is_at_no_distance(yardsticks):
    looks = pair_sets.load_looks()[0]
    weak = looks.perfect_picture()
    strong = weak.copy()
    strong[~looks.shapes.any(0)] //= 2
    line = cnc_looks.strength_line(yardsticks, "cnc", looks, weak, strong)
    assert line.measures["mask_iou"] > 0.9
    assert line.measures[cnc_looks.FOREGROUND] < 1 < line.measures[cnc_looks.BACKGROUND]
    assert values(cnc_looks.strength_measures([line, line])) == pytest.approx(list(line.measures.values()), abs=1e-5)
