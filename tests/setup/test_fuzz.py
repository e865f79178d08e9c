"""The parts of `stage.py fuzz` that need no server: graphs follow from a seed, and what a result means."""

import importlib.util
import json
import subprocess
import sys
import traceback
from random import Random

import pytest
from stagecraft.commands.comfy_api import PromptFailed, PromptRejected, Result
from stagecraft.commands.environment import CLONE
from stagecraft.commands.fuzz import outcomes
from stagecraft.commands.fuzz.graphs import random_graph, without_target
from stagecraft.commands.fuzz.outcomes import CLEAR, FINISHED, FOREIGN, RAW, REFUSED, Outcome, is_link
from stagecraft.commands.fuzz.process import Usage, growth_of_batches, growth_of_soak
from stagecraft.commands.fuzz.report import Prompt, Report
from stagecraft.commands.fuzz.values import BOUNDARY, VALID, WRONG, described, value_of

STRENGTH = ["FLOAT", {"default": 0.6, "min": -10.0, "max": 10.0}]
# As the server's /object_info says it; LoadImage is in the older form of combos.
INFO = {
    "StageLayout": {
        "input": {"required": {"layout": ["STRING", {"default": ""}], "width": ["INT", {"min": 16, "max": 16384}]}},
        "output": ["STAGE_LAYOUT", "STRING"],
    },
    "StageLayeredRendering": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "layout": ["STAGE_LAYOUT"],
                "positive": ["CONDITIONING"],
                "negative": ["CONDITIONING"],
                "strength": STRENGTH,
                "mode": ["COMBO", {"options": ["a", "b"]}],
            },
            "optional": {"crop": ["BOOLEAN", {"default": False}], "image": ["IMAGE,MASK", {}]},
        },
        "output": ["MODEL", "CONDITIONING", "CONDITIONING"],
    },
    "StageLayoutPreview": {
        "input": {"required": {"layout": ["STAGE_LAYOUT"]}},
        "output": ["IMAGE"],
        "output_node": True,
    },
    "CheckpointLoaderSimple": {
        "input": {"required": {"ckpt_name": [["a.safetensors"], {}]}},
        "output": ["MODEL", "CLIP", "VAE"],
    },
    "CLIPTextEncode": {
        "input": {"required": {"clip": ["CLIP"], "text": ["STRING", {}]}},
        "output": ["CONDITIONING"],
    },
    "EmptyLatentImage": {
        "input": {"required": {"width": ["INT", {}], "height": ["INT", {}], "batch_size": ["INT", {}]}},
        "output": ["LATENT"],
    },
}
NODES = described(INFO)
OTHER_PROCESS = """
import json, runpy, sys
from pathlib import Path
runpy.run_path(str(Path(sys.argv[1]) / "commands" / "launcher.py"))
from stagecraft.commands.fuzz.graphs import random_graph
from stagecraft.commands.fuzz.values import described
nodes = described(json.loads(sys.stdin.read()))
print(json.dumps([random_graph(nodes, 5, number).graph for number in range(30)]))
"""


def test_a_graph_follows_from_seed_and_number_in_every_process():
    here = [random_graph(NODES, 5, number).graph for number in range(30)]
    assert len({json.dumps(graph) for graph in here}) > 25
    assert here != [random_graph(NODES, 6, number).graph for number in range(30)]
    # The server lists its nodes in the order of its folders, which differs between machines.
    turned = json.dumps(dict(reversed(INFO.items())))
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", OTHER_PROCESS, str(CLONE)],
            env={"PYTHONHASHSEED": hashes},
            input=turned,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.strip() == json.dumps(here), done.stderr


def test_every_node_of_the_pack_is_a_target_once_in_a_round():
    ours = [name for name in NODES if name.startswith("Stage")]
    for start in (0, 3, 6):
        assert sorted(random_graph(NODES, 1, number).target for number in range(start, start + 3)) == sorted(ours)


@pytest.mark.parametrize("number", range(40))
def test_links_lead_back_and_fit(number):
    graph = random_graph(NODES, 2, number).graph
    for position, node in enumerate(graph.values()):
        known = (
            {each.name: each.kinds for each in NODES[node["class_type"]].inputs} if node["class_type"] in NODES else {}
        )
        for name, value in node["inputs"].items():
            if not is_link(value):
                continue
            assert list(graph).index(value[0]) < position
            source = graph[value[0]]["class_type"]
            if name in known and source in NODES:
                assert NODES[source].outputs[value[1]] in known[name]
    assert any(node["class_type"] in ("FuzzProbe", "StageLayoutPreview") for node in graph.values())


