"""Runs that have no step in a node's share of the schedule, and prompts that are not connected: said on the node."""

import logging

import comfy.samplers
import pytest
import torch
from comfy_execution.utils import CurrentNodeContext
from stagecraft.core.comfy import progress
from stagecraft.core.compose_and_conquer.comfy.files import CNC, load_cnc
from stagecraft.nodes import NODES
from stagecraft.nodes.api import io
from stagecraft.tests.comfy.attention_guidance.guided import guided
from stagecraft.tests.comfy.compose_and_conquer.small_cnc import compose, write_both
from stagecraft.tests.comfy.layered_rendering.small_runs import APART, TWO, layered, sample
from stagecraft.tests.comfy.model_folder import model_folder

pytestmark = pytest.mark.usefixtures("no_gradients")
NODE_ID = "12:7"  # as within a subgraph
WARNED = "changes nothing in this run"


def in_layers(model, clip, vae, prompts, **mode):
    return layered(model, clip, vae, TWO, prompts, **mode)


def by_attention(model, clip, vae, prompts):
    return guided(model, clip, width=64, height=64, end_at=0.5), prompts


@pytest.fixture
def by_depths(tmp_path):
    write_both(tmp_path / "both.safetensors")
    with model_folder(CNC, tmp_path, first=True):
        cnc = load_cnc("both.safetensors")

    def prepare(model, clip, vae, prompts):
        picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
        prepared = compose(model, *prompts, cnc, foreground=picture, background=picture, end_at=0.5)
        return prepared[0], prepared[1:]

    return prepare


@pytest.fixture(params=["Layered Rendering", "in trajectories", "Attention Guidance", "Depth Compose"])
def node(request):
    """A node's name, and what prepares model and prompts as it does, up to the middle of the run."""
    ways = {
        "Layered Rendering": in_layers,
        "in trajectories": lambda *given: in_layers(*given, **APART),
        "Attention Guidance": by_attention,
    }
    name = request.param
    return name.replace("in trajectories", "Layered Rendering"), ways.get(name) or request.getfixturevalue("by_depths")


@pytest.fixture
def shown(monkeypatch):
    """What is written on which node."""
    found = []
    monkeypatch.setattr(progress, "show_text", lambda node_id, text: found.append((node_id, text)))
    return found


def warnings_of(caplog):
    return [each.message for each in caplog.records if each.levelno >= logging.WARNING and "Stagecraft" in each.message]


def test_a_second_pass_that_changes_nothing_is_said_once_on_the_node(node, model, clip, vae, prompts, shown, caplog):
    name, prepare = node
    with CurrentNodeContext("prompt", NODE_ID, 0):
        made, conds = prepare(model, clip, vae, prompts)
    low = {"steps": 5, "denoise": 0.3}
    assert torch.equal(sample(made, conds, **low), sample(model, prompts, **low))
    assert [each for each, _ in shown] == [NODE_ID]
    assert shown[0][1].startswith(f"{name} {WARNED}")
    assert [text.removeprefix("Stagecraft: ") for text in warnings_of(caplog)] == [shown[0][1]]


def test_a_run_with_a_step_in_the_share_says_nothing(node, model, clip, vae, prompts, shown):
    _, prepare = node
    made, conds = prepare(model, clip, vae, prompts)
    for denoise in (1.0, 0.8):
        assert not torch.equal(
            sample(made, conds, steps=5, denoise=denoise), sample(model, prompts, steps=5, denoise=denoise)
        )
    assert not shown


def test_the_second_half_of_a_split_run_says_nothing(node, model, clip, vae, prompts, shown):
    """The node's share lay in the first half."""
    _, prepare = node
    made, conds = prepare(model, clip, vae, prompts)
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 5)[3:]
    guider = comfy.samplers.CFGGuider(made)
    guider.set_conds(*conds)
    guider.set_cfg(2.0)
    euler = comfy.samplers.sampler_object("euler")
    guider.sample(torch.zeros_like(start), start, euler, sigmas, disable_pbar=True, seed=1)
    assert not shown


@pytest.mark.parametrize("prepare", [in_layers], ids=["Layered Rendering"])
def test_prompts_that_are_not_connected_are_said_on_the_node(prepare, model, clip, vae, prompts, shown, caplog):
    with CurrentNodeContext("prompt", NODE_ID, 0):
        made, _ = prepare(model, clip, vae, prompts)
    assert torch.equal(sample(made, prompts), sample(model, prompts))
    ((node_id, text),) = shown
    assert node_id == NODE_ID
    assert "the prompts do not; sampling without layers" in text
    assert len(warnings_of(caplog)) == 1
    sample(made, prompts)
    assert len(shown) == 2, "each run says it anew, for the text on a node goes with the run"


PATCHERS = [
    node
    for node in NODES
    if any(isinstance(each, io.Model.Output) for each in node.GET_SCHEMA().outputs)
    and any(isinstance(each, io.Model.Input) for each in node.GET_SCHEMA().inputs)
]


@pytest.mark.parametrize("patcher", PATCHERS, ids=lambda node: node.__name__)
def test_a_node_that_changes_a_model_is_never_taken_for_another(patcher):
    """Else ComfyUI gives a node the model of another with the same inputs, whose number its warnings would go to."""
    assert io.Hidden.unique_id in patcher.GET_SCHEMA().hidden
