"""The same methods on both embedded networks: their graphs, and what is made of their rows."""

import pytest
import torch
from stagecraft.commands.messages import SetupProblem
from stagecraft.evaluation.graphs.builder import PICTURES
from stagecraft.evaluation.graphs.counted import COUNTED, LOADER, counted
from stagecraft.evaluation.records.lines import RegionLine, picture_line
from stagecraft.evaluation.sets.sets import load_set
from stagecraft.evaluation.summary.compared import Compared
from stagecraft.evaluation.summary.rows import summary_rows
from stagecraft.evaluation.summary.verdicts import OPEN
from stagecraft.evaluation.two_networks import evaluate as networks
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


def lines(method, network, clip, hits, pictures=10):
    """Pictures of one thing each, of which the first are hits."""
    found = [RegionLine("dog", (0, 0, 1, 1), 0.5, float(n < hits), None, 0.0, True) for n in range(pictures)]
    name = networks.called(method, network)
    return [picture_line(name, "objects_1", n, clip=clip, regions=(each,)) for n, each in enumerate(found)]


def test_gains_are_those_on_the_transformer():
    painted = [
        *lines(networks.RIVAL, networks.TRANSFORMER, 0.7, 0),
        *lines("plain", networks.TRANSFORMER, 0.8, 0),
        *lines(networks.GUIDED, networks.TRANSFORMER, 0.76, 10),
        *lines(networks.GUIDED, networks.U_NET, 0.9, 0),
    ]
    found = {each["name"]: each for each in networks.gains(Compared(painted, ["objects_1"]))}
    above, words = (found[f"{name}: chen, transformer"] for name in ("AP@0.5 above set_mask's", "CLIP against plain"))
    # OPEN: of layouts that all score the same a bootstrap says nothing
    assert (above["value"], above["target"], above["verdict"]) == (1.0, 0.10, OPEN)
    assert (words["value"], words["target"], words["verdict"]) == (pytest.approx(-0.05), -0.05, OPEN)
    assert len(found) == 2
    pairs = set(networks.PAIRS)
    assert ("chen, transformer", "set_mask, transformer") in pairs and ("chen, transformer", "chen, U-Net") in pairs
    assert not any(
        first == second or networks.called(networks.HARD, networks.U_NET) in pair
        for pair in pairs
        for first, second in [pair]
    )


def test_rows_say_how_many_evaluations_a_picture_took():
    (region,) = lines("lrdiff", networks.U_NET, 0.5, 1)[0].regions
    counted_ones = [picture_line("a", "objects_1", n, regions=(region,), evaluations=40 + n) for n in range(3)]
    assert summary_rows(counted_ones, ["objects_1"], ["a"])[0]["evaluations"] == 41
    assert (
        summary_rows(lines("plain", networks.U_NET, 0.5, 1), ["objects_1"], ["plain, U-Net"])[0]["evaluations"] is None
    )


def test_it_says_how_to_make_the_transformer(monkeypatch, tmp_path):
    monkeypatch.setattr(networks, "TRANSFORMER_FILE", tmp_path / "none.safetensors")
    with pytest.raises(SetupProblem, match="train transformer transformer_export"):
        networks.evaluate(None, None, None, layouts=1, tuning=False, keep=lambda *_: None)


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    shown = torch.tensor([[0.9, 0.5], [0.5, 0.1]])
    inside = torch.tensor([[True, True], [False, False]])
    assert area_under_curve(shown, inside) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert area_under_curve(-shown, inside) == pytest.approx(0.5 / 4)
