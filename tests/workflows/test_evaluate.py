"""The evaluation's graphs on a real server, and the whole command on a few layouts."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from stagecraft.evaluation import cli, sweeps
from stagecraft.evaluation.graphs import builder, methods
from stagecraft.evaluation.graphs.counted import COUNTED, counted
from stagecraft.evaluation.graphs.plain import plain_prompt
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.layouts import PAINTED, PAIRS, PERFECT
from stagecraft.evaluation.pages.tables import ROW_KEYS
from stagecraft.evaluation.painter import Painter, evaluation_server, write_masks
from stagecraft.evaluation.records.pictures import PictureRecords
from stagecraft.evaluation.sets.sets import TUNING_SET, load_set
from stagecraft.evaluation.two_networks import evaluate as networks
from stagecraft.sticker_world.world.concepts import CANVAS


@pytest.fixture(scope="module")
def evaluation():
    """A running server of the evaluation."""
    with evaluation_server() as running:
        yield running


def overlapping(kind: str):
    return next(item for item in load_set("objects_3") if item.tags == (kind, "overlapping"))


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_stock_masks_are_the_layouts_visible_masks(evaluation, tmp_path, kind):
    """The baseline gets the same partition in painter's order as our own node."""
    item = overlapping(kind)
    names = [evaluation.upload(path) for path in write_masks(item, tmp_path)] if kind == "masks" else []
    graph = methods.set_mask(item.layout, item.seed, 1, names)
    del graph[builder.PICTURES]  # only the masks are looked at here, so no model is needed
    shown = {}
    for node_id, node in list(graph.items()):
        if node["class_type"] == "ConditioningSetMask":
            text = graph[node["inputs"]["conditioning"][0]]["inputs"]["text"]
            graph[f"grey {node_id}"] = {"class_type": "MaskToImage", "inputs": {"mask": node["inputs"]["mask"]}}
            graph[f"show {node_id}"] = {"class_type": "PreviewImage", "inputs": {"images": [f"grey {node_id}", 0]}}
            shown[text] = f"show {node_id}"

    result = evaluation.run(graph)
    texts = [item.layout.background, *(region.phrase for region in item.layout.sorted_regions())]
    assert set(shown) == set(texts)
    for text, expected in zip(texts, item.layout.visible_masks(CANVAS, CANVAS), strict=True):
        found = np.asarray(Image.open(io.BytesIO(result.images[shown[text]][0])).convert("L")) / 255
        assert np.abs(found - expected.numpy()).max() < 0.02, text


def test_users_do_not_meet_the_baselines(evaluation, object_info):
    """They are nodes of the evaluation's server and of no other."""
    extra = evaluation.object_info().keys() - object_info.keys()
    assert extra == {"EvaluationMultiDiffusion", "EvaluationCount", "EvaluationCounted"}


def test_rows_are_counted_for_every_run_by_itself(evaluation):
    for seed in (1, 2, 2):
        graph = counted(plain_prompt("a dog", seed, 1, steps=3), builder.CHECKPOINT)
        assert evaluation.run(graph).outputs[COUNTED]["text"] == ["6"]  # 3 steps with and without the prompt


