"""The numbers of `evaluate tcig`, on pictures whose fit is known."""

import numpy as np
import pytest
import torch
from stagecraft.commands.messages import SetupProblem
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.evaluation import cli
from stagecraft.evaluation.arguments import chosen_methods, parse
from stagecraft.evaluation.judging.scoring import Painted
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.pages import page_tables, plots
from stagecraft.evaluation.pages.tables import ROW_KEYS, measures_table, results_table, sweeps_table
from stagecraft.evaluation.sets.sets import TUNING_SET, load_set
from stagecraft.evaluation.tcig import evaluate as tcig
from stagecraft.evaluation.tcig import graphs, models
from stagecraft.sticker_world.checkpoint.probe import held_out_scenes
from stagecraft.sticker_world.readers.segmenter import PARTS, places_of
from stagecraft.sticker_world.world.concepts import CANVAS

ITEMS = tcig.masked(TUNING_SET, None)


@pytest.fixture(scope="module")
def yardsticks():
    return Yardsticks.load()


def judged(yardsticks, method, item, picture):
    # The same judge twice: what the specialists would say does not matter here.
    return tcig.judge(yardsticks, yardsticks.segmenter, method, TUNING_SET, item, picture, 2.0)


def test_only_layouts_with_masks_are_used():
    assert len(ITEMS) == 30 and all("masks" in item.tags for item in ITEMS)
    assert len(tcig.masked("objects_2", tcig.LAYOUTS)) == tcig.LAYOUTS
    assert {item.tags[1] for item in tcig.masked("objects_2", 5)} == {item.tags[1] for item in load_set("objects_2")}


def test_drawings_are_flat_and_in_place(yardsticks):
    item = ITEMS[0]
    drawing = graphs.flat_drawing(item)
    assert drawing.shape == (CANVAS, CANVAS, 3) and drawing.dtype == np.uint8
    masks = [placement.mask() >= 0.5 for placement in item.placements]
    assert len(np.unique(drawing.reshape(-1, 3), axis=0)) <= 1 + len(masks)
    assert len(np.unique(drawing[masks[-1]], axis=0)) == 1  # the nearest is whole
    outside = ~np.any(masks, axis=0)
    assert len(np.unique(drawing[outside], axis=0)) == 1
    real = item.perfect_picture().astype(float)
    assert np.abs(drawing[outside].mean(0) - real[outside].mean(0)).max() < 40  # about the background's colour


def test_rows_have_both_judges_and_measures_both_stages(yardsticks):
    found = []
    for item in ITEMS[:2]:
        perfect, empty = item.perfect_picture(), np.zeros((CANVAS, CANVAS, 3), np.uint8)
        for method, picture in {
            "tcig draft": perfect,
            "tcig": perfect,
            "drawing draft": empty,
            "drawing": perfect,
            "lrdiff": perfect,
        }.items():
            found.append(judged(yardsticks, method, item, picture))
    rows = tcig.rows_of(yardsticks, found, TUNING_SET)
    assert all(tuple(row) == ROW_KEYS for row in rows)
    assert [row["set"] for row in rows] == ["tcig tuning"] * 5 + ["tcig tuning, specialists judge"] * 5
    best = rows[0]["mask_iou"]
    assert best > 0.8 and rows[2]["mask_iou"] == 0 and rows[5]["clip"] is None
    measures = {each["name"]: each for each in tcig.measures(rows, found)}
    for judge in ("general", "specialists"):
        head = f"mask IoU per picture, {judge} judge: "
        assert measures[f"{head}tcig draft, mean"]["target"] == tcig.TARGET_IOU
        assert measures[f"{head}tcig draft, mean"]["value"] > 0.8 > 0 == measures[f"{head}drawing draft, mean"]["value"]
        assert 0 <= measures[f"{head}tcig draft, spread"]["value"] < 0.2
        lost = f"mask IoU that stage two loses, {judge} judge: "
        assert measures[f"{lost}tcig"] == {
            "name": f"{lost}tcig",
            "value": 0.0,
            "unit": "",
            "target": tcig.TARGET_LOSS,
        }
        assert measures[f"{lost}drawing"]["value"] < -0.8
    assert measures["clip: tcig against lrdiff"]["value"] == 0.0
    assert "kid: tcig against lrdiff" not in measures  # of so few pictures there is none
    assert results_table(rows) and measures_table(list(measures.values()))


