"""Editing in real ComfyUI samplers: against a plain loop, and what stays as it is."""

import logging

import comfy.model_management
import comfy.sample
import comfy.samplers
import pytest
import torch
from stagecraft.core.comfy.guider import Prompts
from stagecraft.core.editing.edits import insert, move, remove, replace
from stagecraft.core.inversion.comfy.invert import invert_latent
from stagecraft.core.inversion.inversion import rising_sigmas
from stagecraft.core.layered_rendering.comfy.deltas import colour_latent
from stagecraft.core.layout.region import Region
from stagecraft.tests.comfy.conftest import NEGATIVE, PROMPT, encode
from stagecraft.tests.comfy.editing.small_edits import CFG, DOG, SIZE, STEPS, T0, cells, corner, edited, picture, sample
from stagecraft.tests.comfy.families import build_family
from stagecraft.tests.comfy.layered_rendering.slow_layers import SlowLayer, SlowRun

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize(("keep", "refinements"), [(0.0, 0), (0.7, 1)])
@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
def test_a_replacement_matches_the_plain_loop(make_model, clip, vae, prompts, kind, keep, refinements):
    model = make_model(kind)
    old = torch.zeros(1, SIZE, SIZE)
    old[:, 16:48, 16:48] = 1
    edit = replace(old, "a dog", whole_box=True, keep=keep, colour="red")
    ours, our_prompts, latent, mask = edited(
        model, clip, vae, [edit], prompts, source_prompt="a cat", refinements=refinements
    )
    found = model.model.process_latent_in(sample(ours, our_prompts, latent))

    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", STEPS)
    slow = SlowRun(
        network=model.model.diffusion_model,
        kind=kind,
        layers=[
            SlowLayer(encode(clip, "on a meadow")[0][0]),
            SlowLayer(encode(clip, "a dog on a meadow")[0][0], (16, 16, 48, 48), colour_latent(model, vae, "red", "")),
        ],
        positive=encode(clip, PROMPT)[0][0],
        negative=encode(clip, NEGATIVE)[0][0],
        sigmas=sigmas,
        timesteps=torch.stack([sampling.timestep(sigma) for sigma in sigmas[:-1]]),
        last_layered_sigma=sampling.percent_to_sigma(T0),
        cfg=CFG,
        canvas=(SIZE, SIZE),
    )
    clean = latent * 0.18215
    trajectory = invert_latent(
        model, Prompts(encode(clip, "a cat")), latent, rising_sigmas(sigmas), refinements=refinements, disable_pbar=True
    ).flip(0)  # from noise to picture, as the sampler goes; tested against a plain loop by itself
    free, keep = cells(mask), cells(torch.sqrt(1 - mask * (1 - keep**2)))
    size = 1.0 if kind == "FLOW" else torch.sqrt(sigmas[0] ** 2 + 1)
    x = keep * trajectory[0] + torch.sqrt(1 - keep**2) * size * comfy.sample.prepare_noise(latent, 7)
    for i, timestep in enumerate(slow.timesteps):
        seen = torch.where(free > 0, x, trajectory[i])
        positive, negative = (slow.predict(seen, sigmas[i], timestep, which, {}) for which in ("positive", "negative"))
        denoised = clean + free * (negative + CFG * (positive - negative) - clean)
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    scale = max(1.0, x.std().item())
    torch.testing.assert_close(found / scale, x / scale, atol=1e-3, rtol=0)
    assert (free > 0).any() and (free == 0).any()


@pytest.mark.parametrize("sampler", comfy.samplers.SAMPLER_NAMES)
def test_outside_the_latent_is_the_pictures_in_every_sampler(model, clip, vae, prompts, sampler):
    ours, our_prompts, latent, mask = edited(model, clip, vae, [insert(DOG)], prompts)
    found = sample(ours, our_prompts, latent, sampler=sampler, steps=3)
    outside = (cells(mask) == 0).expand_as(latent)
    assert torch.isfinite(found).all()
    assert torch.equal(found[outside], latent[outside])
    assert (found - latent)[(cells(mask) == 1).expand_as(latent)].abs().min() > 0