METHODS = {**PAINTED, **networks.METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_every_input_of_a_graph_is_known(evaluation, name):
    """ComfyUI ignores an input that a node does not have, so a wrong name would change nothing."""
    item = overlapping("boxes")
    known = evaluation.object_info()
    for node in counted(METHODS[name](item.layout, item.seed, 1, ()), builder.CHECKPOINT).values():
        inputs = known[node["class_type"]]["input"]
        declared = inputs.get("required", {}) | inputs.get("optional", {})
        assert node["inputs"].keys() <= declared.keys(), node["class_type"]
        assert inputs.get("required", {}).keys() <= node["inputs"].keys(), node["class_type"]
        for key, value in node["inputs"].items():
            choices = declared[key][1].get("options") if declared[key][0] == "COMBO" else declared[key][0]
            assert not isinstance(choices, list) or value in choices, (node["class_type"], key)


@pytest.mark.parametrize("name", list(PAINTED))
def test_methods_differ_in_nothing_but_the_method(name):
    item = overlapping("boxes")
    graph = PAINTED[name](item.layout, item.seed, 3, ())
    nodes = {node["class_type"]: node["inputs"] for node in graph.values()}
    assert nodes["CheckpointLoaderSimple"] == {"ckpt_name": builder.CHECKPOINT}
    assert nodes["EmptyLatentImage"] == {"width": CANVAS, "height": CANVAS, "batch_size": 3}
    run = ("KSampler", "CFGGuider", "BasicScheduler", "KSamplerSelect")  # the last three: with noise of its own
    settings = {key: value for name in run for key, value in nodes.get(name, {}).items() if not isinstance(value, list)}
    settings.setdefault("seed", nodes.get("StageSpatialLatent", {}).get("seed"))
    assert settings == {
        "seed": item.seed,
        "steps": builder.STEPS,
        "cfg": builder.CFG,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    links = [value[0] for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert set(links) | {builder.PICTURES} == set(graph)  # every node is there and none is left over


# Of the network for a picture of one thing in 20 steps with CFG: two prompts and one negative prompt; two of both, and
# one of both in the steps after end_at; the same, and one evaluation of the caption for the dynamic vector.
ROWS = {"plain": 40, "set_mask": 60, "multidiffusion": 4 * 18 + 2 * 2, "lrdiff": 4 * 14 + 2 * 6 + 1}


def test_the_whole_command(tmp_path, capsys):
    """Every method on one layout with the shipped models: rows, table, pictures."""
    file, folder = tmp_path / "results.json", tmp_path / "pictures"
    chosen = [*methods.METHODS, PERFECT]
    size = ["--tuning", "--layouts", "1", "--seeds", "2"]
    assert cli.main([*chosen, *size, "--json", str(file), "--pictures", str(folder)]) == 0
    written = json.loads(file.read_text())
    rows = written["rows"]
    assert all(tuple(row) == (*ROW_KEYS, "evaluations", "intervals") for row in rows)
    whole = {(row["set"], row["method"]): row for row in rows if "/" not in row["set"]}
    assert set(whole) == {(TUNING_SET, method) for method in chosen}
    for (_, method), row in whole.items():
        painted = method != PERFECT
        assert row["evaluations"] == (ROWS[method] if painted else None)
        assert row["pictures"] == (2 if painted else 1)
        assert (row["seconds"] is None) != painted
        assert row["clip"] is not None
    assert len(list(folder.glob("*.png"))) == 2 * len(methods.METHODS) + 1
    text = capsys.readouterr().out
    assert all(re.search(rf"\| {method} +\| {TUNING_SET} ", text) for method in chosen)
    assert {(row["method"], row["against"]) for row in written["comparisons"]} <= set(PAIRS)

    # Stopped while the last picture's line was written, it paints what that line was of, and nothing else.
    lines, pictures = file.with_suffix(".jsonl"), tmp_path / "again"
    *before, last, _ = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join(before) + last[:40])
    assert cli.main([*chosen, *size, "--json", str(file), "--pictures", str(pictures)]) == 0
    again = json.loads(file.read_text())
    timeless = [{key: value for key, value in row.items() if key not in ("seconds", "intervals")} for row in rows]
    assert [{key: row[key] for key in timeless[0]} for row in again["rows"]] == timeless
    assert again["provenance"] == written["provenance"]
    assert {path.name.split("_", 3)[-1] for path in pictures.glob("*.png")} == {"lrdiff.png", "perfect.png"}


def test_a_sweep_paints_with_its_values_and_goes_on_where_it_stopped(evaluation, tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "SWEEPS", {"end_at": sweeps.Sweep((0.0, 0.5), ("lrdiff",))})
    painter, file, records = Painter(evaluation), tmp_path / "sweeps.json", PictureRecords(tmp_path / "s.jsonl", {})
    size = {"layouts": 2, "seeds": 1, "path": file}
    found = sweeps.run(painter, Yardsticks.load(), ["end_at"], records, **size)
    rows = found["rows"]
    assert [row["value"] for row in rows] == [0.0, 0.5]
    assert all(tuple(row) == (*sweeps.KEY, *sweeps.SCORES, sweeps.INTERVALS) and row["pictures"] == 2 for row in rows)
    assert rows[0] | {"value": 0.5} != rows[1]  # 0 is the plain prompt
    assert json.loads(file.read_text()) == {"provenance": [{}], "rows": rows}
    again = PictureRecords(tmp_path / "s.jsonl", {})
    assert (
        sweeps.run(None, Yardsticks.load(), ["end_at"], again, **size) == found
    )  # without a painter nothing is painted
