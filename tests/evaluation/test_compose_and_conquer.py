"""The sets, judges and numbers of `evaluate cnc`: what they promise, against closed forms and perfect pictures."""

import itertools
import json

import numpy as np
import pytest
import torch
from stagecraft.core.compose_and_conquer.depth_pair import GROUND
from stagecraft.evaluation.compose_and_conquer import evaluate as cnc
from stagecraft.evaluation.compose_and_conquer import graphs as cnc_graphs
from stagecraft.evaluation.compose_and_conquer import looks as cnc_looks
from stagecraft.evaluation.compose_and_conquer import order as cnc_order
from stagecraft.evaluation.compose_and_conquer import reconstruction as cnc_reconstruction
from stagecraft.evaluation.compose_and_conquer import scores as cnc_scores
from stagecraft.evaluation.graphs.builder import PICTURES
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.sets import make_pairs, sets
from stagecraft.evaluation.sets import pairs as pair_sets
from stagecraft.sticker_world.world.concepts import CANVAS, CONCEPT_NAMES, is_held_out

PAIR_SETS = {pair_sets.PAIRS: 200, pair_sets.PAIRS_TUNING: 24}
LOOKS_SETS = {pair_sets.LOOKS: 80, pair_sets.LOOKS_TUNING: 16}


@pytest.fixture(scope="module")
def yardsticks():
    return Yardsticks.load()


@pytest.mark.parametrize("name", list(PAIR_SETS))
def test_pairs_overlap_and_are_held_out(name):
    found = pair_sets.load_pairs(name)
    assert len(found) == PAIR_SETS[name]
    for pair in found:
        assert is_held_out(pair.concepts, pair.background)
        assert all(concept in pair.prompt for concept in pair.concepts) and "front" not in pair.prompt
        assert make_pairs.is_pair(pair.placements)
        assert 0.3 <= pair.planes[0] < pair.planes[1] <= 1
    used = {concept for pair in found for concept in pair.concepts}
    assert len(used) >= (len(CONCEPT_NAMES) if name == pair_sets.PAIRS else 12)


@pytest.mark.parametrize("name", list(LOOKS_SETS))
def test_looks_lie_apart_and_are_held_out(name):
    found = pair_sets.load_looks(name)
    assert len(found) == LOOKS_SETS[name]
    for looks in found:
        assert is_held_out(looks.concepts, looks.background)
        assert tuple(reference.concept for reference in looks.references) == looks.concepts
        assert looks.references != looks.placements
        assert make_pairs.is_apart(looks.placements) and not (looks.shapes[0] & looks.shapes[1]).any()


def test_no_noise_is_used_twice():
    groups = [sets.load_set(name) for name in (*sets.LAYOUT_SETS, sets.TUNING_SET)]
    groups += [pair_sets.load_pairs(name) for name in PAIR_SETS] + [pair_sets.load_looks(name) for name in LOOKS_SETS]
    seeds = [item.seed for group in groups for item in group]
    seeds += [prompt.seed for objects in (1, 2, 3) for prompt in sets.load_presence(objects)]
    scene_seeds = (pair_sets.SCENES_SEED, pair_sets.SCENES_TUNING_SEED)
    seeds += [scene.seed for seed in scene_seeds for scene in pair_sets.real_scenes(3, seed)]
    assert len(set(seeds)) == len(seeds)


def test_the_committed_sets_are_what_the_script_makes():
    rows = {name: json.loads((sets.FOLDER / f"{name}.json").read_text()) for name in (*PAIR_SETS, *LOOKS_SETS)}
    for name, seed in (
        (pair_sets.PAIRS, make_pairs.PAIRS_SEED),
        (pair_sets.PAIRS_TUNING, make_pairs.PAIRS_TUNING_SEED),
    ):
        assert json.loads(json.dumps(make_pairs.make_pairs(2, seed))) == rows[name][:2]
    for name, seed in (
        (pair_sets.LOOKS, make_pairs.LOOKS_SEED),
        (pair_sets.LOOKS_TUNING, make_pairs.LOOKS_TUNING_SEED),
    ):
        assert json.loads(json.dumps(make_pairs.make_looks(2, seed))) == rows[name][:2]


def test_both_orders_are_asked_with_the_same_two_shapes():
    pair = pair_sets.load_pairs()[0]
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
    scenes = pair_sets.real_scenes(18)
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


# Two shapes that share the middle column of three, on a canvas whose last row is background.
NEAR, FAR = (np.zeros((4, 3), bool) for _ in range(2))
NEAR[:3, :2] = FAR[:3, 1:] = True


