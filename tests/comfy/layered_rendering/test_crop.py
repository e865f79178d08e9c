"""Layers that are evaluated on their surroundings only."""

import comfy.patcher_extension
import pytest
import torch
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

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_a_cropped_layer_is_the_layer_evaluated_on_its_part_of_the_latent(model, clip, vae, prompts):
    """One step: what the network gives for the cropped, guided state, put back where it was cut out."""
    text = "a dog: 0 0 0.25 0.25 | colour=red"
    ours, our_prompts = layered(model, clip, vae, text, prompts, width=256, height=128, background="", t0=1.0, crop=2)
    shapes = []

    def note(executor, x, *args, **kwargs):
        shapes.append(tuple(x.shape))
        return executor(x, *args, **kwargs)

    ours.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "note", note)
    found = model.model.process_latent_in(sample(ours, our_prompts, 16, 32, steps=1, cfg=1.0))
    assert sorted(shapes) == [(1, 4, 8, 16), (1, 4, 16, 32)]
    red = two_layers(model, vae)[1][2]
    slow = slow_run(model, clip, [("", None, None)], (128, 256), steps=1)
    x, sigma, when = starting_point(slow), slow.sigmas[0], slow.timesteps[0]
    mask = torch.zeros(1, 16, 32)
    mask[:, :4, :8] = 1
    xi = vision_guidance(red[None], mask) * state_scale(torch.tensor(1.0), sigma)
    part = (..., slice(0, 8), slice(0, 16))
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
