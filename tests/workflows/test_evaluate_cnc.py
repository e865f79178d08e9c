"""Compose and Conquer on a real server: the evaluation's graphs, the whole command, and what its workflows show."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from stagecraft.commands.environment import CLONE
from stagecraft.commands.workflow import to_api
from stagecraft.core.compose_and_conquer.files import read_fusers
from stagecraft.core.layout.reading import parse_layout
from stagecraft.evaluation import cli
from stagecraft.evaluation.compose_and_conquer import hidden as cnc_hidden
from stagecraft.evaluation.compose_and_conquer import looks as cnc_looks
from stagecraft.evaluation.compose_and_conquer import order as cnc_order
from stagecraft.evaluation.compose_and_conquer.graphs import CnC
from stagecraft.evaluation.compose_and_conquer.painter import CNC
from stagecraft.evaluation.compose_and_conquer.scores import judge_order
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.pages.tables import ROW_KEYS
from stagecraft.evaluation.painter import Painter
from stagecraft.evaluation.records.pictures import read_lines
from stagecraft.evaluation.sets.hidden_pairs import load_hidden
from stagecraft.evaluation.sets.pairs import PAIRS_TUNING, load_looks, load_pairs
from stagecraft.sticker_world.compose_and_conquer.train import LOCAL_PREFIX
from stagecraft.sticker_world.shipped import CNC_FILE


def asked():
    pair, looks = load_pairs(PAIRS_TUNING)[0], load_looks()[0]
    yield CnC(), cnc_order.asked_order(pair, 0, single=False)
    yield CnC(), cnc_order.asked_order(pair, 0, single=True)
    for method in cnc_order.with_names(CnC()).values():
        yield method, cnc_order.asked_order(pair, 0, single=False)
    for where in cnc_hidden.SETS:
        for single in (True, False):
            yield CnC(), cnc_hidden.asked_hidden(load_hidden()[0], where, single=single)
    yield CnC(soft=False), cnc_looks.asked_looks(looks, cnc_looks.NAMED)
    yield CnC(), cnc_looks.asked_whole(looks)


def test_every_input_of_a_graph_is_known(server, object_info):
    """ComfyUI ignores an input that a node does not have, so a wrong name would change nothing."""
    painter = Painter(server)
    for method, what in asked():
        for node in method.graph(painter, what).values():
            inputs = object_info[node["class_type"]]["input"]
            declared = inputs.get("required", {}) | inputs.get("optional", {})
            assert node["inputs"].keys() <= declared.keys(), node["class_type"]
            assert inputs.get("required", {}).keys() <= node["inputs"].keys(), node["class_type"]


def test_the_whole_command(tmp_path, capsys):
    """With weights for the control: here those of the shipped local fuser, which takes one map as well as two."""
    control = tmp_path / "control.safetensors"
    local = read_fusers(CNC_FILE).local
    save_file({f"{LOCAL_PREFIX}{name}": value.float().contiguous() for name, value in local.items()}, control)
    file, folder = tmp_path / "cnc.json", tmp_path / "pictures"
    command = [CNC, "--layouts", "1", "--single", str(control), "--json", str(file), "--pictures", str(folder)]
    assert cli.main(command) == 0
    results = json.loads(file.read_text())
    assert all(tuple(row)[: len(ROW_KEYS)] == ROW_KEYS and "intervals" in row for row in results["rows"])
    found = {(row["set"], row["method"]): row for row in results["rows"]}
    for set_name in (
        cnc_order.SET,
        *cnc_hidden.SETS.values(),
        "cnc_reconstruction",
        cnc_looks.NAMED,
        cnc_looks.UNNAMED,
    ):
        assert found[set_name, CNC]["seconds"] > 0
    for set_name in (cnc_order.SET, *cnc_hidden.SETS.values(), "cnc_reconstruction"):
        assert found[set_name, cnc_order.SINGLE]["seconds"] > 0
    assert found[cnc_order.SET, cnc_order.PERFECT]["pictures"] == 2
    assert all(isinstance(measure["value"], float | None) for measure in results["measures"])
    assert len(list(folder.glob(f"{cnc_order.SET}_*_{CNC}.png"))) == 2
    compared = {(row["set"], row["against"]) for row in results["comparisons"] if row["method"] == CNC}
    assert {(cnc_hidden.SETS["aside"], "cnc_single"), (cnc_order.SET, "plain")} <= compared
    assert {"fusers", "single", "segmenter", "CLIP"} <= results["provenance"][0]["weights"].keys()
    assert "depth order: cnc" in capsys.readouterr().out
    _, lines, _ = read_lines(file.with_suffix(".jsonl"))
    assert len(lines) == len({line.key for line in lines}) == 12 + 12 + 4 + 6 + 2


@pytest.fixture(scope="module")
def depth_pictures(server, object_info):
    """What cnc_depth.json saves, and the layout with the dog in front."""
    workflow = json.loads((CLONE / "workflows" / "cnc_depth.json").read_text(encoding="utf-8"))
    prompt = to_api(workflow, object_info)
    result = server.run(prompt)
    text = next(node["inputs"]["layout"] for node in prompt.values() if node["class_type"] == "StageLayout")
    saved = {}
    for node_id, pictures in result.images.items():
        if prompt[node_id]["class_type"] == "SaveImage":
            name = prompt[node_id]["inputs"]["filename_prefix"].rsplit("_", 1)[1]
            saved[name] = np.asarray(Image.open(io.BytesIO(pictures[0])).convert("RGB"))
    return saved, parse_layout(text, width=256, height=256)


def test_the_depth_workflow_shows_either_in_front(depth_pictures):
    saved, layout = depth_pictures
    yardsticks = Yardsticks.load()
    phrases = [region.phrase.split()[-1] for region in layout.sorted_regions()]
    shapes = dict(zip(phrases, layout.masks(256, 256).numpy() >= 0.5, strict=True))
    for near, far in (("dog", "house"), ("house", "dog")):
        classes = (yardsticks.segmenter.class_of(near), yardsticks.segmenter.class_of(far))
        assert judge_order(yardsticks.labels(saved[near]), shapes[near], shapes[far], classes).asked, near