def test_a_specialist_is_measured_by_its_own_classes():
    """A judge that answers with the truth has an IoU of 1, whatever the order of its classes; an empty one has less."""
    scenes = [scene for scene in held_out_scenes(12) if places_of([scene.caption])[0] >= 0][:6]
    seen = PARTS["segmenter_things"]
    classes = (*seen.classes[1:], seen.classes[0])
    labels = seen.relabel(np.stack([scene.labels() for scene in scenes]), places_of([s.caption for s in scenes]))
    truth = torch.from_numpy(np.array([classes.index(name) for name in seen.classes])[labels])

    class Answer(Segmenter):
        def labels(self, images):
            return truth

    class Nothing(Segmenter):
        def labels(self, images):
            return torch.full(images.shape[:3], classes.index("background"))

    assert models.specialist_iou("segmenter_things", Answer(None, classes), scenes) == 1
    assert models.specialist_iou("segmenter_things", Nothing(None, classes), scenes) < 0.1


def test_without_trained_models_it_says_what_to_train(monkeypatch, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "config.json").write_text("{}")
    folders = {"segmenter_animals": tmp_path / "there", "segmenter_things": tmp_path / "gone"}
    monkeypatch.setattr(tcig, "VQGAN_FOLDER", tmp_path / "no_vqgan")
    monkeypatch.setattr(tcig, "SPECIALIST_FOLDERS", folders)
    with pytest.raises(SetupProblem, match="no_vqgan, .*gone.* train vqgan segmenter_things tcig_export"):
        tcig.require_models()


def test_spread_is_that_of_pictures():
    class Known(tcig.Judged):
        def overlap(self, judge):
            return self.specialists

    painted = [Painted("tcig draft", TUNING_SET, ITEMS[0], None, None, []) for _ in range(2)]
    found = tcig.measures([], [Known(each, value) for each, value in zip(painted, (0.5, 0.9), strict=True)])
    values = {each["name"].split(": ")[1]: each["value"] for each in found[:2]}
    assert values == {"tcig draft, mean": pytest.approx(0.7), "tcig draft, spread": pytest.approx(0.2)}


def test_pictures_beside_layered_rendering_weigh_the_same():
    rows = [
        {"method": "tcig", "set": "a", "pictures": 1, "clip": 0.9, "kid": None},
        {"method": "tcig", "set": "b", "pictures": 3, "clip": 0.5, "kid": 0.022},
        {"method": "lrdiff", "set": "b", "pictures": 3, "clip": 0.6, "kid": 0.02},
    ]
    values = {each["name"]: (each["value"], each["target"]) for each in tcig.measures(rows, [])}
    assert values == {
        "clip: tcig against lrdiff": (0.0, -tcig.TARGET_WORSE),
        "kid: tcig against lrdiff": (pytest.approx(0.1), tcig.TARGET_WORSE),
    }
    rows[1]["kid"], rows[2]["kid"] = -0.01, -0.02  # small sets give such, and the higher one is the worse
    assert tcig.measures(rows, [])[-1]["value"] == pytest.approx(0.5)


def test_results_are_committed_only_of_whole_runs(tmp_path):
    rows = [{"sweep": "strength", "value": v, "method": "tcig"} | dict.fromkeys(tcig.SCORES, 0.5) for v in (0.0, 0.5)]
    results = {tcig.TCIG_NAME: {"rows": [], "measures": []}, tcig.SWEEPS_FILE: {"rows": rows}}
    whole = parse(["tcig"])
    assert [path.name for path, _ in cli.result_files({tcig.TCIG_NAME: results["tcig"]}, whole)] == ["tcig.json"]
    tuning = parse(["tcig", "--tuning"])
    assert [path.name for path, _ in cli.result_files(results, tuning)] == ["tcig_sweeps.json"]
    assert cli.result_files(results, parse(["tcig", "--tuning", "--layouts", "1"])) == []
    json = parse(["tcig", "--json", str(tmp_path / "x.json")])
    ((_, content),) = cli.result_files(results, json)
    assert content == {"rows": []}
    assert "strength" in sweeps_table(rows) and plots.PLOTS[tcig.SWEEPS_FILE].draw(rows).axes
    assert {"tcig", "tcig_measures", "tcig_sweeps"} <= set(page_tables.TABLES)
    assert chosen_methods(whole) == ["tcig"] and "tcig" not in chosen_methods(parse([]))
