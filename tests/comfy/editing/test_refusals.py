"""Runs that editing cannot be part of are refused in words that say what to change."""

import comfy.samplers
import pytest
import torch
from stagecraft.core.editing.edits import EditError, insert, remove, replace
from stagecraft.core.inversion.comfy.samplers import adds_noise
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layout.reading import parse_layout
from stagecraft.tests.comfy.editing.small_edits import DOG, SIZE, T0, corner, edited, sample

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_a_latent_that_is_not_the_pictures_is_refused(model, clip, vae, prompts):
    ours, our_prompts, latent, _ = edited(model, clip, vae, [insert(DOG)], prompts)
    with pytest.raises(EditError, match=r"The latent is 12 x 8 cells, .* \(64 x 64 pixels\). Connect the latent"):
        sample(ours, our_prompts, torch.ones(1, 4, 8, 12))
    with pytest.raises(EditError, match="The latent is empty. Connect the latent output of Edit Picture in Layers"):
        sample(ours, our_prompts, torch.zeros_like(latent))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"denoise": 0.6}, "starts at noise level .*, in mid-way"),
        ({"start_step": 2}, "Set denoise to 1 and start_at_step to 0"),
        ({"last_step": 3}, "stops at noise level .* expected 0"),
    ],
)
def test_a_part_of_a_run_is_refused(model, clip, vae, prompts, part, message):
    ours, our_prompts, latent, _ = edited(model, clip, vae, [insert(DOG)], prompts)
    with pytest.raises(EditError, match=message):
        sample(ours, our_prompts, latent, **part)


def test_kept_noise_needs_a_sampler_without_noise(model, clip, vae, prompts):
    sampler = "dpmpp_2m_sde"
    assert adds_noise(comfy.samplers.sampler_object(sampler))
    edit = replace(corner(), "a dog", whole_box=True, keep=0.5)
    ours, our_prompts, latent, _ = edited(model, clip, vae, [edit], prompts)
    with pytest.raises(ValueError, match=f'"{sampler}" adds fresh noise .* Choose euler'):
        sample(ours, our_prompts, latent, sampler=sampler)


def test_edits_of_edits_and_of_layers_are_refused(model, clip, vae, prompts):
    ours, our_prompts, latent, _ = edited(model, clip, vae, [remove(corner())], prompts)
    with pytest.raises(EditError, match="comes from another Edit Picture in Layers"):
        edited(ours, clip, vae, [insert(DOG)], our_prompts)
    with pytest.raises(EditError, match="2 nodes Edit Picture in Layers meet"):
        sample(ours, (our_prompts[0] * 2, our_prompts[1]), latent)
    layout = parse_layout("a dog: 0 0 0.5 1", width=SIZE, height=SIZE)
    layered = render_in_layers(model, clip, None, layout, *prompts, Rendering(T0, 1.0))
    with pytest.raises(EditError, match="comes from Layered Rendering, so it cannot be edited with"):
        edited(layered[0], clip, vae, [remove(corner())], layered[1:])
