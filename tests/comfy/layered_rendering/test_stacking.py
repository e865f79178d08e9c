"""Layered rendering beside LoRAs, ControlNets, perturbed attention, itself, and prompts with a place or a share."""

import logging

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.layered_rendering.small_runs import (
    TWO,
    assert_same_picture,
    layered,
    sample,
    slow_run,
    starting_point,
    two_layers,
)

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_with_a_lora(model, clip, vae, prompts):
    generator = torch.Generator().manual_seed(5)
    lora = {}
    for name, weight in model.model.diffusion_model.named_parameters():
        if name.endswith(("attn1.to_q.weight", "attn2.to_v.weight")):
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            lora[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator)
            lora[f"{key}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator)
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 0.5, 0)
    assert len(patched.patches) == len(lora) / 2 > 4
    plain = sample(model, prompts)
    ours, our_prompts = layered(patched, clip, vae, TWO, prompts)
    found = model.model.process_latent_in(sample(ours, our_prompts))
    slow = slow_run(patched, clip, two_layers(model, vae), (64, 64))
    comfy.model_management.load_models_gpu([ours])  # the slow loop reads the patched weights
    expected = slow(starting_point(slow))
    assert_same_picture(found, expected)
    after, after_prompts = layered(model, clip, vae, TWO, prompts)
    without = model.model.process_latent_in(sample(after, after_prompts))
    assert (without - found).abs().max() > 1e-2 * found.std(), "the LoRA changes nothing"
    later, _ = comfy.sd.load_lora_for_models(after, None, lora, 0.5, 0)
    assert torch.equal(model.model.process_latent_in(sample(later, after_prompts)), found)
    assert torch.equal(sample(model, prompts), plain)


@pytest.mark.parametrize("node", ["ControlNetApplyAdvanced", "ControlNetApply"])
def test_with_a_control_net_on_the_given_prompts(model, clip, vae, prompts, control_net, node):
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(6))
    if node == "ControlNetApply":
        controlled = (comfy_nodes.ControlNetApply().apply_controlnet(prompts[0], control_net, hint, 0.8)[0], prompts[1])
    else:
        apply = comfy_nodes.ControlNetApplyAdvanced().apply_controlnet
        controlled = apply(*prompts, control_net, hint, 0.8, 0.0, 1.0)
    ours, our_prompts = layered(model, clip, vae, TWO, controlled)
    found = model.model.process_latent_in(sample(ours, our_prompts))

    def control(x_in, timestep, text):
        residuals = control_net.control_model(x=x_in, hint=hint.movedim(-1, 1), timesteps=timestep, context=text)
        return {key: [value * 0.8 for value in values] for key, values in residuals.items()}

    slow = slow_run(model, clip, two_layers(model, vae), (64, 64), control=control)
    expected = slow(starting_point(slow))
    slow.control = None
    assert (slow(starting_point(slow)) - expected).abs().max() > 1e-2 * expected.std(), "the hint changes nothing"
    assert_same_picture(found, expected)


def test_with_perturbed_attention_guidance_before_or_after(model, clip, vae, prompts):
    (perturbed,) = PerturbedAttentionGuidance.execute(model, 1.5).args
    ours, our_prompts = layered(perturbed, clip, vae, TWO, prompts)
    found = sample(ours, our_prompts)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64), pag=1.5)
    assert_same_picture(model.model.process_latent_in(found), slow(starting_point(slow)))
    before, before_prompts = layered(model, clip, vae, TWO, prompts)
    (after,) = PerturbedAttentionGuidance.execute(before, 1.5).args
    assert torch.equal(sample(after, before_prompts), found)


def test_a_second_copy_on_the_model_changes_nothing(model, clip, vae, prompts, caplog):
    once, its_prompts = layered(model, clip, vae, TWO, prompts)
    twice, twice_prompts = layered(once, clip, vae, TWO, prompts)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(sample(twice, twice_prompts), sample(once, its_prompts))
    assert "sampling without layers" not in caplog.text


def test_two_layouts_combined_share_every_step(model, clip, vae, prompts):
    """ComfyUI's Combine means the average of both; one step from noise to picture is linear in it."""
    one, one_prompts = layered(model, clip, vae, TWO, prompts)
    two, two_prompts = layered(one, clip, vae, "a tree: 0 0.5 1 1 | colour=green", prompts)
    combined = tuple(first + second for first, second in zip(one_prompts, two_prompts, strict=True))
    mean = (sample(one, one_prompts, steps=1) + sample(two, two_prompts, steps=1)) / 2
    assert_same_picture(sample(two, combined, steps=1), mean)


@pytest.mark.parametrize("mode", ["paper", "trajectories"])
def test_layered_prompts_cannot_be_layered_again(model, clip, vae, prompts, mode):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, mode=mode)
    with pytest.raises(ValueError, match="positive prompt comes from Layered Rendering, so it cannot be layered"):
        layered(ours, clip, vae, TWO, our_prompts)


@pytest.mark.parametrize(
    "place",
    [
        lambda c: comfy_nodes.ConditioningSetMask().append(c, torch.ones(1, 64, 64), "default", 1.0)[0],
        lambda c: comfy_nodes.ConditioningSetAreaPercentage().append(c, 0.5, 0.5, 0.0, 0.0, 1.0)[0],
    ],
    ids=["mask", "area"],
)
def test_prompts_with_a_place_are_refused(model, clip, prompts, place):
    with pytest.raises(ValueError, match="negative prompt already has a place"):
        layered(model, clip, None, "a dog: 0 0 0.5 1", (prompts[0], place(prompts[1])))


def test_prompts_with_a_share_of_the_run_keep_it(model, clip, prompts):
    """One prompt until 0.3 and another after it: both parts that lie before t0 are layered, and only then."""
    ranged = comfy_nodes.ConditioningSetTimestepRange().set_range
    early, late = encode(clip, "early"), encode(clip, "late")
    scheduled = ranged(early, 0.0, 0.3)[0] + ranged(late, 0.3, 1.0)[0]
    _, (positive, negative) = layered(model, clip, None, "a dog: 0 0 0.5 1", (scheduled, prompts[1]), t0=0.5)
    shares = [(options.get("start_percent", 0.0), options.get("end_percent", 1.0)) for _, options in positive]
    assert shares == [(0.0, 0.3)] * 2 + [(0.3, 0.5)] * 2 + [(0.5, 1.0)]
    assert torch.equal(positive[-1][0], late[0][0])
    assert negative is prompts[1]
