"""The edits of `evaluate editing`: their sets, their graphs, and what is measured of them."""

import json

import numpy as np
import pytest
from stagecraft.commands.environment import CLONE
from stagecraft.evaluation.editing import evaluate as editing
from stagecraft.evaluation.editing import graphs, measures
from stagecraft.evaluation.graphs.builder import CFG, SAMPLER, SCHEDULER, STEPS
from stagecraft.evaluation.graphs.told import COLOURS, TOLD
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.records.lines import picture_line
from stagecraft.evaluation.records.pictures import PictureRecords
from stagecraft.evaluation.sets import edits, make_edits
from stagecraft.evaluation.sets.edits import EDGE, EDITS, EDITS_TUNING, INSERT, KINDS, MOVE, REMOVE, REPLACE
from stagecraft.evaluation.sets.make_layouts import mean_colour
from stagecraft.sticker_world.world.concepts import CONCEPT_NAMES, is_held_out

FILES = graphs.Files("given.png", "old.png", "anew.png")
FEW = {kind: edits.load_edits(kind)[::13] for kind in KINDS}


@pytest.fixture(scope="module")
def yardsticks():
    return Yardsticks.load()


def true_labels(edit: edits.PictureEdit, class_of) -> np.ndarray:
    """What a judge that is never wrong says of the exact picture."""
    labels = np.zeros(edit.asked.shape, int)
    for index, layer in enumerate(edits.layers_of(edit.scene)):
        if index != edit.thing:
            labels[edits.shape_of(layer)] = class_of(edit.scene.objects[index].concept)
    if edit.new is not None:
        labels[edit.new] = class_of(edit.wanted)
    return labels


def class_of(concept: str) -> int:
    return 1 + CONCEPT_NAMES.index(concept)


