"""Evaluations of our own on models whose runs other nodes shorten: by caches of steps, and by compiling."""

import comfy.patcher_extension
import pytest
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from stagecraft.core.attention.comfy.shortcuts import SHORTCUTS, without_shortcuts
from stagecraft.tests.comfy.attention_guidance.test_transformer_gradients import Guided
from stagecraft.tests.comfy.transformers import small

pytestmark = pytest.mark.usefixtures("no_gradients")
KINDS = vars(comfy.patcher_extension.WrappersMP)


def must_not_run(*_, **__):
    raise AssertionError("a pass of ours was compiled")


def options_of(patcher):
    """What a run makes of a model's own wrappers."""
    return {"transformer_options": {"wrappers": {kind: dict(keys) for kind, keys in patcher.wrappers.items()}}}


def test_only_the_shortcuts_are_left_out():
    kinds = [value for name, value in KINDS.items() if name.isupper()]
    wrappers = {kind: {key: [len] for key in (*SHORTCUTS, "another", None)} for kind in kinds}
    given = {"transformer_options": {"wrappers": wrappers, "patches": {}}, "other": 1}
    kept = without_shortcuts(given)
    assert all(list(each) == ["another", None] for each in kept["transformer_options"]["wrappers"].values())
    assert kept["other"] == 1 and len(wrappers[kinds[0]]) == len(SHORTCUTS) + 2, "the run's own stay as they are"


@pytest.mark.parametrize("node", [EasyCacheNode, LazyCacheNode])
def test_caches_of_steps_neither_skip_nor_learn(node):
    guided = Guided(small("Flux"))
    expected = guided()
    cached = node.execute(guided.patcher, 0.2, 0.0, 1.0, False).args[0]
    options = options_of(cached)
    assert any(key in SHORTCUTS for keys in cached.wrappers.values() for key in keys)
    before = {
        key: vars(each).copy() for key, each in cached.model_options["transformer_options"].items() if key in SHORTCUTS
    }
    options["transformer_options"] |= cached.model_options["transformer_options"]
    for _ in range(2):
        found = guided(options)
        assert all(torch.equal(ours, plain) for ours, plain in zip(found, expected, strict=True))
    after = {key: vars(cached.model_options["transformer_options"][key]) for key in before}
    assert before and before == after


def test_a_model_that_is_compiled_as_a_whole():
    guided = Guided(small("Qwen-Image"))
    expected = guided()
    compiled = guided.patcher.clone()
    set_torch_compile_wrapper(compiled, backend=must_not_run)
    found = guided(options_of(compiled))
    assert all(torch.equal(ours, plain) for ours, plain in zip(found, expected, strict=True))


def test_blocks_that_are_compiled_one_by_one():
    guided = Guided(small("Qwen-Image"))
    expected = guided()
    blocks = guided.model.diffusion_model.transformer_blocks
    blocks[0] = torch.compile(blocks[0], backend=must_not_run)
    blocks[1].forward = torch.compile(blocks[1].forward, backend=must_not_run)
    found = guided()
    assert all(torch.equal(ours, plain) for ours, plain in zip(found, expected, strict=True))
