"""Trajectories: every layer sampled by itself up to t0, against the slow loop that does the same."""

import comfy.model_management
import comfy.samplers
import pytest
import torch
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance
from stagecraft.core.layout.region import LayoutError
from stagecraft.tests.comfy.layered_rendering.slow_layers import slow_apart
from stagecraft.tests.comfy.layered_rendering.small_runs import (
    APART,
    FULL,
    STEPS,
    TWO,
    assert_same_picture,
    layered,
    sample,
    slow_run,
    starting_point,
    two_layers,
)

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
@pytest.mark.parametrize("inject", ["every step", "first step", "as published"])
def test_trajectories_match_the_slow_loop(make_model, clip, vae, prompts, kind, inject):
    model = make_model(kind)
    guidance = VisionGuidance(inject=inject)
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, guidance=guidance, **APART)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64), kind)

    def again(layer, x, i, sigma):
        xi = slow.guidance(layer, x.shape, torch.tensor(0.0))  # at no noise the state's scale is 1
        scale = ((1 - sigma) ** 2 + sigma**2) ** 0.5 if kind == "FLOW" else (sigma**2 + 1) ** 0.5
        if i < 0:
            return x + xi * scale
        return x + xi / scale if inject == "as published" and i < 5 else x

    expected = slow_apart(slow, starting_point(slow), None if inject == "every step" else again)
    assert_same_picture(model.model.process_latent_in(sample(ours, our_prompts)), expected)


@pytest.mark.parametrize("t0", [0.25, 0.4, 1.0])
def test_trajectories_switch_at_the_step_that_paper_mode_switches_at(model, clip, vae, prompts, t0):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, t0=t0, **APART)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64), t0=t0)
    assert_same_picture(
        model.model.process_latent_in(sample(ours, our_prompts)), slow_apart(slow, starting_point(slow))
    )


@pytest.mark.parametrize(
    "sampler",
    [
        "euler",
        "heun",
        "dpm_2",
        "ddim",
        "euler_cfg_pp",
        "ddpm",
        "lcm",
        "euler_ancestral",
        "dpm_2_ancestral",
        "dpmpp_sde",
    ],
)
def test_one_full_layer_on_its_own_trajectory_is_plain_sampling(model, clip, prompts, sampler):
    """Bit for bit for every sampler that remembers nothing, also one that adds noise on its way."""
    plain = sample(model, prompts, sampler=sampler)
    for t0 in (1.0, 0.5):
        ours, our_prompts = layered(model, clip, None, FULL, prompts, t0=t0, **APART)
        assert torch.equal(sample(ours, our_prompts, sampler=sampler), plain)


def test_every_sampler_can_run_layers_apart(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, **APART)
    for sampler in comfy.samplers.SAMPLER_NAMES:
        found = sample(ours, our_prompts, sampler=sampler, steps=4)
        assert torch.isfinite(found).all(), sampler


def test_trajectories_put_smaller_regions_in_front(model, clip, prompts):
    large, small = "a dog: 0 0 1 1", "a cat: 0.25 0.25 0.75 0.75"
    one, its_prompts = layered(model, clip, None, f"{large}\n{small}", prompts, **APART)
    other, other_prompts = layered(model, clip, None, f"{small}\n{large}", prompts, **APART)
    assert torch.equal(sample(one, its_prompts), sample(other, other_prompts))
    hidden = f"{small} | order=0\n{large} | order=1"
    with pytest.raises(LayoutError, match='"a cat" is hidden'):
        layered(model, clip, None, hidden, prompts, **APART)


def test_progress_of_trajectories_ends_at_the_last_step(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, **APART)
    seen = []
    sample(ours, our_prompts, callback=lambda step, denoised, x, total: seen.append((step, total)))
    assert [step for step, _ in seen] == sorted(step for step, _ in seen)
    assert seen[-1] == (STEPS - 1, STEPS) and len(seen) == 3 * 3 + 2  # the first three steps are the layers'


def test_interrupting_trajectories_leaves_everything_as_it_was(model, clip, vae, prompts):
    before = sample(model, prompts)
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, **APART)
    expected = sample(ours, our_prompts)

    def stop(step, *_):
        comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(ours, our_prompts, callback=stop)
    assert torch.equal(sample(ours, our_prompts), expected)
    assert torch.equal(sample(model, prompts), before)


def test_trajectories_need_a_sampler_that_can_be_stopped(model, clip, prompts):
    class Own(comfy.samplers.Sampler):
        def sample(self, *args, **kwargs):
            raise AssertionError("must not be reached")

    ours, our_prompts = layered(model, clip, None, "a dog: 0 0 0.5 1", prompts, **APART)
    guider = comfy.samplers.CFGGuider(ours)
    guider.set_conds(*our_prompts)
    with pytest.raises(ValueError, match='"trajectories" stops the sampler at end_at, which Own does not allow'):
        guider.sample(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), Own(), torch.tensor([1.0, 0.0]))
