"""The committed sets: what they promise, and that a perfect picture scores perfectly on every layout."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.masks import outer_box
from stagecraft.core.layout.region import Region
from stagecraft.core.scores.layout_score import BOX_FILL, report, report_text, score_picture, summarize
from stagecraft.core.segmentation.files import SegmenterError
from stagecraft.evaluation.judging.yardsticks import REAL_SEED, real_scenes
from stagecraft.evaluation.sets import make_layouts, sets
from stagecraft.evaluation.sets.balanced import balanced_indices
from stagecraft.sticker_world.world.captions import plain_prompt
from stagecraft.sticker_world.world.concepts import CONCEPT_NAMES, is_held_out
from stagecraft.sticker_world.world.scene import combination

ALL_SETS = (*sets.LAYOUT_SETS, sets.TUNING_SET)
KINDS = ("boxes", "masks")
CLASSES = ("background", *CONCEPT_NAMES)


def one_hot(labels: np.ndarray, classes: int = len(CLASSES)) -> np.ndarray:
    """Probabilities of a segmenter that is certain: (h w) -> (k h w)."""
    return np.moveaxis(np.eye(classes, dtype=np.float32)[labels], -1, 0)


@pytest.mark.parametrize("name", ALL_SETS)
def test_a_perfect_picture_scores_perfectly(name):
    items = sets.load_set(name)
    pictures = [score_picture(one_hot(i.perfect_labels()), CLASSES, i.layout, i.areas) for i in items]
    scores = summarize(pictures)
    assert scores["ap50"] == pytest.approx(1)
    assert scores["presence"] == 1
    assert scores["bleed"] < 0.01
    assert scores["mask_iou"] > 0.98
    for item, picture in zip(items, pictures, strict=True):
        lowest = make_layouts.SMALLEST_VISIBLE_IOU if "overlapping" in item.tags else 0.9
        assert min(score.box_iou for score in picture) >= lowest, item.layout
        assert all((score.mask_iou is None) == ("boxes" in item.tags) for score in picture)


@pytest.mark.parametrize("name", ALL_SETS)
def test_sets_hold_what_their_tags_say(name):
    items = sets.load_set(name)
    counts = make_layouts.TUNING_COUNTS if name == sets.TUNING_SET else (int(name[-1]),)
    each = make_layouts.PER_CATEGORY_TUNING if name == sets.TUNING_SET else make_layouts.PER_CATEGORY
    expected = [(n, *tags) for n in counts for tags in itertools.product(KINDS, make_layouts.CATEGORIES[n])]
    assert Counter((len(item.layout.regions), *item.tags) for item in items) == dict.fromkeys(expected, each)
    assert len(items) == (60 if name == sets.TUNING_SET else 100)
    for item in items:
        category, count = item.tags[1], len(item.layout.regions)
        boxes = [region.box for region in item.layout.regions]
        assert make_layouts.RELATIONS[category](boxes)
        low, high = make_layouts.SIZES[category][count]
        sides = [max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
        assert all(low - 0.01 <= side <= high + 0.01 for side in sides)


@pytest.mark.parametrize("name", ALL_SETS)
def test_layouts_agree_with_their_sprites(name):
    for item in sets.load_set(name):
        concepts = tuple(placement.concept for placement in item.placements)
        assert is_held_out(concepts, item.background)
        assert len(set(concepts)) == len(concepts)
        assert item.layout.prompt == plain_prompt(concepts, item.background)
        assert [region.phrase.split()[-1] for region in item.layout.sorted_regions()] == list(concepts)
        labels = item.perfect_labels()
        for region, placement, area in zip(item.layout.regions, item.placements, item.areas, strict=True):
            assert region.box == pytest.approx(outer_box(placement.mask()), abs=2.5 / 256)
            seen = (labels == 1 + CONCEPT_NAMES.index(placement.concept)).mean()
            assert seen == pytest.approx(area, abs=2e-4 + 0.01 * area)
            assert len(region.colour) == 7 and region.colour[0] == "#"


def test_seeds_and_layouts_do_not_repeat():
    items = [item for name in ALL_SETS for item in sets.load_set(name)]
    assert len({item.seed for item in items}) == len(items)
    assert len({json.dumps([r.box for r in item.layout.regions]) for item in items}) == len(items)


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_presence_prompts_are_held_out(objects):
    prompts = sets.load_presence(objects)
    assert len(prompts) == 1000
    assert len({prompt.seed for prompt in prompts}) == 1000
    for prompt in prompts:
        assert len(prompt.concepts) == objects
        assert is_held_out(prompt.concepts, prompt.background)
        assert prompt.prompt == plain_prompt(prompt.concepts, prompt.background)
    used = Counter(concept for prompt in prompts for concept in prompt.concepts)
    assert set(used) == set(CONCEPT_NAMES)


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_expected_areas_are_those_of_small_things(objects):
    areas = sets.expected_areas(objects)
    assert set(areas) == set(CONCEPT_NAMES)
    # the smallest side is a fifth of the canvas, nothing is more than half hidden, and a box is never full
    assert all(0.2**2 * 0.2 < area < 0.2**2 * 1.1 for area in areas.values())


def test_making_sets_is_deterministic():
    first, second = (make_layouts.make_set(2, 1, 5) for _ in range(2))
    assert first == second
    assert make_layouts.make_set(2, 1, 6) != first


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_real_scenes_that_are_compared_with_have_everything_equally_often(objects):
    places = balanced_indices(REAL_SEED, objects, 48)
    assert places == sorted(set(places)) and balanced_indices(REAL_SEED, objects, 12) == places[:12]
    drawn = [combination(REAL_SEED, place, held_out=True, counts=sets.exactly(objects)) for place in places]
    concepts = Counter(concept for names, _ in drawn for concept in names)
    assert set(concepts) == set(CONCEPT_NAMES)
    assert max(concepts.values()) - min(concepts.values()) <= 2
    backgrounds = Counter(background for _, background in drawn)
    assert max(backgrounds.values()) - min(backgrounds.values()) <= 3
    scene = real_scenes(objects, 2)[1]
    assert (tuple(thing.concept for thing in scene.objects), scene.background) == drawn[1]


def test_all_sets_are_small():
    assert sum(path.stat().st_size for path in sets.FOLDER.glob("*.json")) < 1_000_000


def two_dogs() -> Layout:
    regions = (Region("a dog", box=(0.0, 0.0, 0.25, 0.5)), Region("a dog", box=(0.5, 0.0, 1.0, 1.0)))
    return Layout(16, 16, "two dogs", "", regions)


def test_regions_of_one_class_share_its_components():
    labels = np.zeros((16, 16), np.uint8)
    labels[:, 8:] = 1
    labels[:8, :4] = 1
    for order in (1, -1):
        layout = two_dogs()
        layout = Layout(16, 16, "two dogs", "", layout.regions[::order])
        scores = score_picture(one_hot(labels), CLASSES, layout)
        assert [score.box_iou for score in scores] == [1, 1]
        assert all(score.present and score.bleed == 0 for score in scores)
    labels[:8, :4] = 0  # one dog cannot be two
    scores = score_picture(one_hot(labels), CLASSES, two_dogs())
    assert [score.found_box is None for score in scores] == [True, False]
    assert summarize([scores]) == {"box_iou": 0.5, "ap50": 0.5, "mask_iou": None, "bleed": 0.0, "presence": 0.0}


def test_confidence_is_the_mean_probability_inside_the_component():
    probabilities = np.full((len(CLASSES), 4, 4), 0.01, np.float32)
    probabilities[0] = 0.5
    probabilities[1, :2] = [[0.6, 0.7, 0.8, 0.9]] * 2
    layout = Layout(16, 16, "", "", (Region("a dog", box=(0.0, 0.0, 1.0, 0.5)),))
    (score,) = score_picture(probabilities, CLASSES, layout)
    assert score.confidence == pytest.approx(0.75)
    assert (score.found_box, score.box_iou) == ((0.0, 0.0, 1.0, 0.5), 1)


def test_ap_is_pooled_over_the_set():
    """One confident miss in one picture lowers the precision of a hit in another: AP is not a mean over pictures."""
    layout = Layout(16, 16, "", "", (Region("a dog", box=(0.0, 0.0, 0.5, 1.0)),))
    pictures = []
    for confidence, columns in ((0.9, slice(8, 16)), (0.7, slice(0, 8))):
        probabilities = np.full((len(CLASSES), 16, 16), 0.0, np.float32)
        probabilities[0] = 0.5
        probabilities[1, :, columns] = confidence
        pictures.append(score_picture(probabilities, CLASSES, layout))
    assert summarize(pictures)["ap50"] == pytest.approx(0.25)
    assert summarize(pictures[::-1])["ap50"] == pytest.approx(0.25)
    assert summarize(pictures)["bleed"] == 0.5


def test_presence_in_a_box_expects_what_fills_a_box():
    layout = Layout(16, 16, "", "", (Region("a dog", box=(0.0, 0.0, 1.0, 1.0)),))
    least = BOX_FILL / 2
    for rows, present in ((int(16 * least), False), (int(16 * least) + 1, True)):
        labels = np.zeros((16, 16), np.uint8)
        labels[:rows] = 1
        assert score_picture(one_hot(labels), CLASSES, layout)[0].present == present


def test_hidden_parts_count_for_the_box_but_not_for_the_mask():
    far, near = torch.zeros(16, 16), torch.zeros(16, 16)
    far[:, :10], near[:, 6:] = 1, 1
    layout = Layout(16, 16, "", "", (Region("a dog", mask=far), Region("a cat", mask=near, order=1)))
    labels = np.ones((16, 16), np.uint8)
    labels[:, 6:] = 2
    dog, cat = score_picture(one_hot(labels), CLASSES, layout)
    assert (dog.mask_iou, cat.mask_iou) == (1, 1)
    assert dog.box_iou == pytest.approx(0.6)
    assert (dog.bleed, cat.bleed) == (0, 0)


def test_reports_are_plain_json_and_text():
    scores = [score_picture(one_hot(np.zeros((16, 16), np.uint8)), CLASSES, two_dogs())] * 2
    data = json.loads(json.dumps(report(scores), allow_nan=False))
    assert data["pictures"] == 2 and data["box_iou"] == 0 and data["bleed"] is None
    assert data["regions"][0][0]["found_box"] is None
    assert "picture 2: a dog: not found" in report_text(scores)


def test_an_unknown_phrase_is_named():
    layout = Layout(16, 16, "", "", (Region("a unicorn", box=(0.0, 0.0, 1.0, 1.0)),))
    with pytest.raises(SegmenterError, match="a unicorn"):
        score_picture(one_hot(np.zeros((16, 16), np.uint8)), CLASSES, layout)
