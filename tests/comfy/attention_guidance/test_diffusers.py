"""Attention guidance in diffusers, in a loop of one's own and in a pipeline, against the slow loop."""

import copy
from contextlib import suppress
from dataclasses import replace

import comfy.sd1_clip
import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from stagecraft.core.attention_guidance.diffusers import guide_at_step_end, guide_latents, token_columns
from stagecraft.core.attention_guidance.published import ENERGIES
from stagecraft.evaluation.baselines.slow_guidance import SlowGuidance, SlowThing, of_diffusers
from stagecraft.sticker_world.checkpoint.shipped_weights import load_diffusion
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.tests.comfy.attention.networks import BOXES, agree, noisy, targets_of_boxes
from stagecraft.tests.comfy.families import fill
from transformers import CLIPTokenizer

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def trained():
    return load_diffusion(CHECKPOINT_FILE)


@pytest.fixture(scope="module")
def smooth():
    """A U-Net with random weights. What attention does in it changes slowly, so two ways to one place stay together."""
    unet = UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(32, 64),
        attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=24,
    )
    fill(unet, 5)
    return unet


@pytest.fixture
def targets():
    return targets_of_boxes()


def euler(steps, **more):
    scheduler = EulerDiscreteScheduler(**SCHEDULE, **more)
    scheduler.set_timesteps(steps)
    return scheduler


def texts_of(unet, batch=1):
    return [
        torch.randn(batch, 8, unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(i))
        for i in (2, 3)
    ]


def chen(scale, threshold=0.2):
    """Chen et al.'s energy; the default scale moves random weights' attention by little."""
    return replace(ENERGIES["chen"], threshold=threshold, schedule=lambda progress, following: (scale, 5))


@torch.no_grad()
@pytest.mark.parametrize(("threshold", "steps"), [(0.2, [5, 5, 5, 0]), (0.42, [4, 0, 0, 0])])
def test_a_loop_of_ones_own_equals_the_slow_one(smooth, targets, threshold, steps):
    """Guided in the first three of four steps, or until the attention is in place."""
    scheduler, (prompt, empty), cfg = euler(4), texts_of(smooth), 3.0
    start = noisy(16, 16) * scheduler.init_noise_sigma
    slow = SlowGuidance(
        smooth,
        [SlowThing(list(tokens), [box]) for box, tokens in BOXES.items()],
        prompt,
        empty,
        scheduler.sigmas,
        scheduler.timesteps,
        call=of_diffusers,
        cfg=cfg,
        scale=300.0,
        guided_steps=3,
        threshold=threshold,
    )
    expected = slow(start)
    assert [len(losses) for losses in slow.losses] == steps
    latents, energy = start, torch.inf
    for i, t in enumerate(scheduler.timesteps):
        if i < 3 and energy > threshold:
            latents, energy = guide_latents(
                smooth, latents, t, prompt, scheduler, targets, energy=chen(300.0, threshold), progress=i / 4
            )
        seen = scheduler.scale_model_input(latents, t)
        asked, free = (smooth(seen, t, text).sample for text in (prompt, empty))
        latents = scheduler.step(free + cfg * (asked - free), t, latents).prev_sample
    agree(latents, expected)


@torch.no_grad()
def test_pictures_of_a_batch_stop_by_themselves(smooth, targets):
    scheduler, prompts = euler(4), texts_of(smooth, 2)[0]
    start, t = noisy(16, 16, 2) * scheduler.init_noise_sigma, scheduler.timesteps[0]

    def guided(rows, threshold):
        given = start[rows], t, prompts[rows], scheduler, targets
        return guide_latents(smooth, *given, energy=chen(300.0, threshold))

    threshold = float(guided(slice(None), 0.0)[1].mean())  # one of the two gets below it
    alone = [guided(slice(i, i + 1), threshold) for i in (0, 1)]
    agree(guided(slice(None), threshold)[0], torch.cat([latents for latents, _ in alone]))
    below = [bool(energy <= threshold) for _, energy in alone]
    assert sorted(below) == [False, True]


@torch.no_grad()
def test_schedulers_of_either_scale_agree(smooth, targets):
    scaled = euler(5, timestep_spacing="leading")
    plain = DDIMScheduler(**SCHEDULE, timestep_spacing="leading")
    plain.set_timesteps(5)
    t, sigma, text = scaled.timesteps[1], scaled.sigmas[1], texts_of(smooth)[0]
    assert t == plain.timesteps[1]
    latents = noisy(16, 16) * (sigma**2 + 1) ** 0.5
    scaled._step_index = 1  # as after one step
    found, energy = guide_latents(smooth, latents, t, text, scaled, targets, energy=chen(300.0))
    shrunk = latents / (sigma**2 + 1) ** 0.5
    other, same = guide_latents(smooth, shrunk, t, text, plain, targets, energy=chen(300.0))
    torch.testing.assert_close(same, energy)
    agree(other * (sigma**2 + 1) ** 0.5, found)
    assert (found - latents).abs().max() > 0.1


@pytest.mark.parametrize("energy", list(ENERGIES))
def test_energies_fall_and_weights_stay(smooth, targets, energy):
    unet = copy.deepcopy(smooth).requires_grad_(True)
    before = {name: (id(weight), weight.data_ptr()) for name, weight in unet.named_parameters()}
    scheduler, energies = euler(20), []
    with torch.inference_mode():  # as ComfyUI's executor, or a careful user, has it
        latents = noisy(16, 16) * scheduler.init_noise_sigma
        text, targets = texts_of(unet)[0], [replace(each, mask=each.mask.clone()) for each in targets]
        for _ in range(3):
            given = unet, latents, scheduler.timesteps[0], text, scheduler, targets
            once = replace(ENERGIES[energy], iterations=1)
            latents, found = guide_latents(*given, energy=once, words=range(1, 7))
            energies.append(found.item())
    assert energies[0] > energies[1] > energies[2]
    assert {name: (id(weight), weight.data_ptr()) for name, weight in unet.named_parameters()} == before
    assert all(weight.requires_grad and weight.grad is None for weight in unet.parameters())