def test_values_of_a_mood():
    about = {each.name: each for each in NODES["StageLayeredRendering"].inputs}
    random = Random(0)
    for name, good in {"strength": lambda v: -10 <= v <= 10, "mode": lambda v: v in ("a", "b")}.items():
        for mood in (VALID, BOUNDARY):
            drawn = [value_of(random, "StageLayeredRendering", about[name], mood) for _ in range(50)]
            assert all(map(good, drawn)) and len(set(drawn)) > 1
    edges = {value_of(random, "StageLayeredRendering", about["strength"], BOUNDARY) for _ in range(50)}
    assert {-10.0, 10.0} <= edges
    wrong = [value_of(random, "StageLayeredRendering", about["mode"], WRONG) for _ in range(50)]
    assert not {"a", "b"} & set(wrong)


def test_a_twin_without_the_target_takes_what_the_target_was_given():
    made = next(
        made for made in (random_graph(NODES, 3, n, VALID) for n in range(9)) if made.target == "StageLayeredRendering"
    )
    given, twin = made.graph[made.target_id]["inputs"], without_target(made)
    sampler = next(each for each in made.graph if made.graph[each]["inputs"].get("model") == [made.target_id, 0])
    assert twin[sampler]["inputs"]["model"] == given["model"]
    assert twin[sampler]["inputs"]["positive"] == given["positive"]
    other = next(made for made in (random_graph(NODES, 3, n) for n in range(3)) if made.target == "StageLayoutPreview")
    assert without_target(other) is None


RAISING = '''
class OursError(ValueError):
    """Ours."""

def ours():
    raise OursError("The mask is empty. Connect another one.")
def plain():
    raise ValueError("The mask is empty. Connect another one.")
def chained():
    try:
        {}["a"]
    except KeyError as error:
        raise ValueError("The mask is empty. Connect another one.") from error
def missing():
    raise FileNotFoundError("There is no file of this name here.")
def key():
    return {}["start_percent"]
def number():
    return int("many")
def meant_key():
    raise KeyError("The mask is empty. Connect another one.")
def short():
    raise ValueError("bad mask")
def assertion():
    assert False, "The mask is empty. Connect another one."
def attribute():
    return None.shape
def deeper():
    import json
    return json.loads("{")
'''
GRAPH = {
    "1": {"class_type": "EmptyLatentImage", "inputs": {"width": 64}},
    "2": {"class_type": "StageSplit", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "KSampler", "inputs": {"latent": ["2", 0]}},
    "4": {"class_type": "FuzzProbe", "inputs": {"value": ["3", 0]}},
    "5": {"class_type": "FuzzProbe", "inputs": {"value": ["1", 0]}},
}


