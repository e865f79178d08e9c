"""What pictures say together: rows, intervals, differences, verdicts, and that libraries say the same."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from stagecraft.core.scores.layout_score import RegionScore, summarize
from stagecraft.core.scores.metrics import box_iou
from stagecraft.evaluation.graphs import sali
from stagecraft.evaluation.records.lines import PictureLine, RegionLine, picture_line
from stagecraft.evaluation.summary import bootstrap, kernel_distance
from stagecraft.evaluation.summary.compared import ALL, Compared, pooled, quotient
from stagecraft.evaluation.summary.estimate import Estimate
from stagecraft.evaluation.summary.rows import REFERENCE, summary_row, summary_rows
from stagecraft.evaluation.summary.set_scores import SCORES, DrawnPrecision, SetScores
from stagecraft.evaluation.summary.verdicts import (
    BETTER,
    LESS,
    MET,
    MISSED,
    MORE,
    OPEN,
    WORSE,
    better_or_worse,
    verdict,
)

AP, BOX_IOU, CLIP = (SCORES.index(name) for name in ("ap50", "box_iou", "clip"))


def box(rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([corner := rng.uniform(0, 0.5, 2), corner + rng.uniform(0.2, 0.5, 2)])


def region(rng: np.random.Generator, skill: float) -> RegionScore:
    asked = box(rng)
    found = tuple(map(float, asked + np.clip(rng.normal(0, 0.06 / skill, 4), -0.09, 0.09)))
    if rng.random() < 0.15:
        return RegionScore("a dog", "dog", tuple(asked), None, 0.0, 0.0, None, None, False)
    numbers = (box_iou(found, tuple(asked)), rng.random() if rng.random() < 0.5 else None, rng.random())
    return RegionScore("a dog", "dog", tuple(asked), found, float(rng.random()), *numbers, bool(rng.random() < 0.8))


def pictures(seed: int, layouts: int, method: str = "lrdiff", skill: float = 1.0, name: str = "objects_2"):
    """Lines of two pictures of each layout, and the scores that they were made of."""
    rng, lines, scores = np.random.default_rng(seed), [], []
    for item in range(layouts):
        for number in range(2):
            regions = [region(rng, skill) for _ in range(1 + item % 3)]
            given = {"present": all(each.present for each in regions), "clip": rng.random(), "seconds": 1.0}
            kept = tuple(map(RegionLine.of, regions))
            tags = ("boxes" if item % 2 else "masks", "small")
            lines.append(picture_line(method, name, item, number, regions=kept, tags=tags, objects=2, **given))
            scores.append(regions)
    return lines, scores


def test_a_row_is_what_the_layout_score_says_of_the_same_pictures():
    lines, scores = pictures(0, 20)
    row = summary_row("lrdiff", "objects_2", lines)
    assert {key: row[key] for key in summarize(scores)} == pytest.approx(summarize(scores), abs=2e-6)
    assert row["clip"] == pytest.approx(np.mean([each.clip for each in lines]), abs=1e-6)
    assert (row["pictures"], row["seconds"], row["kid"]) == (40, 1.0, None)
    assert set(row["intervals"]) == {key for key in SCORES if row[key] is not None}
    assert all(low <= row[key] <= high for key, (low, high) in row["intervals"].items())


def test_rows_are_of_sets_and_of_their_parts():
    lines = [*pictures(0, 4)[0], *pictures(1, 4, "plain")[0], *pictures(2, 4, "other")[0]]
    rows = summary_rows(lines, ["objects_2"], ["plain", "lrdiff"])
    names = ["objects_2", "objects_2/masks", "objects_2/boxes", "objects_2/small"]
    assert [(row["set"], row["method"]) for row in rows] == [(n, m) for n in names for m in ("plain", "lrdiff")]
    whole = summary_rows(lines[::-1], ["objects_2"], ["plain", "lrdiff"], by_tag=False)
    assert [row["pictures"] for row in whole] == [8, 8]
    assert whole[0]["box_iou"] == rows[0]["box_iou"]
    (boxes,) = (row for row in rows if row["set"] == "objects_2/boxes" and row["method"] == "plain")
    assert boxes == summary_row("plain", "objects_2/boxes", [e for e in lines if e.method == "plain" and e.item % 2])


def coco_average_precision(scores, levels) -> float:
    """AP@0.5 by pycocotools; every region is a picture of its own, so that it is compared with its detection alone."""
    regions = [each for picture in scores for each in picture]

    def sides(corners):
        return [corners[0], corners[1], corners[2] - corners[0], corners[3] - corners[1]]

    asked = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": sides(each.asked_box), "area": 1.0, "iscrowd": 0}
        for n, each in enumerate(regions, 1)
    ]
    found = [
        {"image_id": n, "category_id": 1, "bbox": sides(each.found_box), "score": round(each.confidence, 6)}
        for n, each in enumerate(regions, 1)
        if each.found_box is not None
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": [{"id": e["id"]} for e in asked], "annotations": asked, "categories": [{"id": 1}]}
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(found), "bbox")
        judge.params.iouThrs = np.array([0.5])
        judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [[0, 1e10]], ["all"], [100]
        judge.params.recThrs = levels(len(regions))
        judge.evaluate()
        judge.accumulate()
    return float(judge.eval["precision"].mean())


@pytest.mark.parametrize("seed", range(5))
def test_ap_is_coco_s_with_a_recall_for_each_thing_asked_for(seed):
    lines, scores = pictures(seed, 15)
    (ours,) = DrawnPrecision(lines, [each.item for each in lines]).of(np.ones((1, 15)))
    assert ours == pytest.approx(coco_average_precision(scores, lambda n: np.arange(1, n + 1) / n), abs=1e-9)
    assert abs(ours - coco_average_precision(scores, lambda n: np.linspace(0, 1, 101))) > 1e-5


def slow_kid(x: np.ndarray, y: np.ndarray) -> float:
    """All samples at once, each pair by itself: Binkowski et al. 2018, section 4; Gretton et al. 2012, lemma 6."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    within = (np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y))
    return float(sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y]))


