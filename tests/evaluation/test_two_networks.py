"""The same methods on both embedded networks: their graphs, and what is made of their rows."""

import pytest
import torch
from stagecraft.commands.messages import SetupProblem
from stagecraft.evaluation.graphs.builder import PICTURES
from stagecraft.evaluation.result_rows import result_row
from stagecraft.evaluation.sets.sets import load_set
from stagecraft.evaluation.two_networks import evaluate as networks
from stagecraft.evaluation.two_networks.counted import COUNTED, LOADER, counted
from stagecraft.evaluation.two_networks.word_maps import area_under_curve

ITEM = next(item for item in load_set("objects_2") if "boxes" in item.tags)


@pytest.mark.parametrize("name", networks.METHODS)
def test_whatever_takes_the_model_takes_the_counted_one(name):
    plain = networks.METHODS[name](ITEM.layout, 7, 1)
    graph = counted(plain, "other.safetensors")
    (loader,) = (key for key, node in graph.items() if node["class_type"] == LOADER)
    assert graph[loader]["inputs"] == {"ckpt_name": "other.safetensors"}
    assert plain[loader]["inputs"] != graph[loader]["inputs"], "the method's own graph stays as it is"
    takers = [key for key, node in graph.items() for value in node["inputs"].values() if value == [loader, 0]]
    assert takers == [f"count {loader}"]
    assert sum([f"count {loader}", 0] in node["inputs"].values() for node in graph.values()) >= 2
    assert graph[COUNTED]["inputs"]["after"] == graph[PICTURES]["inputs"]["images"]


def test_what_is_one_thing_on_the_u_net_is_painted_once():
    jobs = list(networks.jobs())
    assert len(jobs) == len(set(jobs)) == 2 * len(networks.METHODS) - 1
    assert (networks.HARD, networks.U_NET) not in jobs


def row(method, network, ap50, clip, pictures=10):
    made = result_row(networks.called(method, network), "objects_1", images={"clip": clip, "kid": None})
    return made | {"ap50": ap50, "pictures": pictures}


def test_gains_are_those_on_the_transformer():
    rows = [
        row("set_mask", networks.TRANSFORMER, 0.2, 0.7),
        row("plain", networks.TRANSFORMER, 0.0, 0.8),
        row(networks.GUIDED, networks.TRANSFORMER, 0.2, 0.8),
        row(networks.GUIDED, networks.TRANSFORMER, 0.5, 0.76, pictures=20),
        row(networks.GUIDED, networks.U_NET, 0.9, 0.9),
    ]
    found = {each["name"]: (each["value"], each["target"]) for each in networks.gains(rows)}
    assert found["AP@0.5 above set_mask's: chen, transformer"] == (pytest.approx(0.2), 0.10)
    assert found["CLIP against plain: chen, transformer"] == (
        pytest.approx((0.8 + 2 * 0.76) / 3 / 0.8 - 1, abs=1e-6),
        -0.05,
    )
    assert len(found) == 2


def test_it_says_how_to_make_the_transformer(monkeypatch, tmp_path):
    monkeypatch.setattr(networks, "TRANSFORMER_FILE", tmp_path / "none.safetensors")
    with pytest.raises(SetupProblem, match="train transformer transformer_export"):
        networks.evaluate(None, None, layouts=1, tuning=False, keep=lambda *_: None)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    shown = torch.tensor([[0.9, 0.5], [0.5, 0.1]])
    inside = torch.tensor([[True, True], [False, False]])
    assert area_under_curve(shown, inside) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert area_under_curve(-shown, inside) == pytest.approx(0.5 / 4)
