"""The graphs of `evaluate cnc`: what the two depths, the control, the looks and the names are given."""

import itertools

import numpy as np
import pytest
from stagecraft.evaluation.compose_and_conquer import evaluate as cnc
from stagecraft.evaluation.compose_and_conquer import graphs as cnc_graphs
from stagecraft.evaluation.compose_and_conquer import looks as cnc_looks
from stagecraft.evaluation.compose_and_conquer import order as cnc_order
from stagecraft.evaluation.compose_and_conquer import painter as cnc_painting
from stagecraft.evaluation.graphs.builder import PICTURES
from stagecraft.evaluation.sets import pairs as pair_sets
from stagecraft.sticker_world.world.concepts import CANVAS


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
    sets_ = [
        ("cnc_looks", "cnc"),
        *((name, "cnc_single") for name in ("cnc_order", "cnc_hidden", "cnc_reconstruction")),
    ]
    rows = [{"set": set_name, "method": method} for set_name, method in sets_]
    assert cnc.is_whole({"rows": rows})
    assert not cnc.is_whole(None)
    assert not any(cnc.is_whole({"rows": [row for row in rows if row is not missing]}) for missing in rows)


def test_the_control_is_left_out_where_it_has_no_weights():
    ours = {cnc.CNC: cnc_graphs.CnC()}
    assert list(cnc_painting.Methods(ours, None).with_depths("plain")) == [cnc.CNC, "plain"]
    control = cnc_graphs.CnC(file="control")
    assert cnc_painting.Methods(ours, control).with_depths("plain") == ours | {cnc_order.SINGLE: control, "plain": None}


def test_only_one_setting_is_tried_at_a_time():
    usual = vars(cnc_graphs.CnC())
    for name, ((key, value),) in ((name, changed.items()) for name, changed in cnc_painting.TRIED.items()):
        assert usual[key] != value and name == f"cnc {key}={value:g}"
