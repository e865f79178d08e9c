"""The sets of `evaluate cnc`: pairs of things in both orders, pairs of looks, and real scenes with their depths."""

import json

import numpy as np
import pytest
from stagecraft.core.compose_and_conquer.depth_pair import GROUND
from stagecraft.evaluation.sets import hidden_pairs, make_pairs, pairs, sets
from stagecraft.sticker_world.world.concepts import CANVAS, CONCEPT_NAMES, is_held_out

PAIR_SETS = {pairs.PAIRS: 200, pairs.PAIRS_TUNING: 24}
LOOKS_SETS = {pairs.LOOKS: 80, pairs.LOOKS_TUNING: 16}


@pytest.mark.parametrize("name", list(PAIR_SETS))
def test_pairs_overlap_and_are_held_out(name):
    found = pairs.load_pairs(name)
    assert len(found) == PAIR_SETS[name]
    for pair in found:
        assert is_held_out(pair.concepts, pair.background)
        assert all(concept in pair.prompt for concept in pair.concepts) and "front" not in pair.prompt
        assert make_pairs.is_pair(pair.placements)
        assert 0.3 <= pair.planes[0] < pair.planes[1] <= 1
    used = {concept for pair in found for concept in pair.concepts}
    assert len(used) >= (len(CONCEPT_NAMES) if name == pairs.PAIRS else 12)


@pytest.mark.parametrize("name", list(LOOKS_SETS))
def test_looks_lie_apart_and_are_held_out(name):
    found = pairs.load_looks(name)
    assert len(found) == LOOKS_SETS[name]
    for looks in found:
        assert is_held_out(looks.concepts, looks.background)
        assert tuple(reference.concept for reference in looks.references) == looks.concepts
        assert looks.references != looks.placements
        assert make_pairs.is_apart(looks.placements) and not (looks.shapes[0] & looks.shapes[1]).any()


def test_no_noise_is_used_twice():
    groups = [sets.load_set(name) for name in (*sets.LAYOUT_SETS, sets.TUNING_SET)]
    groups += [pairs.load_pairs(name) for name in PAIR_SETS] + [pairs.load_looks(name) for name in LOOKS_SETS]
    groups += [hidden_pairs.load_hidden(name) for name in (hidden_pairs.HIDDEN, hidden_pairs.HIDDEN_TUNING)]
    seeds = [item.seed for group in groups for item in group]
    seeds += [prompt.seed for objects in (1, 2, 3) for prompt in sets.load_presence(objects)]
    scene_seeds = (pairs.SCENES_SEED, pairs.SCENES_TUNING_SEED)
    seeds += [scene.seed for seed in scene_seeds for scene in pairs.real_scenes(3, seed)]
    assert len(set(seeds)) == len(seeds)


def test_the_committed_sets_are_what_the_script_makes():
    rows = {name: json.loads((sets.FOLDER / f"{name}.json").read_text()) for name in (*PAIR_SETS, *LOOKS_SETS)}
    for name, seed in (
        (pairs.PAIRS, make_pairs.PAIRS_SEED),
        (pairs.PAIRS_TUNING, make_pairs.PAIRS_TUNING_SEED),
    ):
        assert json.loads(json.dumps(make_pairs.make_pairs(2, seed))) == rows[name][:2]
    for name, seed in (
        (pairs.LOOKS, make_pairs.LOOKS_SEED),
        (pairs.LOOKS_TUNING, make_pairs.LOOKS_TUNING_SEED),
    ):
        assert json.loads(json.dumps(make_pairs.make_looks(2, seed))) == rows[name][:2]


def test_both_orders_are_asked_with_the_same_two_shapes():
    pair = pairs.load_pairs()[0]
    for front, back in ((0, 1), (1, 0)):
        maps = pair.maps(front)
        assert np.array_equal(maps.foreground, pair.shapes[front])
        assert np.array_equal(maps.background == 1, pair.shapes[back])  # the hidden part too
        outside = ~pair.shapes[back]
        ground = np.linspace(0, GROUND, CANVAS)[:, None] / pair.planes[0] * np.ones((1, CANVAS))
        assert maps.background[outside] == pytest.approx(ground[outside], abs=1e-6)
        assert np.array_equal(maps.whole == 1, pair.shapes[front])  # one map for everything: the near one hides the far
        assert np.unique(maps.whole[pair.shapes[back] & ~pair.shapes[front]]) == pytest.approx(
            pair.planes[0] / pair.planes[1]
        )


def test_scenes_have_every_split_and_their_exact_depths():
    scenes = pairs.real_scenes(18)
    splits = {(len(real.scene.objects), real.foreground) for real in scenes}
    assert splits == {(objects, front) for objects in (1, 2, 3) for front in range(1, objects + 1)}
    for real in scenes[:6]:
        concepts = tuple(thing.concept for thing in real.scene.objects)
        assert is_held_out(concepts, real.scene.background)
        maps, true = real.maps(), real.scene.disparity()
        assert maps.whole == pytest.approx((true - true.min()) / (true.max() - true.min()), abs=1e-6)
        near = np.any(real.shapes[-real.foreground :], 0)
        assert np.array_equal(maps.foreground > 0, near)
        assert maps.background.min() == 0 and maps.background.max() == pytest.approx(1)
