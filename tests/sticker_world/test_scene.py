"""The world's ground truth must be exact: everything else is measured against it."""

import numpy as np
import pytest
from stagecraft.sticker_world.world.captions import plain_prompt
from stagecraft.sticker_world.world.concepts import (
    ADJECTIVES,
    BACKGROUND_NAMES,
    BACKGROUNDS,
    CANVAS,
    CONCEPT_NAMES,
    EMPTY_CAPTIONS,
    is_held_out,
    is_held_out_pair,
    is_held_out_place,
)
from stagecraft.sticker_world.world.scene import LARGEST, MOST_HIDDEN, SMALLEST, make_scene

SCENES = [make_scene(11, i) for i in range(40)]
THREE = [make_scene(12, i, held_out=None, counts=(0, 0, 0, 1)) for i in range(25)]


def test_enough_things_and_places():
    assert len(CONCEPT_NAMES) >= 24
    assert len(BACKGROUND_NAMES) >= 10
    assert set(EMPTY_CAPTIONS) == set(BACKGROUNDS)
    assert set(ADJECTIVES) <= set(CONCEPT_NAMES)


def test_same_numbers_same_scene():
    again = make_scene(11, 3)
    assert again.caption == SCENES[3].caption
    np.testing.assert_array_equal(again.image, SCENES[3].image)
    assert any((make_scene(11, i).image != make_scene(13, i).image).any() for i in range(3))


@pytest.mark.parametrize("scene", THREE[:10])
def test_layers_over_the_backdrop_give_the_picture(scene):
    picture = scene.backdrop.astype(np.float64)
    for thing in scene.objects:
        alpha = thing.layer[..., 3:].astype(np.float64) / 255
        picture = thing.layer[..., :3] * alpha + picture * (1 - alpha)
    assert np.abs(picture - scene.image).max() <= 3  # 8-bit colour and alpha, straight, three layers


@pytest.mark.parametrize("scene", THREE)
def test_visible_masks_follow_from_order_and_layers(scene):
    for i, thing in enumerate(scene.objects):
        left = thing.mask.copy()
        for nearer in scene.objects[i + 1 :]:
            left *= 1 - nearer.mask
        np.testing.assert_allclose(thing.visible, left, atol=0.02)
        assert thing.visible.sum() >= (1 - MOST_HIDDEN - 0.02) * thing.mask.sum()


@pytest.mark.parametrize("scene", SCENES)
def test_boxes_are_tight_and_of_an_allowed_size(scene):
    for thing in scene.objects:
        rows, columns = np.nonzero(thing.mask.max(1) > 0.1)[0], np.nonzero(thing.mask.max(0) > 0.1)[0]
        found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        np.testing.assert_allclose(np.array(thing.box) * CANVAS, found, atol=3)
        longer = max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1])
        assert SMALLEST - 0.01 <= longer <= LARGEST + 0.01


def test_nearer_things_have_more_disparity():
    for scene in THREE:
        values = [thing.disparity for thing in scene.objects]
        assert values == sorted(values)
        nearest = scene.objects[-1]
        assert np.allclose(scene.disparity()[nearest.mask >= 0.5], nearest.disparity)


def test_labels_name_what_is_seen():
    for scene in THREE:
        labels = scene.labels()
        present = {CONCEPT_NAMES[label - 1] for label in np.unique(labels) if label}
        assert present == {thing.concept for thing in scene.objects}


def test_positions_cover_the_canvas():
    centres = np.array([[(t.box[0] + t.box[2]) / 2, (t.box[1] + t.box[3]) / 2] for s in SCENES for t in s.objects])
    assert (centres.min(0) < 0.25).all() and (centres.max(0) > 0.75).all()


def test_captions_name_everything_in_an_order_that_says_nothing():
    first_is_left = []
    for scene in [make_scene(14, i, counts=(0, 0, 1)) for i in range(120)]:
        words = scene.caption.replace(",", "").split()
        places = [words.index(thing.concept) for thing in scene.objects]
        centres = [(thing.box[0] + thing.box[2]) / 2 for thing in scene.objects]
        first_is_left.append((places[0] < places[1]) == (centres[0] < centres[1]))
    assert 0.34 < np.mean(first_is_left) < 0.66  # 120 fair coins stay inside 99.9 % of the time


def test_in_front_of_is_true():
    spoken = 0
    for scene in THREE + SCENES:
        if " in front of " not in scene.caption:
            continue
        spoken += 1
        near, far = (part.split() for part in scene.caption.split(" in front of "))
        names = [thing.concept for thing in scene.objects]
        nearer = next(i for i, name in enumerate(names) if name in near)
        farther = min((far.index(name), i) for i, name in enumerate(names) if name in far)[1]
        assert nearer > farther
        assert (scene.objects[nearer].mask * scene.objects[farther].mask).sum() > 0
    assert spoken > 3


def test_training_never_sees_what_is_held_out():
    for scene in SCENES:
        assert not scene.objects or not is_held_out(tuple(t.concept for t in scene.objects), scene.background)
    for i in range(20):
        scene = make_scene(15, i, held_out=True, counts=(0, 0.5, 0.5))
        assert is_held_out(tuple(t.concept for t in scene.objects), scene.background)


def test_every_concept_is_held_out_somewhere_and_allowed_elsewhere():
    for concept in CONCEPT_NAMES:
        pairs = [is_held_out_pair(concept, other) for other in CONCEPT_NAMES if other != concept]
        places = [is_held_out_place(concept, name) for name in BACKGROUND_NAMES]
        assert 0 < sum(pairs) < len(pairs) / 2
        assert 0 < sum(places) < len(places) / 2


def test_plain_prompts():
    assert plain_prompt(("apple",), "night") == "an apple at night"
    assert plain_prompt(("dog", "cat", "umbrella"), "snow") == "a dog, a cat and an umbrella in the snow"
