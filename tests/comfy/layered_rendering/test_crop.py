"""Layers that are evaluated on their surroundings only."""

from contextlib import contextmanager

import comfy.hooks
import comfy.patcher_extension
import pytest
import torch
from stagecraft.core.layered_rendering.comfy.settings import LayerSettings
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance, state_scale, vision_guidance
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.layered_rendering.small_runs import (
    APART,
    TWO,
    assert_same_picture,
    layered,
    sample,
    slow_run,
    starting_point,
    two_layers,
)

import nodes as comfy_nodes

# Parts of 8 x 12, 12 x 8, 12 x 12 and 12 x 12 cells on a canvas of 32 x 32.
FOUR = """a dog: 0.125 0.125 0.375 0.25 | colour=red
a cat: 0.625 0.125 0.75 0.375 | colour=blue
a duck: 0.125 0.625 0.375 0.875
a frog: 0.625 0.625 0.8125 0.875 | colour=green"""
CANVAS = {"width": 256, "height": 256, "t0": 1.0}

pytestmark = pytest.mark.usefixtures("no_gradients")


def evaluations(model):
    """Shapes of what the network is given from now on."""
    shapes = []

    def note(executor, x, *args, **kwargs):
        shapes.append(tuple(x.shape))
        return executor(x, *args, **kwargs)

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "note", note)
    return shapes


@contextmanager
def little_memory(model):
    """As if an evaluation of more than one entry were too large."""
    factor = model.model.memory_usage_factor
    model.model.memory_usage_factor = 1e12
    try:
        yield
    finally:
        model.model.memory_usage_factor = factor


def test_a_cropped_layer_is_the_layer_evaluated_on_its_part_of_the_latent(model, clip, vae, prompts):
    """One step: what the network gives for the cropped, guided state, put back where it was cut out."""
    text = "a dog: 0 0 0.25 0.25 | colour=red"
    ours, our_prompts = layered(model, clip, vae, text, prompts, width=256, height=128, background="", t0=1.0, crop=2)
    shapes = evaluations(ours)
    found = model.model.process_latent_in(sample(ours, our_prompts, 16, 32, steps=1, cfg=1.0))
    assert sorted(shapes) == [(1, 4, 8, 12), (1, 4, 16, 32)]
    red = two_layers(model, vae)[1][2]
    slow = slow_run(model, clip, [("", None, None)], (128, 256), steps=1)
    x, sigma, when = starting_point(slow), slow.sigmas[0], slow.timesteps[0]
    mask = torch.zeros(1, 16, 32)
    mask[:, :4, :8] = 1
    xi = vision_guidance(red[None], mask) * state_scale(torch.tensor(1.0), sigma)
    part = (..., slice(0, 8), slice(0, 12))
    dog = slow.denoise(x[part], (x + xi)[part], sigma, when, encode(clip, "a dog")[0][0], {})
    expected = slow.denoise(x, x, sigma, when, slow.layers[0].text, {})
    expected[..., :4, :8] = dog[..., :4, :8]
    assert_same_picture(found, expected)


def test_a_crop_as_large_as_the_canvas_is_no_crop(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts)
    cropped, cropped_prompts = layered(model, clip, vae, TWO, prompts, crop=8)
    assert_same_picture(sample(cropped, cropped_prompts), sample(ours, our_prompts))


def test_crop_refuses_what_it_cannot_do(model, clip, prompts, control_net):
    with pytest.raises(ValueError, match='crop works in the mode "paper" only'):
        layered(model, clip, None, "a dog: 0 0 0.5 1", prompts, crop=1, **APART)
    with pytest.raises(ValueError, match='Choose the mode "trajectories"'):
        layered(model, clip, None, "a dog: 0 0 0.5 1", prompts, guidance=VisionGuidance(inject="as published"))
    (controlled,) = comfy_nodes.ControlNetApply().apply_controlnet(prompts[0], control_net, torch.rand(1, 64, 64, 3), 1)
    ours, our_prompts = layered(model, clip, None, "a dog: 0 0 0.5 1", (controlled, prompts[1]), crop=1)
    with pytest.raises(ValueError, match="ControlNet cannot be cropped"):
        sample(ours, our_prompts)


@pytest.mark.parametrize("batch", [1, 2])
def test_parts_of_nearly_one_size_are_one_evaluation_equal_to_separate_ones(model, clip, vae, prompts, batch):
    ours, our_prompts = layered(model, clip, vae, FOUR, prompts, crop=2, **CANVAS)
    shapes = evaluations(ours)
    packed = sample(ours, our_prompts, 32, 32, batch=batch, steps=2)
    # Three guided layers twice, one without guidance once; the background, and the negative prompt of what has no
    # guidance, on the whole canvas.
    assert sorted(shapes) == sorted([(2 * batch, 4, 32, 32), (7 * batch, 4, 12, 12)] * 2)
    shapes.clear()
    with little_memory(ours):
        apart = sample(ours, our_prompts, 32, 32, batch=batch, steps=2)
    assert sorted(set(shapes)) == [(batch, 4, 12, 12), (batch, 4, 32, 32)] and len(shapes) == 2 * 9
    assert_same_picture(packed, apart)


def test_sizes_do_not_depend_on_how_many_pictures_there_are(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, FOUR, prompts, crop=2, **CANVAS)
    noise = comfy.sample.prepare_noise(torch.zeros(2, 4, 32, 32), 3)
    both = sample(ours, our_prompts, 32, 32, batch=2, steps=2, noise=noise)
    for each, alone in zip(both.split(1), noise.split(1), strict=True):
        assert_same_picture(each, sample(ours, our_prompts, 32, 32, steps=2, noise=alone))


def test_what_cannot_be_packed_has_the_size_it_needs_and_goes_by_itself(model, clip, vae, prompts):
    """A layer with a LoRA of its own; its negative prompt has none, but its part is the layer's."""
    key, weight = next((n, w) for n, w in model.model.diffusion_model.named_parameters() if "attn2.to_v" in n)
    name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
    lora = {f"{name}.lora_up.weight": torch.ones(len(weight), 1), f"{name}.lora_down.weight": weight[:1].clone()}
    hook = comfy.hooks.create_hook_lora(lora, 1.0, 0.0)
    with_lora = comfy.hooks.set_hooks_for_conditioning(encode(clip, "a cat"), hook)
    settings = (LayerSettings("a cat", positive=with_lora),)
    ours, our_prompts = layered(model, clip, vae, FOUR, prompts, crop=2, settings=settings, **CANVAS)
    shapes = evaluations(ours)
    packed = sample(ours, our_prompts, 32, 32, steps=1)
    assert sorted(shapes) == [(1, 4, 12, 8), (1, 4, 12, 8), (2, 4, 32, 32), (5, 4, 12, 12)]
    with little_memory(ours):
        assert_same_picture(packed, sample(ours, our_prompts, 32, 32, steps=1))


def test_the_same_layers_without_crop_are_what_they_were(model, clip, vae, prompts):
    """Packing is nothing but crop's: a step without it has one evaluation of all rows."""
    ours, our_prompts = layered(model, clip, vae, FOUR, prompts, **CANVAS)
    shapes = evaluations(ours)
    sample(ours, our_prompts, 32, 32, steps=1)
    assert shapes == [(9, 4, 32, 32)]
