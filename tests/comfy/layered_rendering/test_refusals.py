"""What layered rendering cannot do is refused in words that say what to change."""

import comfy.latent_formats
import comfy.nested_tensor
import comfy.samplers
import pytest
import torch
from stagecraft.core.layout.region import LayoutError
from stagecraft.tests.comfy.layered_rendering.small_runs import layered, sample

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_a_latent_of_another_shape_is_refused(model, clip, prompts):
    ours, our_prompts = layered(model, clip, None, "a dog: 0 0 0.5 1", prompts)
    with pytest.raises(ValueError, match=r"The latent is 12 x 8 cells, .* \(64 x 64 pixels\)"):
        sample(ours, our_prompts, 8, 12)


def test_latents_without_a_picture_plane_are_refused(model, clip, prompts):
    ours, our_prompts = layered(model, clip, None, "a dog: 0 0 0.5 1", prompts)
    guider = comfy.samplers.CFGGuider(ours)
    guider.set_conds(*our_prompts)
    sampler, sigmas = comfy.samplers.sampler_object("euler"), torch.tensor([1.0, 0.0])
    sound = torch.zeros(1, 4, 64)
    parts = comfy.nested_tensor.NestedTensor((torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)))
    for latent in (sound, parts):
        with pytest.raises(ValueError, match="needs a latent of a picture or a video"):
            guider.sample(latent, latent, sampler, sigmas)


def test_several_gpus_are_refused(model, clip, prompts):
    ours, our_prompts = layered(model, clip, None, "a dog: 0 0 0.5 1", prompts)
    ours.model_options["multigpu_clones"] = {"cuda:1": ours}
    with pytest.raises(ValueError, match="several GPUs"):
        sample(ours, our_prompts)


def test_a_colour_needs_the_models_own_vae(model, clip, vae, prompts):
    text = "a dog: 0 0 0.5 1 | colour=red"
    with pytest.raises(ValueError, match='"a dog" has the colour "red". Connect'):
        layered(model, clip, None, text, prompts)
    other = model.clone()
    other.add_object_patch("latent_format", comfy.latent_formats.SD3())
    with pytest.raises(ValueError, match="VAE has 4 latent channels, but the model has 16"):
        layered(other, clip, vae, text, prompts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a dog: 0.1 0.1 0.19 0.19", "is too small"),
        ("a dog: 0 0 0.5 0.5\na cat: 0 0 1 1", 'region "a dog" is hidden by nearer regions'),
    ],
)
def test_regions_that_would_not_be_seen_are_refused(model, clip, prompts, text, message):
    with pytest.raises(LayoutError, match=message):
        layered(model, clip, None, text, prompts)