def test_scores_of_a_draw_are_those_of_its_pictures_repeated():
    lines, _ = pictures(3, 12)
    rng = np.random.default_rng(0)
    times = rng.multinomial(12, [1 / 12] * 12, size=8)
    real = rng.normal(size=(30, 6))
    found = SetScores(lines, range(12)).of(times)
    for draw, values in zip(times, found.T, strict=True):
        repeated = [each for each in lines for _ in range(draw[each.item])]
        again = [PictureLine(**vars(each) | {"item": n}) for n, each in enumerate(repeated)]
        slow = SetScores(again, range(len(again))).of(np.ones((1, len(again))))[:, 0]
        assert values == pytest.approx(slow, nan_ok=True)
    assert np.isnan(found[SCORES.index("kid")]).all()
    x = rng.normal(size=(5, 6))
    distance = kernel_distance.DrawnKID(x, real)
    scale = 6**0.5
    assert distance.of(np.ones((1, 5)))[0] == pytest.approx(slow_kid(x * scale, real * scale))
    without = slow_kid(x[1:] * scale, real * scale)
    assert distance.of(np.array([[0, 1, 1, 1, 1]]))[0] == pytest.approx(without)


def test_intervals_are_those_of_the_mean_of_normal_layouts():
    """1.96 standard errors; layouts are drawn with all their pictures, so that copies of a picture are no evidence."""
    values = np.random.default_rng(1).normal(0.6, 0.1, 100)
    for copies in (1, 5):
        lines = [picture_line("m", "s", n, k, clip=value) for n, value in enumerate(values) for k in range(copies)]
        low, high = summary_row("m", "s", lines)["intervals"]["clip"]
        error = 1.96 * values.std() / 10
        assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.1 * error)
    assert summary_row("m", "s", lines[:5])["intervals"] == {}  # one layout has no spread
    assert summary_row("m", "s", lines) == summary_row("m", "s", lines)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng, hits = np.random.default_rng(2), 0
    for _ in range(200):
        sample = rng.exponential(1.0, 40)
        (low,), (high,) = bootstrap.intervals(lambda times, s=sample: (times @ s / 40)[None], [40], draws=500)
        hits += low <= 1.0 <= high
    assert 0.86 <= hits / 200 <= 0.98


