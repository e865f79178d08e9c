"""The evaluation's graphs on a real server, and the whole command on a few layouts."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from stagecraft.commands.comfy_server import ComfyServer
from stagecraft.commands.environment import current_environment
from stagecraft.evaluation import cli, methods
from stagecraft.evaluation.painting import write_masks
from stagecraft.evaluation.sets import CANVAS, TUNING_SET, load_set
from stagecraft.evaluation.tables import ROW_KEYS
from stagecraft.evaluation.yardsticks import ROOT


@pytest.fixture(scope="module")
def server():
    with ComfyServer(current_environment(), ROOT) as running:
        yield running


def overlapping(kind: str):
    return next(item for item in load_set("objects_3") if item.tags == (kind, "overlapping"))


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_stock_masks_are_the_layouts_visible_masks(server, tmp_path, kind):
    """The baseline gets the same partition in painter's order as our own node."""
    item = overlapping(kind)
    names = [server.upload(path) for path in write_masks(item, tmp_path)] if kind == "masks" else []
    graph = methods.set_mask(item.layout, item.seed, 1, names)
    del graph[methods.PICTURES]  # only the masks are looked at here, so no model is needed
    shown = {}
    for node_id, node in list(graph.items()):
        if node["class_type"] == "ConditioningSetMask":
            text = graph[node["inputs"]["conditioning"][0]]["inputs"]["text"]
            graph[f"grey {node_id}"] = {"class_type": "MaskToImage", "inputs": {"mask": node["inputs"]["mask"]}}
            graph[f"show {node_id}"] = {"class_type": "PreviewImage", "inputs": {"images": [f"grey {node_id}", 0]}}
            shown[text] = f"show {node_id}"

    result = server.run(graph)
    texts = [item.layout.background, *(region.phrase for region in item.layout.sorted_regions())]
    assert set(shown) == set(texts)
    for text, expected in zip(texts, item.layout.visible_masks(CANVAS, CANVAS), strict=True):
        found = np.asarray(Image.open(io.BytesIO(result.images[shown[text]][0])).convert("L")) / 255
        assert np.abs(found - expected.numpy()).max() < 0.02, text


@pytest.mark.parametrize("name", list(methods.METHODS))
def test_methods_differ_in_nothing_but_the_method(name):
    item = overlapping("boxes")
    graph = methods.METHODS[name](item.layout, item.seed, 3, ())
    nodes = {node["class_type"]: node["inputs"] for node in graph.values()}
    assert nodes["CheckpointLoaderSimple"] == {"ckpt_name": methods.CHECKPOINT}
    assert nodes["EmptyLatentImage"] == {"width": CANVAS, "height": CANVAS, "batch_size": 3}
    settings = {key: value for key, value in nodes["KSampler"].items() if not isinstance(value, list)}
    assert settings == {
        "seed": item.seed, "steps": methods.STEPS, "cfg": methods.CFG, "sampler_name": "euler", "scheduler": "normal",
        "denoise": 1.0,
    }  # fmt: skip
    links = [value[0] for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert set(links) | {methods.PICTURES} == set(graph)  # every node is there and none is left over


def test_the_whole_command(tmp_path, capsys):
    """Every method on one layout with the shipped models: rows, table, pictures."""
    file, folder = tmp_path / "results.json", tmp_path / "pictures"
    chosen = [*methods.METHODS, cli.PERFECT]
    size = ["--tuning", "--layouts", "1", "--seeds", "2"]
    assert cli.main([*chosen, *size, "--json", str(file), "--pictures", str(folder)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert all(tuple(row) == ROW_KEYS for row in rows)
    whole = {(row["set"], row["method"]): row for row in rows if "/" not in row["set"]}
    assert set(whole) == {(TUNING_SET, method) for method in chosen}
    for (_, method), row in whole.items():
        painted = method != cli.PERFECT
        assert row["pictures"] == (2 if painted else 1)
        assert (row["seconds"] is None) != painted
        assert row["clip"] is not None
    assert len(list(folder.glob("*.png"))) == 2 * len(methods.METHODS) + 1
    text = capsys.readouterr().out
    assert all(re.search(rf"\| {method} +\| {TUNING_SET} ", text) for method in chosen)
