"""The numbers of `evaluate tcig`, on pictures whose fit is known."""

import numpy as np
import pytest
import torch
from stagecraft.commands.messages import SetupProblem
from stagecraft.core.layout.region import colour_to_rgb
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.core.tcig.starts import flat_colours
from stagecraft.evaluation import cli
from stagecraft.evaluation.arguments import chosen_methods, parse
from stagecraft.evaluation.graphs.colours import NONE, coloured
from stagecraft.evaluation.graphs.told import TOLD
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.pages import page_tables, plots
from stagecraft.evaluation.pages.tables import (
    ROW_KEYS,
    comparisons_table,
    measures_table,
    results_table,
    sweeps_table,
)
from stagecraft.evaluation.records.lines import RegionLine, picture_line
from stagecraft.evaluation.records.pictures import PictureRecords
from stagecraft.evaluation.sets.sets import TUNING_SET, load_set
from stagecraft.evaluation.summary.verdicts import MET, MISSED, OPEN
from stagecraft.evaluation.sweeps import SCORES
from stagecraft.evaluation.tcig import evaluate as tcig
from stagecraft.evaluation.tcig import graphs, models
from stagecraft.evaluation.tcig.sweep import SWEEPS_FILE
from stagecraft.sticker_world.checkpoint.probe import held_out_scenes
from stagecraft.sticker_world.readers.segmenter import PARTS, places_of
from stagecraft.sticker_world.world.concepts import CANVAS

ITEMS = tcig.masked(TUNING_SET, None)


class Shelf:
    """Takes pictures like a painter."""

    def upload(self, picture):
        return f"{picture.mean()}.png"


@pytest.fixture(scope="module")
def yardsticks():
    return Yardsticks.load()


def lines_of(yardsticks, method, item, picture, number=0):
    # The same judge twice: what the specialists would say does not matter here.
    return tcig.lines_of((yardsticks, yardsticks.segmenter), method, TUNING_SET, item, number, picture, 2.0)


def test_only_layouts_with_masks_are_used(monkeypatch):
    assert len(ITEMS) == 30 and all("masks" in item.tags for item in ITEMS)
    found = tcig.masked("objects_2", 5)
    assert {item.tags[1] for item in found} == {item.tags[1] for item in load_set("objects_2")}
    monkeypatch.setattr(tcig, "masked", lambda name, number: [name] * (number or 0))
    shares = [len(items) for items in tcig.items_of(None, tuning=False).values()]
    assert shares == [14, 13, 13] and sum(shares) == tcig.LAYOUTS == 40
    assert [len(items) for items in tcig.items_of(2, tuning=False).values()] == [2, 2, 2]
    assert list(tcig.items_of(None, tuning=True)) == [TUNING_SET]


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


def test_the_start_is_that_of_a_draft():
    """What Start draws on the empty place is what TCIG Draft begins with, but for 8 bits."""
    item = ITEMS[-1]
    ground = np.random.default_rng(0).integers(0, 256, (CANVAS, CANVAS, 3)).astype(np.uint8)
    outside = item.layout.visible_masks(CANVAS, CANVAS)[0].numpy()[..., None]
    drawn = graphs.start_colours(item) * (1 - outside) + ground * outside
    behind = torch.from_numpy(ground / 255).float().movedim(-1, 0)[None]
    (begun,) = flat_colours(coloured(item.layout, NONE), CANVAS, CANVAS, behind)
    sharp = (outside == 0) | (outside == 1)
    assert (np.abs(drawn / 255 - begun.movedim(0, -1).numpy()) * sharp).max() < 1 / 255
    true = {tuple(np.round(255 * np.array(colour_to_rgb(region.colour))).astype(int)) for region in item.layout.regions}
    assert not true & {tuple(pixel) for pixel in graphs.start_colours(item).reshape(-1, 3)}  # it is told no colours