def picture(left: int, middle: int, right: int) -> np.ndarray:
    labels = np.zeros((4, 3), int)
    labels[:3] = left, middle, right
    return labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (picture(1, 1, 2), (True, True, True)),
        (picture(1, 2, 2), (True, False, False)),  # the other one is in front
        (picture(2, 2, 1), (False, False, True)),  # right outlines, but the things changed places
        (picture(1, 1, 0), (False, False, False)),  # one of them is missing
        (picture(1, 1, 1), (False, False, False)),
        (picture(0, 0, 0), (False, False, False)),
        (picture(3, 3, 2), (False, False, True)),  # something else has the near one's shape
        (picture(1, 0, 2), (True, False, False)),  # nothing where they overlap
    ],
)
def test_depth_order_is_read_where_the_shapes_overlap(labels, expected):
    score = cnc_scores.judge_order(labels, NEAR, FAR, (1, 2))
    assert (score.present, score.asked, score.outline) == expected


def test_the_asked_order_takes_more_than_half_of_the_overlap():
    near, far = np.ones((2, 4), bool), np.zeros((2, 4), bool)
    near[:, 3], far[:, 1:] = False, True
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    assert not cnc_scores.judge_order(labels, near, far, (1, 2)).asked
    labels[0, 2] = 1
    assert cnc_scores.judge_order(labels, near, far, (1, 2)).asked


def test_the_depth_of_true_labels_is_the_true_depth():
    order = {name: 1 + i for i, name in enumerate(CONCEPT_NAMES)}
    ground = np.linspace(0, GROUND, CANVAS, dtype=np.float32)[:, None] * np.ones((1, CANVAS), np.float32)
    for real in pair_sets.real_scenes(6):
        planes = {order[thing.concept]: thing.disparity for thing in real.scene.objects}
        depth = cnc_scores.depth_of_labels(real.scene.labels(), planes, ground)
        assert np.abs(depth - real.scene.disparity()).mean() < 2e-3  # soft edges fall to either side
    labels = np.array([[0, 2, 5]])
    found = cnc_scores.depth_of_labels(labels, {2: 0.4}, np.full((1, 3), 0.1, np.float32))
    assert found.tolist() == [pytest.approx([0.1, 0.4, cnc_scores.STRANGER])]


def test_distance_in_features_is_that_of_directions():
    x = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    assert cnc_scores.feature_distance([x, x], [3 * x, x]) == pytest.approx(torch.zeros(2), abs=1e-5)
    assert cnc_scores.feature_distance([x], [-x]) == pytest.approx(torch.full((2,), 4.0), abs=1e-5)
    a, b = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    a[0, 0], b[0, 0, 0, 0], b[0, 1, 0, 1] = 1, 1, 1  # equal at the first position, at right angles at the second
    assert cnc_scores.feature_distance([a], [b]).item() == pytest.approx(1)
    assert cnc_scores.feature_distance([a, a], [b, a]).item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [  # Bruce Lindbloom's calculator, sRGB, D65
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((119, 119, 119), (50.03, 0, 0)),
    ],
)
def test_colours_have_their_lab_values(rgb, lab):
    assert cnc_scores.lab_of_rgb(np.array(rgb, np.uint8)) == pytest.approx(np.array(lab), abs=0.05)


def test_colour_distance_counts_only_where_it_is_asked():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    half = black.copy()
    half[0] = 255
    everywhere, top = np.ones((2, 2), bool), np.array([[True, True], [False, False]])
    assert cnc_scores.colour_distance(black, white, everywhere) == pytest.approx(100, abs=0.01)
    assert cnc_scores.colour_distance(black, half, everywhere) == pytest.approx(50, abs=0.01)
    assert cnc_scores.colour_distance(black, half, ~top) == 0
    assert cnc_scores.colour_distance(black, white, ~everywhere) is None


def test_the_judge_passes_perfect_pictures_and_no_others(yardsticks):
    """The ceiling of the whole set is in the results; here some pairs, and that the wrong order never passes."""
    right, wrong = [], []
    for pair in pair_sets.load_pairs()[:8]:
        for front in (0, 1):
            labels = yardsticks.labels(pair.perfect_picture(front))
            classes = [yardsticks.segmenter.class_of(pair.concepts[i]) for i in (front, 1 - front)]
            near, far = pair.shapes[front], pair.shapes[1 - front]
            right.append(cnc_scores.judge_order(labels, near, far, tuple(classes)))
            wrong.append(cnc_scores.judge_order(labels, far, near, tuple(classes[::-1])))
    assert sum(score.asked for score in right) >= 15
    assert not any(score.asked or score.outline for score in wrong)