def test_nothing_to_edit_gives_back_what_came_in(model, clip, vae, prompts):
    for edits in ([], [move(corner(), "a cat", 0.001, 0.0)]):
        ours, our_prompts, latent, mask = edited(model, clip, vae, edits, prompts)
        assert ours is model and our_prompts == prompts and not mask.any()
        assert torch.equal(latent, vae.encode(picture()))


def test_plain_sampling_is_the_same_before_and_after_and_with_our_model(model, clip, vae, prompts, caplog):
    latent = vae.encode(picture())
    before = sample(model, prompts, latent)
    ours, our_prompts, _, _ = edited(model, clip, vae, [insert(DOG)], prompts)
    assert not torch.equal(sample(ours, our_prompts, latent), before)
    assert torch.equal(sample(model, prompts, latent), before)
    unlayered, plain_prompts, _, _ = edited(model, clip, vae, [remove(corner())], prompts, t0=0.0)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(sample(unlayered, prompts, latent), before)
    assert "sampling without edits" in caplog.text
    # Without our model the source prompt rules no step.
    assert torch.equal(sample(model, plain_prompts, latent), before)


def test_a_run_leaves_no_trace_on_the_model_or_the_prompts(model, clip, vae, prompts):
    ours, our_prompts, latent, _ = edited(model, clip, vae, [insert(DOG)], prompts)
    keys = [[set(options) for _, options in entries] for entries in our_prompts]
    wrappers = {kind: {key: list(each) for key, each in of.items()} for kind, of in ours.wrappers.items()}
    first = sample(ours, our_prompts, latent)
    assert [[set(options) for _, options in entries] for entries in our_prompts] == keys
    assert ours.wrappers == wrappers and "wrappers" not in ours.model_options["transformer_options"]
    assert torch.equal(sample(ours, our_prompts, latent), first)
    twice, twice_prompts, _, _ = edited(ours, clip, vae, [insert(DOG)], prompts)
    assert torch.equal(sample(twice, twice_prompts, latent), first)


@pytest.mark.parametrize("after", [2, STEPS + 2], ids=["in the inversion", "in the sampling"])
def test_interrupting_leaves_the_model_as_it_was(model, clip, vae, prompts, after):
    latent = vae.encode(picture())
    before = sample(model, prompts, latent)
    ours, our_prompts, _, _ = edited(model, clip, vae, [insert(DOG)], prompts)
    expected = sample(ours, our_prompts, latent)
    steps = []

    def stop(step, clean, state, total):
        steps.append((step, total))
        if len(steps) == after:
            comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(ours, our_prompts, latent, callback=stop)
    assert steps == [(step, 2 * STEPS) for step in range(after)], "one bar for inversion and sampling"
    assert torch.equal(sample(ours, our_prompts, latent), expected)
    assert torch.equal(sample(model, prompts, latent), before)


@pytest.mark.parametrize("batch", [2, 5])
def test_a_video_models_vae_encodes_a_batch_picture_by_picture(batch):
    """Qwen-Image's would make one video of them."""
    qwen = build_family("QwenImage")
    words = [qwen.clip.encode_from_tokens_scheduled(text.split()) for text in ("a photo", "")]
    *_, latent, _ = edited(qwen.model, qwen.clip, qwen.vae, (insert(DOG),), words, picture(batch))
    assert latent.shape[0] == batch and latent.shape[2] == 1


