"""Spatial Latent in the graph: where its runs start, and what goes with it."""

import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_custom_sampler import BasicGuider, CFGGuider, SamplerCustomAdvanced
from stagecraft.core.attention_guidance.comfy.guide import guide_attention
from stagecraft.core.attention_guidance.settings import Guidance
from stagecraft.core.comfy.sticker_world import register_model_class
from stagecraft.core.editing.comfy.edit import Editing, edit_picture
from stagecraft.core.editing.edits import EditError, insert
from stagecraft.core.inversion.comfy.cut_out_things import Checkpoint
from stagecraft.core.inversion.comfy.reference_picture import (
    DRAWINGS,
    DRAWN,
    Drawing,
    later_seed,
    reference_seeds,
)
from stagecraft.core.inversion.comfy.spatial_latent import ODE, SDE, spatial_latent
from stagecraft.core.inversion.comfy.start import Inversion, falling_levels
from stagecraft.core.inversion.inversion import rising_sigmas
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.scores.layout_score import score_pictures
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE, SEGMENTER_FOLDER
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.inversion.spatial import SIZE, STEPS, a_layout, given_things, started, watched

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
def test_all_ways_to_start_give_the_same_picture(make_model, clip, vae, kind):
    model = make_model(kind)
    ours, latent, noise, _ = started(model, clip, vae, **given_things())
    positive, negative = encode(clip, "a dog and a cat"), encode(clip, "")
    euler, sigmas = comfy.samplers.sampler_object("euler"), falling_levels(model, "normal", 6)

    def custom(patched, seed_noise):
        guider = CFGGuider.execute(patched, positive, negative, 2.0).args[0]
        empty = {"samples": torch.zeros_like(latent["samples"])}
        return SamplerCustomAdvanced.execute(seed_noise, guider, euler, sigmas, empty).args[0]["samples"]

    expected = custom(model, noise)
    size = expected.std().item()
    torch.testing.assert_close(custom(ours, noise), expected, atol=0, rtol=0)
    by_latent = comfy.sample.sample(
        ours,
        torch.zeros_like(expected),
        6,
        2.0,
        "euler",
        "normal",
        positive,
        negative,
        latent["samples"],
        disable_noise=True,
        disable_pbar=True,
    )
    torch.testing.assert_close(by_latent, expected, atol=1e-3 * size, rtol=1e-3)


def test_a_sampler_that_adds_noise_may_follow(model, clip, vae):
    ours, _, noise, _ = started(model, clip, vae, **given_things())
    guider = BasicGuider.execute(ours, encode(clip, "a dog")).args[0]
    sigmas, ancestral = falling_levels(model, "normal", 3), comfy.samplers.sampler_object("euler_ancestral")
    found = SamplerCustomAdvanced.execute(noise, guider, ancestral, sigmas, {"samples": torch.zeros(1, 4, 8, 8)})
    assert torch.isfinite(found.args[0]["samples"]).all()


def test_the_sde_start_is_plain_noising(model, clip, vae):
    _, latent, _, reference = started(model, clip, vae, **given_things(start=SDE, seed=9))
    clean = vae.encode(reference)
    sigma = falling_levels(model, "normal", STEPS)[0]
    expected = clean * 0.18215 + (1 + sigma**2) ** 0.5 * comfy.sample.prepare_noise(clean, 9)
    torch.testing.assert_close(latent["samples"] * 0.18215, expected, atol=1e-3, rtol=1e-3)
    assert len(rising_sigmas(falling_levels(model, "normal", STEPS))) == STEPS + 1


@pytest.mark.parametrize("seed", [3, 2**64 - 1])
def test_the_noise_of_a_start_is_in_none_of_its_drawings(model, clip, vae, seed):
    noises = []
    started(watched(model, noises), clip, vae, start=SDE, seed=seed, background=DRAWN)
    *before, start = noises
    assert torch.equal(start, comfy.sample.prepare_noise(start, seed))
    assert len(before) == 5 and not any(torch.equal(each, start) for each in before)
    layouts = [a_layout(), a_layout("a fox: 0 0 1 1"), a_layout()]
    seeds = [later_seed(first, n) for first in reference_seeds(seed, layouts) for n in range(2 * DRAWINGS + 1)]
    assert len({seed, *seeds}) == len(seeds) + 1 and all(0 <= each < 2**64 for each in seeds)


