"""Things behind others: the set, the maps of one and of two, and the judge of what must be there."""

import json

import numpy as np
import pytest
from stagecraft.core.compose_and_conquer.depth_pair import GROUND
from stagecraft.evaluation.compose_and_conquer import hidden as cnc_hidden
from stagecraft.evaluation.compose_and_conquer.scores import judge_hidden
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.records.lines import picture_line
from stagecraft.evaluation.records.pictures import PictureRecords
from stagecraft.evaluation.sets import hidden_pairs, make_pairs, sets
from stagecraft.evaluation.sets.hidden_pairs import ASIDE, BEFORE, PARTLY, REMOVED, WHOLLY
from stagecraft.evaluation.summary.rows import summary_rows
from stagecraft.sticker_world.world.concepts import CANVAS, is_held_out

SIZES = {hidden_pairs.HIDDEN: (40, make_pairs.HIDDEN_SEED), hidden_pairs.HIDDEN_TUNING: (8, 7_026)}


@pytest.mark.parametrize("name", list(SIZES))
def test_half_are_hidden_partly_and_half_wholly(name):
    found = hidden_pairs.load_hidden(name)
    assert len(found) == SIZES[name][0]
    for index, pair in enumerate(found):
        assert is_held_out(pair.concepts, pair.background)
        share = pair.hidden.sum() / pair.shapes[0].sum()
        assert pair.kind == (WHOLLY if index % 2 else PARTLY)
        assert share == 1 if index % 2 else 0.3 <= share <= 0.7
        behind, moved = (thing.mask() >= 0.5 for thing in pair.things(ASIDE))
        assert make_pairs.is_apart(pair.things(ASIDE)) and not (behind & moved).any()
        assert 0.3 <= pair.planes[0] < pair.planes[1] <= 1
        assert all(concept in pair.prompt(ASIDE) for concept in pair.concepts)
        assert pair.concepts[1] not in pair.prompt(REMOVED).replace(pair.background, "")
    assert len({pair.seed for pair in found}) == len(found)


def test_the_committed_sets_are_what_the_script_makes():
    for name, (_, seed) in SIZES.items():
        rows = json.loads((sets.FOLDER / f"{name}.json").read_text())
        assert json.loads(json.dumps(make_pairs.make_hidden(2, seed))) == rows[:2]


@pytest.mark.parametrize("pair", hidden_pairs.load_hidden()[:4], ids=lambda pair: "_".join(pair.concepts))
def test_two_maps_say_what_is_hidden_and_one_does_not(pair):
    far, near = pair.planes
    foreground, background = pair.two_maps(BEFORE)
    assert np.array_equal(background == 1, pair.shapes[0])  # the hidden part too
    moved, same = pair.two_maps(ASIDE)
    assert np.array_equal(same, background) and moved.sum() == foreground.sum()
    assert not (moved > 0)[pair.shapes[0]].any()
    nothing, same = pair.two_maps(REMOVED)
    assert nothing is None and np.array_equal(same, background)

    first, aside, removed = (pair.one_map(where) for where in (BEFORE, ASIDE, REMOVED))
    assert np.array_equal(first == 1, pair.shapes[1])
    assert np.array_equal(aside == 1, moved > 0)  # the foreground's pixels, where it stands now
    elsewhere = ~pair.shapes[1] & ~(moved > 0)
    np.testing.assert_allclose(aside[elsewhere], first[elsewhere], atol=1e-6)  # what was seen stays
    if pair.kind == WHOLLY:  # all that is left is ground: nothing says that a thing was there
        slope = np.linspace(0, GROUND / near, CANVAS)[:, None] * np.ones((1, CANVAS))
        assert np.abs(aside - slope)[pair.hidden].max() < 0.05 < far / near
        assert np.abs(removed - slope * near / GROUND)[pair.hidden].max() < 0.2
    else:  # a part was seen, and the depth around the hole goes on into it
        assert aside[pair.hidden].mean() > GROUND * 0.5
        assert removed.max() == 1


def test_what_was_hidden_has_to_be_the_thing_in_its_place():
    shape, hidden = np.zeros((4, 12), bool), np.zeros((4, 12), bool)
    shape[:, :4], hidden[:, :2] = True, True
    labels = np.where(shape, 3, 0)

    def judged(labels):
        score = judge_hidden(labels, shape, hidden, 3)
        return score.present, score.shown, score.something, score.mask_iou

    assert judged(labels) == (True, 1.0, 1.0, 1.0)
    assert judged(np.where(shape, 5, 0)) == (False, 0.0, 1.0, 0.0)  # something else has its shape
    # what was seen is there, and a hole where the foreground stood
    assert judged(np.where(hidden, 0, labels)) == (False, 0.0, 0.0, 0.5)
    # a thing so large that it covers its place is not in it
    assert judged(np.full((4, 12), 3)) == (False, pytest.approx(8 / 40), 1.0, pytest.approx(1 / 3))


def test_perfect_pictures_hide_and_show():
    records = PictureRecords(None, {})
    kept = []
    for pair in hidden_pairs.load_hidden()[:4]:
        cnc_hidden.paint_hidden(
            None, Yardsticks.load(), records, {"perfect": None}, pair, lambda name, _: kept.append(name)
        )
    assert len(records) == len(kept) == 12 and all(line.clip is not None for line in records)
    rows = {row["set"]: row for row in summary_rows(records, tuple(cnc_hidden.SETS.values()), ("perfect",))}
    assert rows["cnc_hidden"][cnc_hidden.SHOWN] < 0.1 and rows["cnc_hidden"]["presence"] == 0
    for name in ("cnc_hidden_aside", "cnc_hidden_removed"):
        assert rows[name][cnc_hidden.SHOWN] > 0.8 and rows[name]["mask_iou"] > 0.8
        assert rows[f"{name}/wholly"]["pictures"] == 2
    measures = cnc_hidden.hidden_measures(list(records))
    assert [each["value"] for each in measures] == [1, 1, 1, 1]
    assert len({each["name"] for each in measures}) == 4
    # and nothing is painted again
    cnc_hidden.paint_hidden(None, None, records, {"perfect": None}, hidden_pairs.load_hidden()[0], None)


def test_some_pairs_are_of_both_kinds():
    pairs = hidden_pairs.load_hidden(hidden_pairs.HIDDEN_TUNING)
    kinds = [[pair.kind for pair in cnc_hidden.some_of_each(pairs, number)] for number in (1, 2, 3)]
    assert kinds == [[WHOLLY], [WHOLLY, PARTLY], [WHOLLY, WHOLLY, PARTLY]]
    assert cnc_hidden.some_of_each(pairs, None) == list(pairs)


def test_the_share_that_is_there_is_counted_by_kind():
    lines = [
        picture_line("cnc", cnc_hidden.SETS[ASIDE], n, tags=(PARTLY if n % 2 else WHOLLY,), present=n % 2 == 1 or n < 2)
        for n in range(8)
    ]
    partly, wholly, *removed = cnc_hidden.hidden_measures(lines)
    assert (partly["value"], wholly["value"]) == (1, 0.25) and "partly" in partly["name"]
    assert [each["value"] for each in removed] == [None, None]
