"""Scenes taken apart by `evaluate split`: the scenes, and what is measured against exact layers."""

import json

import numpy as np
import pytest
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.evaluation.graphs.told import TOLD
from stagecraft.evaluation.records.lines import picture_line
from stagecraft.evaluation.records.pictures import PictureRecords
from stagecraft.evaluation.splitting import evaluate as splitting
from stagecraft.evaluation.splitting import measures, peeling
from stagecraft.evaluation.splitting.measures import FoundLayer, TakenApart
from stagecraft.sticker_world.shipped import SEGMENTER_FOLDER
from stagecraft.sticker_world.world.concepts import is_held_out

SCENES = splitting.split_scenes(6, tuning=False)
PAIR = SCENES[1].scene  # of two things, one of which hides some of the other


def true_layers(scene) -> TakenApart:
    return TakenApart(scene.backdrop / 255, tuple(map(measures.true_layer, scene.objects)))


def test_scenes_are_held_out_and_things_hide_each_other():
    assert [each.objects for each in SCENES] == [1, 2, 3, 1, 2, 3] == [len(each.scene.objects) for each in SCENES]
    for each in SCENES:
        things = each.scene.objects
        assert is_held_out(tuple(thing.concept for thing in things), each.scene.background)
        hidden = [1 - thing.visible.sum() / thing.mask.sum() for thing in things]
        assert len(things) == 1 or max(hidden) >= splitting.LEAST_HIDDEN - 0.01
    whole, tuning = splitting.split_scenes(None, tuning=False), splitting.split_scenes(None, tuning=True)
    assert len(whole) == splitting.SCENES == len({each.seed for each in whole})
    assert not {each.seed for each in whole} & {each.seed for each in tuning}


@pytest.mark.parametrize("index", range(3))
def test_the_true_layers_are_perfect(index):
    scene = SCENES[index].scene
    found = measures.layer_measures(true_layers(scene), scene)
    assert found.pop(measures.RECOMPOSED) > 45  # layers are kept in 8 bits
    assert found.pop(measures.ALPHA_IOU) == 1 and found.pop(measures.ALPHA_ERROR) == 0
    assert found.pop(measures.HIDDEN) == (120 if index else None)
    assert set(found.values()) == {120}


def test_each_measure_sees_its_own_fault():
    true, names = true_layers(PAIR), (measures.VISIBLE, measures.HIDDEN, measures.BACKGROUND)
    far, near = true.layers

    def measured(background=true.background, layer=far):
        found = measures.layer_measures(TakenApart(background, (layer, near)), PAIR)
        return [found[name] < 120 for name in names], found

    inverted = FoundLayer(1 - far.colour, far.alpha)
    hidden = (far.alpha >= 0.5) & (PAIR.objects[0].visible < 0.5)
    patched = FoundLayer(np.where(hidden[..., None], 1 - far.colour, far.colour), far.alpha)
    assert measured(layer=inverted)[0] == [True, True, False]
    assert measured(layer=patched)[0] == [False, True, False]
    assert measured(background=1 - true.background)[0] == [False, False, True]
    cut = FoundLayer(far.colour, np.where(hidden, 0, far.alpha))
    flags, found = measured(layer=cut)
    assert flags == [False, True, False] and found[measures.ALPHA_IOU] < 0.99 and found[measures.ALPHA_ERROR] > 0.01
    nothing = FoundLayer(np.zeros(far.colour.shape), np.zeros(far.alpha.shape))
    _, found = measured(layer=nothing)
    assert found[measures.ALPHA_IOU] == 0.5  # the mean over both things
    assert found[measures.ALPHA_ERROR] == pytest.approx(far.alpha[far.alpha > 0].mean() / 2)


def test_things_cut_out_lie_over_the_picture_itself():
    found = peeling.cut_out(Segmenter.load(SEGMENTER_FOLDER), PAIR)
    said = measures.layer_measures(found, PAIR)
    assert said[measures.RECOMPOSED] == 120 and said[measures.BACKGROUND] < 25
    assert 0.6 < said[measures.ALPHA_IOU] < 1 and said[measures.VISIBLE] > said[measures.HIDDEN]
    assert np.array_equal(np.clip(255 * found.composite(), 0, 255).round(), PAIR.image)


def test_a_sheet_shows_what_was_found_above_what_is_true():
    sheet = splitting.sheet(true_layers(PAIR), PAIR)
    assert sheet.shape == (512, 4 * 256, 3)
    assert np.abs(sheet[:256].astype(int) - sheet[256:]).max() <= 2 and np.array_equal(sheet[256:, :256], PAIR.image)


def test_the_graph_hears_names_and_background_only_where_its_row_says_so():
    graph = peeling.graph("a.png", "b.png", "a panda", "", 5)
    texts = [node["inputs"]["text"] for node in graph.values() if node["class_type"] == "CLIPTextEncode"]
    assert texts == ["", "a panda"]
    assert "white snow" in json.dumps(peeling.graph("a.png", "b.png", "a panda", "white snow", 5))
    assert set(splitting.METHODS) <= set(TOLD)


def test_results_follow_from_the_records_alone():
    records = PictureRecords(None, {})
    for number in range(3):
        for name, error in (("split", 0.1), ("cut_out", 0.3)):
            measured = {measures.ALPHA_ERROR: error, measures.HIDDEN: number or None}
            records.add([picture_line(name, splitting.SET, number, evaluations=40, measures=measured)])
    found = splitting.results(records)
    assert [(row["method"], row[measures.HIDDEN]) for row in found["rows"]] == [("split", 1.5), ("cut_out", 1.5)]
    said = {row["score"]: row["difference"] for row in found["comparisons"] if row["set"] == "all sets"}
    assert said == {measures.ALPHA_ERROR: pytest.approx(-0.2), measures.HIDDEN: 0}
    assert found["rows"][0]["evaluations"] == 40