def test_strength_zero_is_the_identity(smooth, targets):
    scheduler, latents = euler(5), noisy(16, 16)
    t, text = scheduler.timesteps[0], texts_of(smooth)[0]
    assert torch.equal(guide_latents(smooth, latents, t, text, scheduler, targets, strength=0)[0], latents)


@pytest.mark.parametrize(
    ("count", "guided"), [(20, [*range(4), *range(4, 14, 2)]), (50, [*range(10), *range(10, 35, 5)])]
)
def test_refocusing_rests_between_every_fifth_of_50_steps(smooth, targets, count, guided):
    scheduler, energy = euler(count), replace(ENERGIES["refocusing"], measure=lambda maps, *_: asked.append(i) or 1 / 0)
    given, asked = (texts_of(smooth)[0], scheduler, targets), []
    for i, t in enumerate(scheduler.timesteps[: int(0.7 * count)]):
        with suppress(ZeroDivisionError):  # the schedule is all that is looked at
            guide_latents(smooth, noisy(8, 8), t, *given, energy=energy, progress=i / count, words=range(1, 7))
    assert asked == guided


def test_half_precision_keeps_the_gradient(smooth, targets):
    scheduler, text = euler(5), texts_of(smooth)[0]
    latents, steps = noisy(16, 16) * scheduler.init_noise_sigma, []
    for unet in (smooth, copy.deepcopy(smooth).half()):
        given = latents, scheduler.timesteps[0], text.to(unet.dtype), scheduler, targets
        once = replace(ENERGIES["chen"], iterations=1)
        steps.append((guide_latents(unet, *given, energy=once)[0] - latents).flatten())
    assert torch.cosine_similarity(*steps, dim=0) > 0.99


def test_what_cannot_work_says_so(smooth, targets):
    flow, scheduler, text = FlowMatchEulerDiscreteScheduler(), euler(5), texts_of(smooth)[0]
    t = scheduler.timesteps[0]
    with pytest.raises(ValueError, match="not made for models that predict noise"):
        guide_latents(smooth, noisy(16, 16), 500, text, flow, targets)
    with pytest.raises(ValueError, match="pass their positions as `words`"):
        guide_latents(smooth, noisy(16, 16), t, text, scheduler, targets, energy="boxdiff")
    with pytest.raises(ValueError, match="not finite"):
        guide_latents(smooth, noisy(16, 16) * torch.nan, t, text, scheduler, targets)


def test_token_columns():
    folder = comfy.sd1_clip.__file__.replace("sd1_clip.py", "sd1_tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    assert token_columns(tokenizer, "a cat and a dog", "dog") == (5,)
    assert token_columns(tokenizer, "a cat, a dog and a cat", "a cat") == (2, 8)
    split = token_columns(tokenizer, "an axolotlkeeper smiles", "axolotlkeeper")
    assert len(split) > 1
    assert split == tuple(range(2, 2 + len(split)))
    with pytest.raises(ValueError, match="word for word"):
        token_columns(tokenizer, "a cat", "a dog")
    assert token_columns(tokenizer, "a fire truck and A (fire)", "a fire", ["a fire truck"]) == (7,)
    assert token_columns(tokenizer, "a fire truck and a fire", "a fire truck", ["a fire"]) == (2, 3)
    with pytest.raises(ValueError, match="outside of the other phrases"):
        token_columns(tokenizer, "a fire truck", "a fire", ["a fire truck"])
    tokenizer.model_max_length = 77
    with pytest.raises(ValueError, match="first 77 tokens"):
        token_columns(tokenizer, "word " * 80 + "dog", "dog")


def test_in_a_pipeline(trained, smooth, targets):
    """A callback guides all steps but the first, as a loop of one's own does."""
    vae = AutoencoderTiny(encoder_block_out_channels=(64,) * 4, decoder_block_out_channels=(64,) * 4)
    pipe = StableDiffusionPipeline(
        vae, trained.text, None, smooth, EulerDiscreteScheduler(**SCHEDULE), None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    (prompt, empty), start, steps = texts_of(smooth), noisy(16, 16), 16
    twice = replace(chen(300.0), iterations=2)
    found = pipe(
        prompt_embeds=prompt,
        negative_prompt_embeds=empty,
        num_inference_steps=steps,
        height=128,
        width=128,
        latents=start,
        output_type="latent",
        guidance_scale=3.0,
        callback_on_step_end=guide_at_step_end(targets, energy=twice),
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    ).images
    scheduler, guided = euler(steps), []
    latents = start * scheduler.init_noise_sigma
    with torch.no_grad():
        for i, t in enumerate(scheduler.timesteps):
            if 0 < i / steps < ENERGIES["chen"].end:
                guided.append(i)
                latents, _ = guide_latents(smooth, latents, t, prompt, scheduler, targets, energy=twice)
            seen = scheduler.scale_model_input(latents, t)
            asked, free = (smooth(seen, t, text).sample for text in (prompt, empty))
            latents = scheduler.step(free + 3.0 * (asked - free), t, latents).prev_sample
    assert guided == [1, 2, 3]
    agree(found, latents, 1e-4)