def layered(model, clip, positive, negative):
    return render_in_layers(model, clip, None, a_layout(), positive, negative, Rendering(0.5, 0.0))


def guided(model, clip, positive, negative):
    return guide_attention(model, clip, a_layout(), Guidance(strength=0.1, end_at=0.5)), positive, negative


@pytest.mark.parametrize("method", [layered, guided])
def test_other_methods_take_the_start(model, clip, vae, method):
    """From the start's noise, given as numbers, they paint the same."""
    ours, latent, noise, _ = started(model, clip, vae, **given_things())
    empty, settings = torch.zeros_like(latent["samples"]), {"disable_pbar": True, "seed": 0}
    prompts = encode(clip, a_layout().prompt), encode(clip, "")

    def run(prepared, noise, latent):
        patched, *prompts = prepared
        return comfy.sample.sample(patched, noise, 4, 2.0, "euler", "normal", *prompts, latent, **settings)

    expected = run(method(model, clip, *prompts), noise.generate_noise({"samples": empty}), empty)
    found = run(method(ours, clip, *prompts), torch.zeros_like(empty), latent["samples"])
    torch.testing.assert_close(found, expected, atol=1e-3 * expected.std().item(), rtol=1e-3)
    plain = run((model, *prompts), noise.generate_noise({"samples": empty}), empty)
    assert not torch.allclose(plain, expected, atol=1e-3 * expected.std().item())


def test_an_edit_takes_the_noise_but_not_the_latent(model, clip, vae):
    """An edit samples the latent of its own picture; a start without noise would put another one in its place."""
    ours, latent, noise, _ = started(model, clip, vae, **given_things())
    picture = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    prompts = encode(clip, "a dog"), encode(clip, "")
    edited, positive, negative, own, mask = edit_picture(
        ours, clip, vae, picture, [insert(a_layout().regions[0])], *prompts, Editing(0.5, 0.0)
    )
    settings = {"disable_pbar": True, "seed": 0}
    numbers = noise.generate_noise({"samples": own})
    found = comfy.sample.sample(edited, numbers, 4, 2.0, "euler", "normal", positive, negative, own, **settings)
    cells = mask.reshape(1, 1, 8, 8, 8, 8).mean((3, 5)).expand_as(found)
    torch.testing.assert_close(found[cells == 0], own[cells == 0])
    assert not torch.allclose(found[cells == 1], own[cells == 1], atol=1e-2)
    with pytest.raises(EditError, match="The run adds no noise, but an edit needs it"):
        comfy.sample.sample(
            edited, torch.zeros_like(own), 4, 2.0, "euler", "normal", positive, negative, latent["samples"], **settings
        )


def test_things_of_the_embedded_checkpoint_lie_in_their_boxes():
    """What is drawn, cut out and pasted is found in its place by the segmenter, and the start carries that on."""
    register_model_class()
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE))
    segmenter = Segmenter.load(SEGMENTER_FOLDER)
    layout = parse_layout("a dog: 0.05 0.1 0.45 0.6", background="on a green meadow", width=256, height=256)
    start, references = spatial_latent(
        Checkpoint(model, clip, vae),
        [layout],
        Drawing("a photo of {phrase}", DRAWN, 8, 5.0, "normal", segmenter),
        Inversion(seed=1),
        start=ODE,
        steps=10,
        inversion_prompt="{prompt}",
    )
    ((score,),) = score_pictures(references, [layout], segmenter)
    assert score.box_iou > 0.85
    empty = torch.zeros_like(start.state)
    samples = comfy.sample.sample(
        model,
        start.noise(empty),
        10,
        3.0,
        "euler",
        "normal",
        encode(clip, layout.prompt),
        encode(clip, ""),
        empty,
        seed=0,
        disable_pbar=True,
    )
    ((score,),) = score_pictures(vae.decode(samples), [layout], segmenter)
    assert score.box_iou > 0.5
