"""CnC beside ControlNets, LoRAs, layers and attention guidance, and where memory or precision is short."""

from dataclasses import replace

import pytest
import torch
from comfy.cli_args import args
from stagecraft.core.attention_guidance.comfy.guide import guide_attention
from stagecraft.core.attention_guidance.settings import Guidance
from stagecraft.core.compose_and_conquer.comfy.files import load_cnc
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layout.reading import parse_layout
from stagecraft.tests.comfy.compose_and_conquer.small_cnc import (
    CONTEXT,
    LORA,
    SIZE,
    STEPS,
    as_maps,
    assert_same,
    compose,
    half_mask,
    largest_difference,
    looks,
    residuals_of,
    sample,
    seen,
)

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_it_adds_to_another_control_net(model, prompts, cnc, depths, control_net):
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(6))
    given = {"foreground": depths[0], "background": depths[1]}

    def controlled(positive, negative):
        return comfy_nodes.ControlNetApplyAdvanced().apply_controlnet(
            positive, negative, control_net, hint, 0.7, 0.0, 1.0
        )

    orders = (
        compose(model, *controlled(*prompts), cnc, **given),
        (prepared := compose(model, *prompts, cnc, **given))[:1] + tuple(controlled(*prepared[1:])),
    )
    alone = seen((model, *controlled(*prompts)))
    for order in orders:
        call = seen(order)[0]
        own = residuals_of(cnc, call, as_maps(depths))
        assert_same(call[3], [a + b for a, b in zip(alone[0][3], own, strict=True)])


def test_the_old_control_net_node_goes_on_to_reach_the_negative_prompt(model, prompts, cnc, depths, control_net):
    """It marks the positive prompt alone, and ComfyUI hands its ControlNet on only to prompts that have none."""
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(6))
    (positive,) = comfy_nodes.ControlNetApply().apply_controlnet(prompts[0], control_net, hint, 0.7)
    alone = seen((model, positive, prompts[1]))[0]
    call = seen(compose(model, positive, prompts[1], cnc, foreground=depths[0], background=depths[1]))[0]
    assert len(call[0]) == len(alone[0]) == 2
    own = residuals_of(cnc, call, as_maps(depths))
    assert_same(call[3], [a + b for a, b in zip(alone[3], own, strict=True)])


def test_it_stacks_with_a_lora_and_with_itself(make_model, prompts, cnc, depths):
    patched, merged = make_model(), make_model()
    change = 0.3 * torch.randn(merged.model.state_dict()[LORA].shape, generator=torch.Generator().manual_seed(5))
    patched.add_patches({LORA: (change,)}, 1.0)
    merged.model.state_dict()[LORA].add_(change)
    given = {"foreground": depths[0], "background": depths[1], "exemplars": looks(), "mask": half_mask()}
    found, expected = (sample(compose(each, *prompts, cnc, **given)) for each in (patched, merged))
    assert_same(found, expected)
    once = compose(merged, *prompts, cnc, foreground=depths[0])
    call = seen(compose(*once, cnc, background=depths[1]))[0]
    zeros = torch.zeros_like(as_maps(depths)[0])
    parts = [residuals_of(cnc, call, maps) for maps in ((as_maps(depths)[0], zeros), (zeros, as_maps(depths)[1]))]
    assert_same(call[3], [a + b for a, b in zip(*parts, strict=True)])


def test_every_weight_can_stay_behind(folder, depths):
    """Where memory is short ComfyUI leaves weights where they are and casts them when they are used."""
    patcher = load_cnc("both.safetensors").local
    given = (torch.randn(1, 4, *SIZE), torch.tensor([5.0]), torch.randn(1, 77, CONTEXT), *as_maps(depths))
    expected, _ = patcher.model(*given)
    patcher.load(patcher.load_device, lowvram_model_memory=1)
    layers = [part for part in patcher.model.modules() if any(True for _ in part.parameters(recurse=False))]
    assert layers and all(part.comfy_cast_weights for part in layers)
    found, _ = patcher.model(*given)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 0.02), (torch.bfloat16, 0.1)])
def test_half_precision_is_near(model, prompts, cnc, depths, monkeypatch, dtype, bound):
    """Weights that are kept in another type than the sampler's: cast while they are used, or computed in."""
    monkeypatch.setattr(args, "bf16_unet", True)
    half = load_cnc("both.safetensors")
    assert half.dtype == torch.float32 and {p.dtype for p in half.local.model.parameters()} == {torch.bfloat16}
    half = replace(half, dtype=dtype)
    given = {"foreground": depths[0], "background": depths[1], "exemplars": looks(), "mask": half_mask()}
    found, expected = (seen(compose(model, *prompts, each, **given))[0][3] for each in (half, cnc))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype and 0 < largest_difference(one, other) < bound * other.abs().max().item()


def test_it_stacks_with_layers_and_attention_guidance(model, clip, prompts, cnc, depths):
    """Every layer has the maps of the whole canvas, and a guided evaluation sees them too."""
    given = {"foreground": depths[0], "background": depths[1], "exemplars": looks(), "mask": half_mask()}
    prepared = compose(model, *prompts, cnc, **given)
    layout = parse_layout("a dog: 0 0 0.5 1", width=64, height=64, prompt="a dog", background="grass")
    layered = render_in_layers(prepared[0], clip, None, layout, *prepared[1:], Rendering(0.5, 0.0))
    calls = seen(layered)
    assert sum(len(call[0]) for call in calls) > 2 * STEPS and all(call[3] is not None for call in calls)
    assert sample(layered).isfinite().all()
    guided = guide_attention(prepared[0], clip, layout, Guidance(strength=10.0)), *prepared[1:]
    found = sample(guided)
    assert found.isfinite().all() and not torch.allclose(found, sample(prepared), atol=1e-4)
