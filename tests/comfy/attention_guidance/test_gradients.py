"""Exact gradients in every way that ComfyUI keeps weights, without a copy of a weight, and nothing left behind."""

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sampler_helpers
import comfy.samplers
import pytest
import torch
from stagecraft.core.attention.recorder import AttentionRecorder
from stagecraft.core.attention.sites import MIDDLE_AND_FIRST_UP
from stagecraft.core.attention_guidance.comfy.gradients import AttentionGradient
from stagecraft.core.attention_guidance.energies import in_box_share
from stagecraft.core.attention_guidance.target import Target
from stagecraft.core.clip.comfy.words import phrase_positions
from stagecraft.core.weights.differentiable import GradientSession, NotDifferentiableError, differentiable, normal_copy
from stagecraft.evaluation.baselines.slow_guidance import SlowGuidance, SlowThing
from stagecraft.tests.comfy.families import fill

from ..conftest import UNET, SmallSD

PROMPT, BOX = "a dog on a green meadow", (0.0, 0.0, 0.5, 0.5)
SIGMA = 5.0
TO_Q = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_q.weight"


def build(dtype=torch.float32, manual_cast=None, operations=None):
    """The small U-Net with weights stored as `dtype` and evaluated as `manual_cast`."""
    config = SmallSD({**UNET, "out_channels": 4, "transformer_depth_output": [1, 1, 0, 0], "dtype": dtype})
    config.set_inference_dtype(dtype, manual_cast)
    config.custom_operations = operations
    model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS, device="cpu")
    fill(model.diffusion_model, 1)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def noisy():
    return SIGMA * torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def embed(clip):
    return clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT))


def gradient(patcher, clip, *, checkpointing=False, count=1, options=None):
    """Chen's energy and its gradient, as a node computes them."""
    positions = phrase_positions(clip, PROMPT, "a dog")
    mask = torch.zeros(16, 16)
    mask[:8, :8] = 1
    target = Target(tuple(range(len(positions))), mask)
    x, sigma = noisy(), torch.full((1,), SIGMA)
    patcher.pre_run()
    try:
        inner = patcher.model
        entries = comfy.sampler_helpers.convert_cond(embed(clip))
        entries = comfy.samplers.encode_model_conds(inner.extra_conds, entries, x, x.device, "positive")
        evaluate = AttentionGradient(
            inner,
            entries,
            lambda _, known: AttentionRecorder(MIDDLE_AND_FIRST_UP, (16, 16), [torch.tensor(positions)], known=known),
            lambda _, maps: in_box_share(maps, [target]),
            checkpointing,
        )
        for _ in range(count):
            found = evaluate(x, sigma, options or patcher.model_options)
        return found
    finally:
        patcher.cleanup()


def reference(network, clip):
    """The same from cloned float32 weights and a full forward pass."""
    things = [SlowThing(phrase_positions(clip, PROMPT, "a dog"), [BOX])]
    slow = SlowGuidance(network, things, embed(clip)[0][0], None, None, None, scale=1.0)
    slow.network.float()
    slow.network.dtype = torch.float32
    timestep = build().get_model_object("model_sampling").timestep(torch.tensor(SIGMA)).float()
    return slow.iteration(noisy(), torch.tensor(SIGMA), timestep)


def likeness(found, expected):
    return torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0).item()


def snapshot(module):
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: (id(each), each.data_ptr(), each.requires_grad, each.is_inference()) for name, each in named}


def assert_exact(found, clip, network):
    loss, slope = reference(network, clip)
    assert found[0].item() == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(found[1], slope, atol=1e-5 * slope.abs().max().item(), rtol=1e-4)
    assert slope.abs().max() > 0


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("inference", [False, True])
def test_gradients_are_exact_in_and_out_of_inference_mode(clip, inference, checkpointing):
    with torch.inference_mode(inference):
        patcher = build()
        before = snapshot(patcher.model)
        # The second evaluation knows its sites and stops behind the last of them.
        found = gradient(patcher, clip, checkpointing=checkpointing, count=2)
        assert snapshot(patcher.model) == before
        assert all(each.is_inference() == inference for each in patcher.model.parameters())
    assert_exact([each.clone() for each in found], clip, build().model.diffusion_model)


def test_low_vram_casts_weights_and_patches_them_on_the_way(clip):
    change = 0.3 * torch.randn(build().model.state_dict()[TO_Q].shape, generator=torch.Generator().manual_seed(1))
    merged = build()
    merged.model.state_dict()[TO_Q].add_(change)
    with torch.inference_mode():
        for patches in ({}, {TO_Q: (change.clone(),)}):
            patcher = build()
            patcher.add_patches(patches, 1.0)
            patcher.load(torch.device("cpu"), lowvram_model_memory=1)
            assert patcher.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_q.comfy_cast_weights
            before = snapshot(patcher.model)
            found = gradient(patcher, clip)
            assert snapshot(patcher.model) == before
            own = merged if patches else build()
            with torch.inference_mode(False):
                assert_exact([each.clone() for each in found], clip, own.model.diffusion_model)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("lowvram", [False, True])