def test_there_are_as_many_of_each_kind_and_no_scene_or_noise_twice():
    found = [edit for name in (EDITS, EDITS_TUNING) for kind in KINDS for edit in edits.load_edits(kind, name)]
    assert len(found) == 4 * (make_edits.WANTED + make_edits.TUNING_WANTED) == 4 * 46
    assert len({edit.seed for edit in found}) == len({(edit.series, edit.index) for edit in found}) == len(found)
    for kind in KINDS:
        names = [name for edit in edits.load_edits(kind) for name in (edit.gone, edit.wanted) if name]
        assert len(set(names)) >= 23, kind


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_set_is_what_the_script_makes(kind):
    (row,) = json.loads(json.dumps(make_edits.make_edits(kind, 1, make_edits.SERIES)))
    assert row == json.loads((edits.FOLDER / f"{EDITS}.json").read_text())[kind][0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_suits_its_scene(kind):
    for edit in FEW[kind]:
        layers = edits.layers_of(edit.scene)
        assert len(layers) == edit.objects
        assert is_held_out(tuple(thing.concept for thing in edit.scene.objects), edit.scene.background)
        assert np.abs(edits.composed(edit.scene.backdrop, layers).astype(int) - edit.scene.image).max() <= 2
        assert edit.gone == ("" if edit.thing is None else edit.scene.objects[edit.thing].concept)
        others = [layer[..., 3] > 0 for index, layer in enumerate(layers) if index != edit.thing]
        taken = np.any(others, axis=0) if others else np.zeros(edit.asked.shape, bool)
        new = {INSERT: edit.asked, MOVE: edit.new}.get(kind)
        assert new is None or not (new & taken).any()
        assert edit.old is None or not (edit.old & taken).any()
        if kind == MOVE:
            assert not (edits.widened(edit.old) & edit.new).any()
            assert edit.new.sum() == edit.old.sum() and all(round(each, 2) == each for each in edit.shift)
        if kind == REPLACE:
            assert edit.wanted not in [thing.concept for thing in edit.scene.objects]
        assert (edit.near >= edit.asked).all() and 0.05 < (~edit.near).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_picture_differs_where_it_was_asked_and_has_what_was_asked(kind):
    for edit in FEW[kind]:
        exact, given = edit.exact_picture(), edit.scene.image
        assert np.array_equal(exact[~edit.near], given[~edit.near])
        assert measures.changed(exact, given, edit.asked) > 0.05
        labels = true_labels(edit, class_of)
        assert not edit.wanted or measures.is_there(labels, class_of(edit.wanted), edit)
        assert not edit.gone or measures.is_gone(labels, class_of(edit.gone), edit)
        assert (edit.wanted and edit.wanted in edit.prompt) or kind == REMOVE
        if kind in (REPLACE, REMOVE):
            assert edit.gone not in edit.prompt.split()
            assert kind == REPLACE or np.abs(exact.astype(int) - edit.scene.backdrop)[edit.old].max() <= 2


def test_a_thing_that_stays_is_neither_gone_nor_where_it_should_be():
    (edit, *_) = FEW[MOVE]
    labels = np.where(edit.old, class_of(edit.gone), 0)
    assert not measures.is_gone(labels, class_of(edit.gone), edit)
    assert not measures.is_there(labels, class_of(edit.gone), edit)
    rows = np.flatnonzero(edit.old.any(1))
    labels[: rows[0] + len(rows) // 5] = 0  # four fifths of its height are left
    assert not measures.is_gone(labels, class_of(edit.gone), edit)
    labels[: rows[-1]] = 0  # one row is left
    assert measures.is_gone(labels, class_of(edit.gone), edit)
    both = np.where(edit.old | edit.new, class_of(edit.gone), 0)
    assert measures.is_there(both, class_of(edit.gone), edit)
    assert not measures.is_gone(both, class_of(edit.gone), edit)


def test_the_judge_says_of_the_exact_and_of_the_given_picture_what_is_true(yardsticks):
    for kind in KINDS:
        edit = FEW[kind][0]
        done = measures.edit_line(yardsticks, "exact", edit, edit.exact_picture(), seconds=1.0, evaluations=3)
        left = measures.edit_line(yardsticks, "given", edit, edit.scene.image)
        assert done.key == ("exact", measures.set_of(kind), edit.seed, 0) and (done.seconds, done.evaluations) == (1, 3)
        assert done.measures[measures.OUTSIDE] == left.measures[measures.OUTSIDE] == 120
        assert left.measures[measures.CHANGE] == 0 < done.measures[measures.CHANGE]
        assert (done.present, left.present) == ((True, False) if edit.wanted else (None, None))
        assert done.clip > left.clip or kind == MOVE
        if edit.gone:
            assert (done.measures[measures.GONE], left.measures[measures.GONE]) == (1, 0)
        if kind in (REMOVE, MOVE):
            assert done.measures[measures.INSIDE] == 120 and left.measures[measures.INSIDE] < 30
        assert (measures.INSIDE in done.measures) == (kind in (REMOVE, MOVE))


def test_what_is_changed_outside_is_seen_outside_alone(yardsticks):
    edit = FEW[REMOVE][0]
    picture = edit.exact_picture()
    picture[~edit.near] = 255 - picture[~edit.near]
    line = measures.edit_line(yardsticks, "m", edit, picture)
    assert line.measures[measures.OUTSIDE] < 12 and line.measures[measures.INSIDE] == 120


def nodes_of(graph, kind):
    return [node["inputs"] for node in graph.values() if node["class_type"] == kind]


@pytest.mark.parametrize("kind", KINDS)
def test_methods_have_the_run_in_common_and_hear_what_their_row_says(kind):
    edit = FEW[kind][0]
    assert graphs.methods_of(kind) == [
        name for name in graphs.METHODS if name != "edit_colours" or kind in (INSERT, REPLACE)
    ]
    for name in graphs.methods_of(kind):
        graph = graphs.METHODS[name](edit, FILES)
        links = [value[0] for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)]
        assert set(links) | {"pictures"} == set(graph), "every node is there and none is left over"
        text = json.dumps(graph)
        assert (bool(edit.wanted) and mean_colour(edit.wanted) in text) == (COLOURS in TOLD[name].hears)
        if name != graphs.VAE:
            (run,) = nodes_of(graph, "KSampler")
            common = {"steps": STEPS, "cfg": CFG, "sampler_name": SAMPLER, "scheduler": SCHEDULER}
            assert common.items() <= run.items() and run["denoise"] == 1 and run["seed"] == edit.seed
            assert edit.prompt in [each["text"] for each in nodes_of(graph, "CLIPTextEncode")]
    (grown,) = nodes_of(graphs.inpainted(edit, FILES), "GrowMask")
    assert grown["expand"] == EDGE


def test_settings_are_those_of_the_shipped_workflow():
    workflow = json.loads((CLONE / "workflows" / "lrdiff_edit.json").read_text())
    (given,) = (node["widgets_values"] for node in workflow["nodes"] if node["type"] == "StageEditPicture")
    (shape,) = (node["widgets_values"][3:5] for node in workflow["nodes"] if node["type"] == "StageEditReplace")
    assert given[1:] == list(graphs.SETTINGS.values())
    (replaced,) = nodes_of(graphs.edited(FEW[REPLACE][0], FILES), "StageEditReplace")
    assert [replaced["shape"], replaced["keep"]] == shape


def test_a_moved_thing_is_pasted_at_its_new_place_before_the_old_one_is_inpainted():
    edit = FEW[MOVE][0]
    graph = graphs.inpainted(edit, FILES)
    (cut,), (pasted,) = nodes_of(graph, "ImageCrop"), nodes_of(graph, "ImageCompositeMasked")
    rows, columns = np.flatnonzero(edit.new.any(1)), np.flatnonzero(edit.new.any(0))
    assert (pasted["x"], pasted["y"]) == (columns[0], rows[0])
    assert (cut["width"], cut["height"]) == (len(columns), len(rows))
    assert not nodes_of(graphs.inpainted(FEW[REMOVE][0], FILES), "ImageCrop")


def test_results_follow_from_the_records_alone():
    records = PictureRecords(None, {"commit": "a"})
    for number in range(3):
        for name, decibels in (("edit", 30.0), ("inpaint", 20.0 + number)):
            measured = {measures.OUTSIDE: decibels, measures.GONE: 1.0}
            given = {"measures": measured, "evaluations": 40 + number, "objects": 1}
            records.add([picture_line(name, "edits_remove", number, **given)])
    found = editing.results(records)
    assert [(row["method"], row[measures.OUTSIDE]) for row in found["rows"]] == [("edit", 30), ("inpaint", 21)]
    (difference,) = (
        row for row in found["comparisons"] if row["score"] == measures.OUTSIDE and row["set"] == "edits_remove"
    )
    assert (difference["difference"], difference["low"], difference["high"]) == (9, 8, 10)
    assert difference["verdict"] == "better"
    assert [row["evaluations"] for row in found["rows"]] == [41, 41]