def test_without_a_segmenter_none_is_asked_anywhere():
    for name in (tcig.START, tcig.START_CLIP):
        graph = tcig.METHODS[name].graph(Shelf(), ITEMS[0], 7)
        kinds = {node["class_type"]: node["inputs"] for node in graph.values()}
        assert kinds["StageTCIGRefine"]["denoise_from"] == "by hand"
        assert kinds["StageTCIGRefine"]["denoise"] == graphs.UNGUIDED_DENOISE and kinds["StageTCIGRefine"]["hold"] == 0
        assert ("StageTCIGDraft" in kinds) == (name == tcig.START_CLIP)
    assert kinds["StageTCIGDraft"]["segmenter_weights"] == "0.0"
    links = {value[0] for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)}
    shown = {key for key, node in graph.items() if node["class_type"] == "PreviewImage"}
    assert links | shown == set(graph)


def test_nothing_judges_what_it_guided(yardsticks, monkeypatch):
    item = ITEMS[0]
    for own in (True, False):
        monkeypatch.setitem(tcig.JUDGES, "CLIP", tcig.CLIP_FOLDER if own else "elsewhere")
        for method in tcig.methods_of():
            found = lines_of(yardsticks, method, item, item.perfect_picture())
            guided = method.split()[0]
            drawn = guided in (tcig.START, tcig.DRAWING, tcig.LRDIFF, tcig.PERFECT)
            assert (found[0].clip is None) == (own and not drawn), method
            assert [line.set_name for line in found][1:] == (
                [] if guided == "tcig_two" else ["tcig tuning, specialists judge"]
            )
    assert set(tcig.METHODS) <= set(TOLD)


def test_rows_have_both_judges_and_measures_both_stages(yardsticks):
    records = PictureRecords(None, {"code": "1"})
    for item in ITEMS[:2]:
        perfect, empty = item.perfect_picture(), np.zeros((CANVAS, CANVAS, 3), np.uint8)
        for method, picture in {
            "tcig draft": perfect,
            "tcig": perfect,
            "drawing draft": empty,
            "drawing": perfect,
            "lrdiff": perfect,
        }.items():
            records.add(lines_of(yardsticks, method, item, picture))
    found = tcig.results_of(records, (TUNING_SET,))
    rows = found["rows"]
    assert all(tuple(row) == (*ROW_KEYS, "evaluations", "intervals") for row in rows)
    assert [row["set"] for row in rows] == ["tcig tuning"] * 5 + ["tcig tuning, specialists judge"] * 5
    best = rows[0]["mask_iou"]
    assert best > 0.8 and rows[2]["mask_iou"] == 0 and rows[5]["clip"] is rows[0]["kid"] is None
    assert rows[0]["intervals"]["mask_iou"][0] <= best <= rows[0]["intervals"]["mask_iou"][1]
    compared = {(row["method"], row["against"], row["score"]): row["difference"] for row in found["comparisons"]}
    assert compared["tcig", "drawing", "mask_iou"] == 0 and compared["drawing", "drawing draft", "mask_iou"] > 0.8
    measures = {each["name"]: each for each in tcig.measures(records, (TUNING_SET,))}
    for judge in ("general", "specialists"):
        head = f"mask IoU per picture, {judge} judge: "
        assert measures[f"{head}tcig draft, mean"]["target"] == tcig.TARGET_IOU
        assert measures[f"{head}tcig draft, mean"]["verdict"] == MET
        assert measures[f"{head}tcig draft, mean"]["value"] > 0.8 > 0 == measures[f"{head}drawing draft, mean"]["value"]
        assert 0 <= measures[f"{head}tcig draft, spread"]["value"] < 0.2
        lost = f"mask IoU that stage two loses, {judge} judge: "
        assert (measures[f"{lost}tcig"]["value"], measures[f"{lost}tcig"]["target"]) == (0, tcig.TARGET_LOSS)
        assert measures[f"{lost}drawing"]["value"] < -0.8 and measures[f"{lost}drawing"]["verdict"] is None
    assert results_table(rows) and measures_table(list(measures.values())) and comparisons_table(found["comparisons"])


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