def test_weights_stored_in_another_precision_and_cast(clip, stored, lowvram):
    """Cast up by ComfyUI's layers; compared with the same rounded weights in float32."""
    with torch.inference_mode():
        patcher = build(stored, torch.float32)
        if lowvram:
            patcher.load(torch.device("cpu"), lowvram_model_memory=1)
        found = gradient(patcher, clip)
        assert all(each.dtype == stored for each in patcher.model.diffusion_model.parameters())
    rounded = build()
    for own, other in zip(rounded.model.parameters(), patcher.model.parameters(), strict=True):
        own.data.copy_(other.float())
    assert_exact([each.clone() for each in found], clip, rounded.model.diffusion_model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_throughout(clip, dtype):
    with torch.inference_mode():
        found = gradient(build(dtype), clip)
    _, slope = reference(build().model.diffusion_model, clip)
    assert found[1].dtype == torch.float32 and torch.isfinite(found[1]).all()
    assert likeness(found[1].clone(), slope) > (0.99 if dtype == torch.float16 else 0.9)


def test_what_overflows_in_half_precision_is_enlarged_less(clip, monkeypatch):
    from stagecraft.core.attention_guidance.comfy import gradients

    expected = gradient(build(torch.float16), clip)[1]
    monkeypatch.setattr(gradients, "FIRST_ENLARGEMENT", 2.0**60)
    found = gradient(build(torch.float16), clip)[1]
    assert torch.isfinite(found).all() and likeness(found, expected) > 0.99


def test_fast_fp8_layers_take_their_differentiable_path(clip):
    patcher = build(torch.float8_e4m3fn, torch.float32, comfy.ops.fp8_ops)
    gradient(patcher, clip)
    assert not any(part.training for part in patcher.model.modules() if isinstance(part, comfy.ops.fp8_ops.Linear))


def test_newer_versions_are_told_that_gradients_are_wanted(clip, monkeypatch):
    seen = []

    def look(attend, *args, **kwargs):
        seen.append(comfy.model_management.in_training)
        return attend(*args, **kwargs)

    monkeypatch.setattr(comfy.model_management, "in_training", False, raising=False)
    options = {"transformer_options": {"optimized_attention_override": look}}
    gradient(build(), clip, options=options)
    assert seen and all(seen) and comfy.model_management.in_training is False


@pytest.mark.parametrize("kind", ["int8", "subclass", "meta"])
def test_weights_without_a_gradient_are_named(clip, kind):
    class Quantised(torch.Tensor):
        pass

    patcher = build()
    layer = patcher.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_q
    weight = layer.weight.detach()
    other = {
        "int8": lambda: weight.to(torch.int8),
        "subclass": lambda: weight.as_subclass(Quantised),
        "meta": lambda: weight.to("meta"),
    }[kind]()
    layer._parameters["weight"] = torch.nn.Parameter(other, requires_grad=False)
    before = snapshot(patcher.model)
    with pytest.raises(ValueError, match='needs the model\'s gradient. The weight "weight".*weight_dtype "default"'):
        gradient(patcher, clip)
    assert snapshot(patcher.model) == before


def test_a_session_shares_the_memory_and_ends_however_it_ends():
    with torch.inference_mode():
        module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    before = snapshot(module)
    session = GradientSession(module)
    for _ in range(2):
        with session:
            inside = snapshot(module)
            assert all(inside[name][1:] == (before[name][1], False, False) for name in before)
            with pytest.raises(RuntimeError, match="already entered"), session:
                pass
            with torch.inference_mode(False), torch.enable_grad():
                x = torch.randn(2, 3, requires_grad=True)
                module.eval()(x).sum().backward()
            assert x.grad is not None
        assert snapshot(module) == before
    with pytest.raises(KeyError), session:
        raise KeyError
    assert snapshot(module) == before
    # Weights that were moved in between are exchanged anew.
    with torch.inference_mode():
        module[0].weight.data = module[0].weight.data.clone() + 1
    with session:
        assert module[0].weight.data_ptr() == session.module[0].weight.data_ptr()
        assert torch.equal(module[0].weight, session._own[0][2].detach())
    with differentiable(torch.nn.Linear(2, 2)) as fresh:
        assert not any(each.requires_grad for each in fresh.module.parameters())


def test_a_session_that_cannot_begin_leaves_nothing_behind():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3, device="meta"))
    before = snapshot(module)
    with pytest.raises(NotDifferentiableError, match="has no data"), GradientSession(module):
        pass
    assert snapshot(module) == before and all(each.requires_grad for each in module.parameters())


def test_inputs_are_copied_only_where_they_are_of_inference_mode():
    with torch.inference_mode():
        inner = torch.ones(2)
    normal = torch.ones(2)
    with torch.inference_mode(False):
        copied = normal_copy({"a": [inner, normal, None], "b": (inner,), "c": "text"})
    assert not copied["a"][0].is_inference() and copied["a"][1] is normal and copied["a"][2] is None
    assert not copied["b"][0].is_inference() and copied["c"] == "text"