def test_perfect_pairs_give_rows_and_measures(yardsticks):
    found = [
        each
        for pair in pair_sets.load_pairs()[:3]
        for each in cnc_order.paint_pair(None, yardsticks, {cnc_order.PERFECT: None}, pair)
    ]
    yardsticks.real_features[2] = yardsticks.image_features([each.picture for each in found])  # drawing 300 is slow
    row = cnc_order.order_row(yardsticks, found)
    assert (row["method"], row["set"], row["pictures"], row["presence"]) == ("perfect", "cnc_order", 6, 1)
    assert row["mask_iou"] > 0.8 and row["seconds"] is None and row["kid"] is not None
    values = [measure["value"] for measure in cnc_order.order_measures(found)]
    assert values == [1, 1, 1]
    flipped = [each for each in found if each.front == 0 or each.pair is not found[0].pair]
    failed = cnc_scores.OrderScore(True, False, False)
    flipped.append(cnc_order.Ordered("perfect", found[0].pair, 1, found[1].picture, None, failed, 0.5))
    both, single, outline = (measure["value"] for measure in cnc_order.order_measures(flipped))
    assert (both, single, outline) == pytest.approx((2 / 3, 5 / 6, 5 / 6), abs=1e-6)


def test_real_scenes_are_their_own_best_reconstruction(yardsticks):
    scenes = pair_sets.real_scenes(3)
    found = [cnc_reconstruction.repaint(None, yardsticks, {cnc_reconstruction.REAL: None}, real)[0] for real in scenes]
    depth, likeness, clip = (m["value"] for m in cnc_reconstruction.reconstruction_measures(yardsticks, found))
    assert depth < 0.03 and likeness < 1e-5 and clip == pytest.approx(1, abs=1e-5)
    mirrored = cnc_reconstruction.compare(yardsticks, scenes[0], scenes[0].scene.image[:, ::-1].copy())
    assert mirrored[0] > depth and mirrored[1] > 0.05


def test_perfect_looks_do_not_bleed(yardsticks):
    placed = [
        each
        for looks in pair_sets.load_looks()[:3]
        for each in cnc_looks.place(None, yardsticks, {cnc_looks.PERFECT: None}, looks)
    ]
    assert {each.set_name for each in placed} == {cnc_looks.NAMED, cnc_looks.UNNAMED}
    assert all(each.present for each in placed)
    assert cnc_looks.mean_bleed(placed) < 0.05


def test_bleed_is_compared_with_the_same_tokens_without_a_mask():
    looks = pair_sets.load_looks()[0]

    def placed(method, *bleeds):
        return [cnc_looks.Placed(method, cnc_looks.NAMED, looks, None, 1.0, pair, True) for pair in bleeds]

    guided, unguided = placed("cnc", (0.1, None), (0.2, 0.0)), placed("cnc_open", (0.5, 0.4))
    inside, inside_open, ratio = cnc_looks.looks_measures(guided, unguided)
    assert (inside["value"], inside_open["value"]) == pytest.approx((0.9, 0.55))
    assert ratio["value"] == pytest.approx(0.1 / 0.45, abs=1e-6) and ratio["target"] == pytest.approx(1 / 3)
    assert cnc_looks.looks_measures(placed("cnc", (None, None)), unguided)[2]["value"] is None


def test_a_foreground_that_stays_the_same_is_at_no_distance(yardsticks):
    looks = pair_sets.load_looks()[0]
    weak = looks.perfect_picture()
    strong = weak.copy()
    strong[~looks.shapes.any(0)] //= 2
    change = cnc_looks.compare_strengths(yardsticks, "cnc", looks, weak, strong)
    assert change.mask_iou > 0.9 and change.foreground_colour < 1 < change.background_colour
    measures = cnc_looks.strength_measures([change, change])
    assert [measure["value"] for measure in measures] == pytest.approx(
        [change.mask_iou, change.foreground_colour, change.background_colour], abs=1e-5
    )


class Shelf:
    """Takes pictures like a painter and counts them."""

    def __init__(self):
        self.pictures = {}

    def upload(self, picture):
        return self.pictures.setdefault(picture.tobytes(), f"{len(self.pictures)}.png")


def nodes_of(graph: dict, kind: str) -> list[dict]:
    return [node["inputs"] for node in graph.values() if node["class_type"] == kind]