def test_differences_are_paired():
    """What every layout has in common is no difference: the interval is far narrower than those of the methods."""
    rng = np.random.default_rng(4)
    hard = rng.uniform(0, 1, 60)
    lines = [picture_line("ours", "a", n, clip=value + 0.05 + rng.normal(0, 0.01)) for n, value in enumerate(hard)]
    lines += [picture_line("theirs", "a", n, clip=value) for n, value in enumerate(hard)]
    lines += [
        picture_line("ours", "a", 99, clip=9.0),
        picture_line("ours", "other", 0, clip=9.0),
    ]  # not painted by both
    compared = Compared(lines, ["a"])
    found = compared.difference("ours", "theirs", "clip")
    assert found.value == pytest.approx(0.05, abs=0.005)
    low, high = found.interval
    assert 0 < low < found.value < high and high - low < 0.01
    first, second = (
        summary_row(m, "a", [e for e in lines if e.method == m and e.item < 60]) for m in ("ours", "theirs")
    )
    assert min(np.ptp(row["intervals"]["clip"]) for row in (first, second)) > 0.1
    gain = compared.gain("ours", "theirs", "clip")
    assert gain.value == pytest.approx(found.value / hard.mean(), abs=1e-4) and gain.interval[0] > 0
    (row,) = compared.rows([("ours", "theirs"), ("ours", "nobody")])
    assert row["verdict"] == BETTER and row["pictures"] == 60 and row["set"] == ALL
    assert Compared(lines, ["b"]).difference("ours", "theirs", "clip") == Estimate(None, None)


def test_sets_are_drawn_apart_and_their_pictures_weigh_the_same():
    lines = [
        picture_line(method, name, n, clip=value + 0.1 * (method == "ours"))
        for name, value, number in (("a", 0.2, 10), ("b", 0.8, 30))
        for method in ("ours", "theirs")
        for n in range(number)
    ]
    compared = Compared(lines, ["a", "b"])
    gain = compared.gain("ours", "theirs", "clip")
    mean = (10 * 0.2 + 30 * 0.8) / 40
    assert (gain.value, *gain.interval) == pytest.approx((0.1 / mean,) * 3, abs=1e-5)  # within a set nothing differs
    assert {row["set"] for row in compared.rows([("ours", "theirs")])} == {ALL, "a", "b"}
    nothing = np.full((1, 2), np.nan)
    assert pooled([np.array([[0.2, 0.4]]), nothing], [10, 30]).tolist() == [[0.2, 0.4]]
    real = [picture_line("real", "c", n, present=n % 4 > 0) for n in range(40)]
    shown = [picture_line("ours", "c", n, present=n % 2 > 0) for n in range(40)]
    ratio = quotient(shown, real, "presence")
    assert ratio.value == pytest.approx(2 / 3, abs=1e-6) and ratio.interval[0] < 2 / 3 < ratio.interval[1]


def test_a_target_is_met_only_by_the_whole_interval():
    cases = {(0.2, 0.3): MET, (0.15, 0.3): MET, (0.1, 0.3): OPEN, (0.1, 0.15): OPEN, (0.0, 0.1): MISSED}
    for interval, expected in cases.items():
        assert verdict(interval, 0.15) == expected
        assert verdict(tuple(-end for end in interval[::-1]), -0.15, at="most") == expected
    assert verdict(None, 0.15) is verdict((0.1, 0.2), None) is None
    assert Estimate(0.2, (0.16, 0.3)).measure("x", "", 0.15)["verdict"] == MET
    assert Estimate.of(np.nan, np.nan, 1.0) == Estimate(None, None)


def test_measures_of_a_part_are_scores_like_any_other():
    def lines(method: str, bonus: float, names: tuple[str, ...] = ("PSNR", "alpha error")) -> list[PictureLine]:
        return [
            picture_line(method, "s", item, measures=dict.fromkeys(names, item + bonus) | {"never": None})
            for item in range(4)
        ]

    ours, theirs = lines("ours", 0.5), lines("theirs", 0, ("PSNR",))
    row, other = summary_rows([*ours, *theirs], ["s"], ["ours", "theirs"], by_tag=False)
    assert row["PSNR"] == row["alpha error"] == 2.0 and row["intervals"]["PSNR"][0] < 2 < row["intervals"]["PSNR"][1]
    assert other["PSNR"] == 1.5 and "alpha error" not in other and "never" not in row
    rows = Compared([*ours, *theirs], ["s"]).rows([("ours", "theirs")])
    assert [(each["score"], each["difference"], each["low"]) for each in rows] == [("PSNR", 0.5, 0.5)]
    ratio = quotient(theirs, ours, "PSNR")
    assert ratio.value == 0.75 and ratio.interval[0] < ratio.value