@pytest.fixture
def failure(tmp_path):
    """Runs a function of a file, in the pack or elsewhere, and gives the failure of a node of GRAPH."""

    def fail(name, node_id, folder):
        path = tmp_path / folder / "raising.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RAISING)
        spec = importlib.util.spec_from_file_location("custom_nodes.stagecraft.core.raising", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        try:
            getattr(module, name)()
        except Exception as error:
            kind = type(error)
            full = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            return PromptFailed(str(error), node_id, "", traceback.format_tb(error.__traceback__), full)
        pytest.fail("it raised nothing")

    return fail


IN_PACK, ELSEWHERE = "custom_nodes/stagecraft/core", "comfy"


@pytest.mark.parametrize("name", ["ours", "plain", "chained", "missing"])
def test_a_sentence_that_the_pack_raises_is_clear(failure, name):
    found = outcomes.of_failure(GRAPH, failure(name, "3", IN_PACK))
    assert found.kind == CLEAR
    assert found.where.startswith("core/raising.py ")


@pytest.mark.parametrize("name", ["key", "number", "meant_key", "short", "assertion", "attribute", "deeper"])
def test_whatever_else_comes_out_of_the_pack_is_raw(failure, name):
    assert outcomes.of_failure(GRAPH, failure(name, "2", IN_PACK)).kind == RAW


def test_an_error_of_comfyui_is_raw_below_the_pack_and_foreign_elsewhere(failure):
    assert outcomes.of_failure(GRAPH, failure("plain", "3", ELSEWHERE)).kind == RAW
    assert outcomes.of_failure(GRAPH, failure("plain", "1", ELSEWHERE)).kind == FOREIGN
    assert outcomes.of_failure(GRAPH, PromptFailed("there was no result after 240 s")).kind == RAW


def rejection(kind, node_id, **extra):
    errors = [{"type": kind, "message": "m", "details": "d", "extra_info": extra}]
    return PromptRejected("no", {node_id: {"class_type": GRAPH[node_id]["class_type"], "errors": errors}})


def test_a_refusal_is_none_of_these_but_an_exception_within_a_validation_is():
    assert outcomes.of_rejection(GRAPH, rejection("value_smaller_than_min", "2")).kind == REFUSED
    for kind in ("exception_during_validation", "exception_during_inner_validation"):
        raised = {"exception_type": "TypeError", "traceback": []}
        assert outcomes.of_rejection(GRAPH, rejection(kind, "3", **raised)).kind == RAW
        assert outcomes.of_rejection(GRAPH, rejection(kind, "1", **raised)).kind == FOREIGN
    assert outcomes.of_rejection(GRAPH, PromptRejected("ComfyUI answered 500 to the prompt")).kind == RAW


def seen(node_id, *finite):
    texts = [json.dumps({"finite": each, "tensors": 1, "shapes": [[1, 2]], "digest": "d"}) for each in finite]
    return Result({}, {node_id: {"text": texts}}, 0.1)


def test_an_output_that_is_not_finite_is_raw_below_the_pack():
    assert outcomes.of_result(GRAPH, seen("4", True, True), "").kind == FINISHED
    assert outcomes.of_result(GRAPH, seen("4", True, False), "").kind == RAW
    assert outcomes.of_result(GRAPH, seen("5", False), "").kind == FOREIGN


def test_a_traceback_in_the_log_of_a_finished_run_is_raw():
    log = "got prompt\nTraceback (most recent call last):\n  File x\nKeyError: 'a'\nPrompt executed"
    assert outcomes.of_result(GRAPH, seen("4", True), log).kind == RAW


def usages(*megabytes, handles=10):
    return [Usage(each, handles, 5) for each in megabytes]


def test_growth_is_told_from_what_an_allocator_keeps():
    assert not growth_of_batches(usages(900, 1200, 1300, 1310, 1290, 1400, 1350))
    assert "memory grew" in growth_of_batches(usages(900, 1200, 1300, 1500, 1700, 1900, 2300))
    assert "handles" in growth_of_batches(usages(900, 900, 900, 900, 900) + usages(900, handles=90))
    flat, rising = [1000 + n % 7 for n in range(300)], [1000 + n for n in range(300)]
    assert not growth_of_soak(usages(*flat))[1] and abs(growth_of_soak(usages(*flat))[0]) < 0.01
    assert "memory" in growth_of_soak(usages(*rising))[1]
    # What is loaded in the first fifty runs is no growth, and of too few runs nothing can be said.
    assert not growth_of_soak(usages(*[500 + 10 * n for n in range(50)], *[1000] * 100))[1]
    assert growth_of_soak(usages(*rising[:109])) == (0.0, "")


def test_a_raw_error_fails_and_its_graph_can_be_replayed(tmp_path):
    report = Report(7, tmp_path / "fuzz")
    graph = {"1": {"class_type": "StageLayout", "inputs": {"width": float("nan"), "layout": "\ud800"}}}
    report.add(Prompt(0, "StageLayout", WRONG, Outcome(CLEAR, message="a sentence"), 0.1), graph)
    assert not report.failures and not report.folder.exists()
    report.add(Prompt(3, "StageLayout", WRONG, Outcome(RAW, "StageLayout", "KeyError", "\ud800"), 0.1), graph)
    (path,) = report.folder.iterdir()
    again = json.loads(path.read_text(encoding="utf-8"))
    assert again["1"]["inputs"]["layout"] == "\ud800" and str(again["1"]["inputs"]["width"]) == "nan"
    text = "\n".join(report.lines())
    assert "number 3 (StageLayout): raw error" in text and str(path) in text
    text.encode("utf-8")
    report.write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["counts"][RAW] == 1