def test_the_control_sees_one_map_and_ours_two():
    pair, shelf = pair_sets.load_pairs()[0], Shelf()
    ours = cnc_graphs.CnC().graph(shelf, cnc_order.asked_order(pair, 0, single=False))
    control = cnc_graphs.CnC(file="control").graph(shelf, cnc_order.asked_order(pair, 0, single=True))
    (both,), (one,) = (nodes_of(graph, "StageDepthCompose") for graph in (ours, control))
    assert {"foreground_depth", "background_depth"} <= both.keys()
    assert "foreground_depth" in one and "background_depth" not in one
    assert len(shelf.pictures) == 3
    assert nodes_of(control, "StageCnCLoader") == [{"cnc_name": "control"}]
    sampled = [nodes_of(graph, "KSampler")[0] for graph in (ours, control)]
    assert len({(inputs["seed"], inputs["steps"], inputs["cfg"]) for inputs in sampled}) == 1
    named, alone = (
        method.graph(shelf, cnc_order.asked_order(pair, 0, single=False))
        for method in cnc_order.with_names(cnc_graphs.CnC()).values()
    )
    for graph in (ours, control, named, alone):
        links = {value[0] for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)}
        assert links | {PICTURES} == set(graph)  # every node is there and none is left over


def test_without_soft_guidance_only_the_mask_is_missing():
    looks = pair_sets.load_looks()[0]
    shelf = Shelf()
    for set_name, soft in itertools.product((cnc_looks.NAMED, cnc_looks.UNNAMED), (True, False)):
        graph = cnc_graphs.CnC(soft=soft).graph(shelf, cnc_looks.asked_looks(looks, set_name))
        (composed,), (exemplars,) = nodes_of(graph, "StageDepthCompose"), nodes_of(graph, "StageExemplars")
        assert ("mask" in composed) == soft and "exemplars" in composed and "foreground_depth" not in composed
        assert {"foreground", "background", "clip_vision"} <= exemplars.keys()
        text = nodes_of(graph, "CLIPTextEncode")[0]["text"]
        assert all((concept in text) == (set_name == cnc_looks.NAMED) for concept in looks.concepts)
    assert len(shelf.pictures) == 3  # two references and the region


def test_everything_at_once_has_the_foreground_in_front():
    looks = pair_sets.load_looks()[0]
    asked = cnc_looks.asked_whole(looks)
    assert np.array_equal(asked.foreground_depth, looks.shapes[0])
    assert np.array_equal(asked.background_depth == 1, looks.shapes[1])
    (composed,) = nodes_of(cnc_graphs.CnC().graph(Shelf(), asked), "StageDepthCompose")
    assert {"foreground_depth", "background_depth", "exemplars", "mask"} <= composed.keys()


@pytest.mark.parametrize("front", [0, 1])
def test_names_are_kept_to_what_is_seen_of_their_shapes(front):
    pair, shelf = pair_sets.load_pairs()[0], Shelf()
    layout = pair.layout(front)
    assert layout.sorted_regions()[-1].phrase.endswith(pair.concepts[front])
    _, far, near = layout.visible_masks(CANVAS, CANVAS).numpy() > 0
    np.testing.assert_array_equal(near, pair.shapes[front])
    np.testing.assert_array_equal(far, pair.shapes[1 - front] & ~pair.shapes[front])
    methods = cnc_order.with_names(cnc_graphs.CnC())
    graphs = [method.graph(shelf, cnc_order.asked_order(pair, front, single=False)) for method in methods.values()]
    for graph in graphs:
        (guided,) = (key for key, node in graph.items() if node["class_type"] == "StageSoftGuidance")
        (composed,) = nodes_of(graph, "StageDepthCompose")
        assert composed["model"] == [guided, 0] and graph[guided]["inputs"]["strength"] == cnc_order.STRENGTH
    scales = [nodes_of(graph, "StageDepthCompose")[0]["residual_scale"] for graph in graphs]
    assert dict(zip(methods, scales, strict=True)) == {cnc_order.NAMED: 1.0, cnc_order.NAMES_ALONE: 0.0}


def test_committed_results_are_replaced_only_with_the_control():
    sets_ = [("cnc_order", "cnc_single"), ("cnc_reconstruction", "cnc_single"), ("cnc_looks", "cnc")]
    rows = [{"set": set_name, "method": method} for set_name, method in sets_]
    assert cnc.is_whole({"rows": rows})
    assert not cnc.is_whole(None)
    assert not any(cnc.is_whole({"rows": [row for row in rows if row is not missing]}) for missing in rows)


def test_the_control_is_left_out_where_it_has_no_weights():
    ours = {cnc.CNC: cnc_graphs.CnC()}
    assert list(cnc.Methods(ours, None).with_depths("plain")) == [cnc.CNC, "plain"]
    control = cnc_graphs.CnC(file="control")
    assert cnc.Methods(ours, control).with_depths("plain") == ours | {cnc_order.SINGLE: control, "plain": None}


def test_only_one_setting_is_tried_at_a_time():
    usual = vars(cnc_graphs.CnC())
    for name, ((key, value),) in ((name, changed.items()) for name, changed in cnc.TRIED.items()):
        assert usual[key] != value and name == f"cnc {key}={value:g}"
