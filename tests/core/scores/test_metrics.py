"""Scores against closed forms and against independent slow versions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stagecraft.core.scores import metrics


def test_box_iou_closed_forms():
    unit = (0.0, 0.0, 1.0, 1.0)
    assert metrics.box_iou(unit, unit) == 1
    assert metrics.box_iou(unit, (0.5, 0.0, 1.5, 1.0)) == pytest.approx(1 / 3)
    assert metrics.box_iou(unit, (0.25, 0.25, 0.75, 0.75)) == pytest.approx(0.25)
    assert metrics.box_iou(unit, (1.0, 0.0, 2.0, 1.0)) == 0
    assert metrics.box_iou(unit, (2.0, 2.0, 3.0, 3.0)) == 0
    assert metrics.box_iou(unit, None) == 0
    assert metrics.box_iou((0.5, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)) == 0


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_box_iou_equals_counting_pixels(data):
    draw = st.lists(st.integers(0, 20), min_size=2, max_size=2, unique=True).map(sorted)
    boxes, drawn = [], []
    for _ in range(2):
        (x0, x1), (y0, y1) = data.draw(draw), data.draw(draw)
        boxes.append((x0 / 20, y0 / 20, x1 / 20, y1 / 20))
        mask = np.zeros((20, 20), bool)
        mask[y0:y1, x0:x1] = True
        drawn.append(mask)
    assert metrics.box_iou(*boxes) == pytest.approx((drawn[0] & drawn[1]).sum() / (drawn[0] | drawn[1]).sum())
    assert metrics.mask_iou(*drawn) == pytest.approx(metrics.box_iou(*boxes))


def test_bleed_and_mask_iou_of_nothing():
    empty, full = np.zeros((4, 4)), np.ones((4, 4))
    half = np.concatenate([np.ones((4, 2)), np.zeros((4, 2))], 1)
    assert metrics.bleed(empty, full) is None
    assert metrics.bleed(full, half) == 0.5
    assert metrics.bleed(half, full) == 0
    assert metrics.bleed(full, empty) == 1
    assert metrics.mask_iou(empty, empty) is None
    assert metrics.mask_iou(empty, full) == 0
    assert metrics.mask_iou(torch.from_numpy(half), full) == 0.5


def test_presence_asks_for_one_component_of_half_the_area():
    labels = np.zeros((10, 10), int)
    labels[:5, :4] = 2  # 20 pixels in one piece
    labels[8:, 8:] = 2
    assert metrics.is_present(labels, 2, 0.4)
    assert not metrics.is_present(labels, 2, 0.401)  # the other 4 pixels do not count
    assert not metrics.is_present(labels, 1, 0.0)  # right size, wrong class: nothing of it is there


def slow_average_precision(confidences, hits, truths):
    """The definition, point by point: sum over recalls of the best precision at that recall or a higher one."""
    order = sorted(range(len(hits)), key=lambda i: -confidences[i])
    points = []
    for cut in range(1, len(order) + 1):
        right = sum(hits[i] for i in order[:cut])
        points.append((right / truths, right / cut))
    area = 0.0
    for k in range(1, truths + 1):
        reached = [precision for recall, precision in points if recall >= k / truths - 1e-12]
        area += max(reached, default=0.0) / truths
    return area


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 4), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_average_precision_equals_its_definition(hits, missed, random):
    truths = sum(hits) + missed
    confidences = [i / 100 for i in random.sample(range(100), len(hits))]
    fast = metrics.average_precision(confidences, hits, truths)
    if truths == 0:
        assert fast is None
    else:
        assert fast == pytest.approx(slow_average_precision(confidences, hits, truths))


def test_average_precision_closed_forms():
    assert metrics.average_precision([0.9, 0.8], [True, True], 2) == 1
    assert metrics.average_precision([0.9, 0.8], [True, False], 2) == 0.5
    assert metrics.average_precision([0.9, 0.8], [False, True], 2) == pytest.approx(0.25)
    assert metrics.average_precision([0.9, 0.8, 0.7], [True, False, True], 2) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert metrics.average_precision([], [], 3) == 0
    with pytest.raises(ValueError, match="one confidence per detection"):
        metrics.average_precision([0.9, 0.8], [True, True], 1)


def test_peak_in_mask():
    attention = torch.tensor([[0.1, 0.9], [0.3, 0.2]])
    assert metrics.peak_in_mask(attention, np.array([[0, 1], [0, 0]])) is True
    assert metrics.peak_in_mask(attention, np.array([[1, 0], [1, 1]])) is False
    assert metrics.peak_in_mask(attention, np.zeros((2, 2))) is None
    with pytest.raises(ValueError, match="one grid"):
        metrics.peak_in_mask(attention, np.zeros((2, 3)))


def test_mean_class_iou_equals_masks_class_by_class():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (3, 8, 8))
    found = np.where(rng.uniform(size=truth.shape) < 0.6, truth, rng.integers(0, 4, truth.shape))
    slow = np.mean([((found == k) & (truth == k)).sum() / ((found == k) | (truth == k)).sum() for k in range(4)])
    assert metrics.mean_class_iou(found, truth, 6) == pytest.approx(slow)  # classes 4 and 5 are nowhere: left out
    assert metrics.mean_class_iou(truth.astype(np.uint8), torch.from_numpy(truth), 4) == 1
    other = truth.copy()
    other[truth == 0] = 5  # a name that is none of the truth's is wrong, not a class more
    assert metrics.mean_class_iou(other, truth, 6, range(4)) == pytest.approx(3 / 4)


def test_clip_similarity_and_retrieval():
    images = np.eye(4)
    texts = np.roll(np.eye(4), 1, 0)
    assert metrics.clip_similarity(images, images) == 1
    assert metrics.clip_similarity(images, texts) == 0
    assert metrics.clip_similarity(images[:0], texts[:0]) is None
    assert metrics.retrieval_accuracy(images, images, 4) == 1
    assert metrics.retrieval_accuracy(images, texts, 4) == 0
    assert metrics.retrieval_accuracy(images, images, 5) is None
    swapped = images[[1, 0, 2, 3]]
    assert metrics.retrieval_accuracy(images, swapped, 2) == 0.5
    with pytest.raises(ValueError, match="do not pair"):
        metrics.clip_similarity(images, texts[:2])


def test_mean_or_none():
    assert metrics.mean_or_none([None, 1, 2]) == 1.5
    assert metrics.mean_or_none([None]) is None