def test_differences_are_better_or_worse_by_what_the_score_wants():
    assert [better_or_worse((0.1, 0.2), score) for score in ("clip", "bleed", "kid")] == [BETTER, WORSE, WORSE]
    assert [better_or_worse((-0.2, -0.1), score) for score in ("clip", "bleed")] == [WORSE, BETTER]
    assert [better_or_worse((0.1, 0.2), score) for score in ("PSNR", "alpha error", "change")] == [BETTER, WORSE, MORE]
    assert better_or_worse((-0.2, -0.1), "change of PSNR") == WORSE
    assert better_or_worse((-0.2, -0.1), "inside change") == LESS
    assert (
        better_or_worse((-0.1, 0.2), "clip") == better_or_worse(None, "clip") == better_or_worse((0, 0), "clip") == OPEN
    )


def unit(rng: np.random.Generator, number: int, shift: float = 0.0) -> np.ndarray:
    vectors = rng.normal(size=(number, 16)) + shift
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_kid_is_torch_fidelity_s_and_agrees_with_all_samples_at_once():
    rng = np.random.default_rng(5)
    ours, real = unit(rng, 240, 0.4), unit(rng, 300)
    found = kernel_distance.kid(ours, real)
    whole = slow_kid(4 * ours, 4 * real)
    assert found == pytest.approx(whole, rel=0.1) and whole > 0.1
    assert kernel_distance.kid(ours, real) == found
    assert kernel_distance.kid(ours[:199], real) is kernel_distance.kid(ours, real[:199]) is None


def test_a_row_has_a_kid_where_there_are_enough_pictures_and_real_scenes():
    rng = np.random.default_rng(6)
    real = [picture_line(REFERENCE, "real", n, objects=2, features=each) for n, each in enumerate(unit(rng, 240))]
    near, far = (
        [picture_line(m, "s", n, objects=2, features=each) for n, each in enumerate(unit(rng, 200, shift))]
        for m, shift in (("near", 0.0), ("far", 0.5))
    )
    rows = {row["method"]: row for row in summary_rows([*real, *near, *far], ["s"], ["near", "far"])}
    assert rows["near"]["intervals"]["kid"][0] < rows["near"]["kid"] < 0.1 < rows["far"]["intervals"]["kid"][0]
    assert summary_rows([*real, *far[1:]], ["s"], ["far"])[0]["kid"] is None
    assert summary_rows(far, ["s"], ["far"])[0]["kid"] is None


def test_gains_are_relative_and_count_every_picture_once():
    lines = [
        picture_line(method, name, item, clip=value + (-1) ** item * 0.001)
        for method, name, pictures, value in [
            ("chen", "a", 10, 0.2),
            ("chen", "b", 30, 0.4),
            ("sali", "a", 10, 0.4),
            ("sali", "b", 30, 0.5),
            ("plain", "a", 10, 0.9),
        ]
        for item in range(pictures)
    ]
    (gain,) = sali.gains(Compared(lines, ["a", "b"]))
    assert gain["name"] == "CLIP: sali against chen" and (gain["verdict"], gain["target"]) == (MET, -0.03)
    assert gain["value"] == pytest.approx((10 * 0.4 + 30 * 0.5) / (10 * 0.2 + 30 * 0.4) - 1, abs=1e-6)
    assert sali.gains(Compared(lines[:40], ["a", "b"])) == []


def test_ten_of_ten_do_not_say_that_a_share_of_95_percent_is_met():
    assert verdict((1.0, 1.0), 0.95) == OPEN and verdict((0.96, 1.0), 0.95) == MET
    assert better_or_worse((1.0, 1.0), "presence") == OPEN