def test_a_batch_is_its_pictures_one_by_one(model, clip, vae, prompts):
    image = picture(2)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours, our_prompts, latent, _ = edited(model, clip, vae, [insert(DOG)], prompts, image)
    together = sample(ours, our_prompts, latent, noise=noise)
    for i in range(2):
        alone = sample(ours, our_prompts, latent[i : i + 1], noise=noise[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-3 * float(together.std()), rtol=0)


@pytest.mark.parametrize("edit", [remove(corner(), "a cat"), move(corner(), "a cat", 0.4, 0.4)], ids=["remove", "move"])
def test_removing_and_moving(model, clip, vae, prompts, edit):
    ours, our_prompts, latent, mask = edited(model, clip, vae, [edit], prompts)
    found = sample(ours, our_prompts, latent)
    free = cells(mask).expand_as(latent)
    assert torch.isfinite(found).all()
    assert torch.equal(found[free == 0], latent[free == 0])
    assert (found - latent)[free == 1].abs().min() > 0
    assert torch.equal(latent, vae.encode(picture())) == (edit.shift is None)


def test_what_is_said_where_something_is_removed(model, clip, vae, prompts):
    """The background's prompt against the thing's name until t0, and the given prompts from there on."""
    _, (positive, negative), _, _ = edited(model, clip, vae, [remove(corner(), "a cat")], prompts)
    said = [(text, options.get("start_percent", 0.0), options.get("end_percent", 1.0)) for text, options in positive]
    for (text, start, end), expected in zip(said, ["on a meadow", PROMPT, ""], strict=True):
        assert torch.equal(text, encode(clip, expected)[0][0])
        assert (start, end) == {"on a meadow": (0.0, T0), PROMPT: (T0, 1.0), "": (1.0, 1.0)}[expected]
    for (text, options), expected in zip(negative, ["a cat", NEGATIVE], strict=True):
        assert torch.equal(text, encode(clip, expected)[0][0])
        assert ("end_percent" in options) == (expected == "a cat")


def test_more_kept_noise_stays_closer_to_the_picture(model, clip, vae, prompts):
    distances = []
    for keep in (0.0, 0.6, 1.0):
        edit = replace(corner(), "a dog", whole_box=True, keep=keep)
        ours, our_prompts, latent, mask = edited(
            model, clip, vae, [edit], (encode(clip, "a cat"),) * 2, t0=0.0, source_prompt="a cat", refinements=4
        )
        inside = (cells(mask) == 1).expand_as(latent)
        distances.append((sample(ours, our_prompts, latent) - latent)[inside].square().mean().item())
    assert distances[0] > distances[1] > distances[2]


def test_a_picture_that_is_no_whole_number_of_cells_is_cropped_with_its_masks(model, clip, vae, prompts):
    """By 2 pixels above, 3 on the left, and the rest on the other sides, as the VAE does it."""
    image = picture(1, 68, 70)
    old = torch.zeros(1, 68, 70)
    old[:, 18:34, 11:35] = 1
    edits = [remove(old), insert(Region("a dog", box=(35 / 70, 34 / 68, 67 / 70, 66 / 68)))]
    ours, our_prompts, latent, mask = edited(model, clip, vae, edits, prompts, image)
    assert torch.equal(latent, vae.encode(image)) and latent.shape[-2:] == (8, 8)
    exact = torch.zeros(64, 64)
    exact[16:32, 8:32] = exact[32:64, 32:64] = 1
    assert torch.equal((mask[0] > 0.999).float(), exact)
    dog = next(options["mask"] for _, options in our_prompts[0] if "mask" in options and options["mask"][0, 40, 40])
    assert torch.equal(dog[0, 33:63, 33:63], torch.ones(30, 30)) and dog[0, :31].max() == 0
    assert torch.isfinite(sample(ours, our_prompts, latent)).all()


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
def test_every_scheduler_makes_a_whole_run(model, clip, vae, prompts, scheduler):
    ours, our_prompts, latent, mask = edited(model, clip, vae, [insert(DOG)], prompts)
    noise = comfy.sample.prepare_noise(latent, 7)
    found = comfy.sample.sample(
        ours, noise, 10, CFG, "euler", scheduler, *our_prompts, latent, seed=7, disable_pbar=True
    )
    outside = (cells(mask) == 0).expand_as(latent)
    assert torch.isfinite(found).all() and torch.equal(found[outside], latent[outside])
