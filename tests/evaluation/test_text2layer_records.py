"""`evaluate text2layer` keeps every picture's scores: what is asked of them, intervals, and runs that are stopped."""

import numpy as np
import pytest
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.records.lines import picture_line
from stagecraft.evaluation.records.pictures import PictureRecords
from stagecraft.evaluation.sets import sets
from stagecraft.evaluation.summary.verdicts import MET
from stagecraft.evaluation.text2layer import evaluate as text2layer
from stagecraft.evaluation.text2layer import layer_by_layer as text2layer_layers
from stagecraft.evaluation.text2layer import rows as text2layer_rows
from stagecraft.evaluation.text2layer import scores as text2layer_scores
from stagecraft.evaluation.text2layer import sets as text2layer_sets
from stagecraft.sticker_world.world.scene import make_scene


@pytest.fixture(scope="module")
def yardsticks():
    return Yardsticks.load()


def lines(part, features, overlaps):
    return [
        picture_line(text2layer_rows.NAMES[part], text2layer.TABLE, n, features=each, measures={"mask_iou": overlap})
        for n, (each, overlap) in enumerate(zip(features, overlaps, strict=True))
    ]


def test_targets_are_those_of_the_task():
    rng = np.random.default_rng(0)
    real, near, far = (rng.normal(size=(60, 4)) + shift for shift in (0.0, 0.5, 2.0))
    found = {
        "t2l_layers": lines("t2l_layers", near, np.linspace(0.88, 0.92, 60)),
        "t2l_stacked": lines("t2l_stacked", far, np.linspace(0.7, 0.8, 60)),
        "t2l_single": lines("t2l_single", near, [None] * 60),
    }
    measures = {each["name"]: each for each in text2layer.table_measures(found, real)}
    assert len(measures) == 6
    ratio = measures["table: shipped, FID against SD-AE-UNet (ft), at most"]
    assert (ratio["target"], ratio["verdict"]) == (0.75, MET) and ratio["low"] < ratio["value"] < ratio["high"] < 0.3
    fit = measures["table: shipped, mask IoU against the segmenter"]
    assert (fit["target"], fit["verdict"], fit["value"]) == (0.85, MET, pytest.approx(0.9))
    assert measures["table: SD-AE-UNet (ft), mask IoU against the segmenter"]["target"] is None
    few = text2layer.table_measures(found, None)  # too few pictures for distances
    assert [each["name"].split(", ")[1] for each in few] == ["mask IoU against the segmenter"] * 2


def test_a_ratio_of_distances_is_drawn_over_prompts():
    rng = np.random.default_rng(1)
    real, ours = rng.normal(size=(300, 6)), rng.normal(size=(300, 6)) + 1
    same = text2layer_scores.frechet_ratio(ours, ours, real)
    assert same.value == 1 and same.interval == (1, 1)
    twice = text2layer_scores.DrawnFrechet(real)
    assert twice.of(ours, np.full(300, 2)) == pytest.approx(twice.of(np.concatenate([ours, ours])), rel=1e-9)
    # Of the same distribution but for chance: draws alone would put the interval beside the value.
    apart = text2layer_scores.frechet_ratio(rng.normal(size=(300, 6)), ours, real)
    assert apart.interval[0] < apart.value < apart.interval[1] < 0.1


class Layers:
    """Paints a picture of each prompt out of its seed."""

    def __init__(self):
        self.asked = []

    def paint(self, prompts, seeds):
        self.asked += seeds
        return [self.one(seed) for seed in seeds]

    def one(self, seed):
        scene = make_scene(seed % 1000, 0, held_out=True, counts=sets.exactly(1))
        layers = text2layer_scores.TwoLayers(scene.image / 255, scene.image / 255, scene.labels() > 0)
        return text2layer_rows.Decoded(scene.image, layers)


def test_only_what_is_missing_is_painted(yardsticks, tmp_path, monkeypatch):
    painters = {part: Layers() for part in ("t2l_layers", "t2l_stacked")}
    monkeypatch.setattr(text2layer, "open_painter", painters.get)
    kept = []

    def run(number):
        records = PictureRecords(tmp_path / "t2l.jsonl", {"code": "1"})
        asked = text2layer.Asked([text2layer.TABLE], number)
        return text2layer.evaluate(text2layer.Run(yardsticks, asked, records, lambda name, _: kept.append(name)))

    whole = run(4)
    assert [row["method"] for row in whole["rows"]] == ["shipped", "SD-AE-UNet (ft)"]
    assert all(row["pictures"] == 4 and row["kid"] is None and "clip" in row["intervals"] for row in whole["rows"])
    assert {(row["against"], row["set"]) for row in whole["comparisons"]} == {("SD-AE-UNet (ft)", text2layer.TABLE)}
    asked = [prompt.seed for prompt in text2layer_sets.table_prompts(4, tuning=False)]
    assert painters["t2l_layers"].asked == painters["t2l_stacked"].asked == asked and len(kept) == 8
    file = tmp_path / "t2l.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3]) + lines[3][:20])  # stopped while the third picture was written
    assert run(4) == whole and file.read_bytes() == b"".join(lines)
    assert painters["t2l_layers"].asked == asked + asked[2:] and painters["t2l_stacked"].asked == asked * 2


def test_decoded_scenes_have_rows_with_intervals(yardsticks, monkeypatch):
    class Whole:
        def through(self, scenes):
            return [text2layer_rows.Decoded(np.zeros((256, 256, 3), np.uint8), scene) for scene in scenes]

    monkeypatch.setattr(text2layer, "open_codec", lambda name: Whole() if name == text2layer_rows.SHIPPED else None)
    run = text2layer.Run(
        yardsticks, text2layer.Asked([text2layer.AUTOENCODER], 2), PictureRecords(None, {}), lambda *_: None
    )
    found = text2layer.evaluate(run)
    (row,) = found["rows"]
    assert (row["method"], row["mask_iou"], row["PSNR of the background"]) == ("shipped", 1, 120)
    assert row["intervals"]["mask_iou"] == [1, 1] and row["box_iou"] is None
    assert [(each["value"], each["target"]) for each in found["measures"]] == [(120, 28)] * 3 + [(1, 0.95)]


def test_layers_are_measured_by_their_lines():
    def line(n, own, error):
        saved = {text2layer_layers.saved(suffix): 0.0 for suffix in text2layer_layers.SUFFIXES}
        measures = {
            text2layer_layers.OWN: own,
            text2layer_layers.ALL_OWN: own == 1,
            text2layer_layers.RECOMPOSED: error,
        }
        return picture_line(text2layer_layers.METHOD, text2layer_layers.SET, n, measures=measures | saved)

    found = text2layer_layers.layers_measures([line(0, 1.0, 0.0), line(1, 1.0, 0.1), line(2, 0.5, 0.0)])
    assert found[0]["value"] == pytest.approx(2 / 3, abs=1e-6) and found[0]["target"] == 0.7 and found[0]["low"] == 0
    assert found[1]["value"] == pytest.approx(2.5 / 3, abs=1e-6)
    assert [each["value"] for each in found[2:]] == [0.1, 0, 0]  # the largest of all pictures
