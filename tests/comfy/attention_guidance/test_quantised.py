"""Gradients where newer ComfyUI keeps weights in parts and turns queries and keys by kernels of its own."""

import comfy.ops
import comfy.quant_ops
import pytest
import torch
from stagecraft.core.attention_guidance.comfy.differentiable_pass import training_paths
from stagecraft.core.attention_guidance.comfy.kitchen_gradients import differentiate_rope
from stagecraft.core.weights.differentiable import GradientSession
from stagecraft.tests.comfy.attention_guidance.test_gradients import (
    assert_exact,
    build,
    gradient,
    likeness,
    reference,
    snapshot,
)

KINDS = comfy.quant_ops.QUANT_ALGOS
KITCHEN = getattr(comfy.quant_ops, "ck", None)
IS_FUSED = hasattr(comfy.ops, "QuantLinearFunc")  # the layer has a derivative of its own


def quantise(layer, weight, kind, input_scale=None):
    """Store a weight in a layer as ComfyUI's loaders do; gives what it stands for."""
    layout = KINDS[kind]["comfy_tensor_layout"]
    how = {"scale": "recalculate"} if IS_FUSED else {"scale": None, "dtype": KINDS[kind]["storage_t"]}
    weight = comfy.quant_ops.QuantizedTensor.from_float(weight, layout, **how)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.layout_type, layer.quant_format = layout, kind
    if input_scale is not None:
        layer.input_scale = torch.nn.Parameter(torch.tensor(input_scale), requires_grad=False)
    return layer.weight.dequantize()


@pytest.mark.parametrize("input_scale", [None, 0.01])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layers_gradient_is_that_of_the_weight_it_stands_for(kind, input_scale):
    with torch.inference_mode():
        layer = comfy.ops.mixed_precision_ops({}, torch.float32).Linear(64, 32, device="cpu")
        torch.nn.init.zeros_(layer.bias)
        meant = quantise(
            layer, 0.1 * torch.randn(32, 64, generator=torch.Generator().manual_seed(0)), kind, input_scale
        )
        before, own = snapshot(layer), layer.weight
    x, weights = (torch.randn(2, 5, n, generator=torch.Generator().manual_seed(n)) for n in (64, 32))
    x.requires_grad_()
    session = GradientSession(layer)
    for _ in range(2):
        with training_paths(layer), session, torch.inference_mode(False), torch.enable_grad():
            assert type(layer.weight) is type(own) and layer.weight.data_ptr() == own.data_ptr()
            (found,) = torch.autograd.grad((layer(x) * weights).sum(), x)
        assert snapshot(layer) == before and layer.weight is own
    torch.testing.assert_close(found, weights @ meant.clone())


@pytest.mark.parametrize("full_precision", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_network_of_fp8_weights(clip, full_precision, checkpointing):
    rounded, count = build(), 0
    with torch.inference_mode():
        patcher = build(operations=comfy.ops.mixed_precision_ops({}, torch.float32, full_precision))
        for name, part in patcher.model.named_modules():
            plain = rounded.model.get_submodule(name)
            for key, weight in plain._parameters.items():
                part._parameters[key] = None if weight is None else torch.nn.Parameter(weight.clone(), False)
            if ".attn" in name and isinstance(plain, torch.nn.Linear):
                plain.weight.data.copy_(quantise(part, plain.weight.detach(), "float8_e4m3fn"))
                count += 1
        before = snapshot(patcher.model)
        found = gradient(patcher, clip, checkpointing=checkpointing)
        assert count and snapshot(patcher.model) == before
    found = [each.clone() for each in found]
    if full_precision:
        assert_exact(found, clip, rounded.model.diffusion_model)
    else:  # where the layer rounds its inputs too
        assert likeness(found[1], reference(rounded.model.diffusion_model, clip)[1]) > 0.95


@pytest.mark.skipif(KITCHEN is None, reason="this ComfyUI has no comfy-kitchen")
@pytest.mark.parametrize("half", ["", "_split_half"])
def test_rotary_positions_have_the_derivative_of_a_rotation(half):
    assert differentiate_rope() == differentiate_rope()
    generator = torch.Generator().manual_seed(0)
    angles = torch.randn(1, 1, 5, 4, generator=generator)
    turns = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], -1).unflatten(-1, (2, 2))
    q, k, g, h = (torch.randn(2, 3, 5, 8, generator=generator) for _ in range(4))
    q.requires_grad_(), k.requires_grad_()

    def plain(x):
        pairs = x.unflatten(-1, (2, 4)).transpose(-1, -2) if half else x.unflatten(-1, (4, 2))
        turned = (turns @ pairs[..., None])[..., 0]
        return (turned.transpose(-1, -2) if half else turned).flatten(-2)

    expected = torch.autograd.grad((plain(q) * g).sum() + (plain(k) * h).sum(), (q, k))
    both, one = getattr(KITCHEN, f"apply_rope{half}"), getattr(KITCHEN, f"apply_rope{half}1")
    turned = both(q, k, turns)
    torch.testing.assert_close(turned[0], plain(q))
    torch.testing.assert_close(torch.autograd.grad((turned[0] * g).sum() + (turned[1] * h).sum(), (q, k)), expected)
    torch.testing.assert_close(torch.autograd.grad((both(q, k.detach(), turns)[0] * g).sum(), q), expected[:1])
    torch.testing.assert_close(torch.autograd.grad((one(q, turns) * g).sum(), q), expected[:1])