def line(method, item, overlap, clip=None, set_name="tcig objects_1"):
    region = RegionLine("dog", (0, 0, 1, 1), 0.5, 0.5, overlap, 0.0, True)
    return picture_line(method, set_name, item, regions=(region,), clip=clip)


def kept(*lines):
    records = PictureRecords(None, {})
    records.add(lines)
    return {each["name"]: each for each in tcig.measures(records, ("objects_1", "objects_2"))}


def test_spread_is_that_of_pictures():
    found = kept(line("tcig draft", 0, 0.5), line("tcig draft", 1, 0.9))
    head = "mask IoU per picture, general judge: tcig draft"
    values = (found[f"{head}, mean"]["value"], found[f"{head}, spread"]["value"])
    assert values == pytest.approx((0.7, 0.2)) and found[f"{head}, mean"]["low"] == 0.5


@pytest.mark.parametrize(("loss", "said"), [(0.01, MET), (0.05, OPEN), (0.2, MISSED)])
def test_what_stage_two_loses_is_paired(loss, said):
    """Layouts differ far more than what stage two does to them, which is what the interval is of."""
    lines = [
        each
        for n in range(20)
        for each in (line("tcig draft", n, 0.3 + 0.03 * n), line("tcig", n, 0.3 + 0.03 * n - loss + 0.01 * (-1) ** n))
    ]
    lost = kept(*lines)["mask IoU that stage two loses, general judge: tcig"]
    assert lost["value"] == pytest.approx(loss) and lost["verdict"] == said and lost["high"] - lost["low"] < 0.01


def test_pictures_beside_layered_rendering_weigh_the_same():
    found = kept(
        line("tcig", 0, 0.5, 0.9),
        line("lrdiff", 0, 0.5, 0.9),
        *(
            line(name, n, 0.5, clip, "tcig objects_2")
            for n in range(3)
            for name, clip in (("tcig", 0.5), ("lrdiff", 0.6))
        ),
    )
    words = found["clip: tcig against lrdiff"]
    assert (words["value"], words["target"]) == (pytest.approx(2.4 / 2.7 - 1, abs=1e-6), -tcig.TARGET_WORSE)
    # Where CLIP guided the drafts, it has no say.
    assert "clip: tcig against lrdiff" not in kept(line("tcig", 0, 0.5), line("lrdiff", 0, 0.5, 0.9))


def test_results_are_committed_only_of_whole_runs(tmp_path):
    rows = [{"sweep": "denoise", "value": v, "method": "tcig"} | dict.fromkeys(SCORES, 0.5) for v in (0.0, 0.5)]
    results = {tcig.TCIG_NAME: {"rows": [], "measures": []}, SWEEPS_FILE: {"rows": rows}}
    whole = parse(["tcig"])
    assert [path.name for path, _ in cli.result_files({tcig.TCIG_NAME: results["tcig"]}, whole)] == ["tcig.json"]
    tuning = parse(["tcig", "--tuning"])
    assert [path.name for path, _ in cli.result_files(results, tuning)] == ["tcig_sweeps.json"]
    assert cli.result_files(results, parse(["tcig", "--tuning", "--layouts", "1"])) == []
    json = parse(["tcig", "--json", str(tmp_path / "x.json")])
    ((_, content),) = cli.result_files(results, json)
    assert content == {"rows": []}
    assert "denoise" in sweeps_table(rows) and plots.PLOTS[SWEEPS_FILE].draw(rows).axes
    assert {"tcig", "tcig_measures", "tcig_sweeps"} <= set(page_tables.TABLES)
    assert chosen_methods(whole) == ["tcig"] and "tcig" not in chosen_methods(parse([]))
