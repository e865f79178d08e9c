"""One run has one noise and one start, whatever pieces it is sampled in: layers apart, or two samplers in a row."""

import comfy.k_diffusion.sampling
import comfy.sample
import comfy.samplers
import pytest
import torch
from stagecraft.core.inversion.comfy.samplers import adds_noise
from stagecraft.core.layered_rendering.comfy.fresh_noise import fresh_noise
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance
from stagecraft.tests.comfy.layered_rendering.small_runs import APART, CFG, SEED, STEPS, TWO, layered, sample

pytestmark = pytest.mark.usefixtures("no_gradients")

NOISY = [name for name in comfy.samplers.SAMPLER_NAMES if adds_noise(comfy.samplers.sampler_object(name))]


@pytest.fixture
def draws(monkeypatch):
    """Every noise that a sampler adds, in its order."""
    found = []

    def listening(make):
        def made(*args, **kwargs):
            draw = make(*args, **kwargs)

            def kept(sigma, sigma_next):
                found.append(draw(sigma, sigma_next))
                return found[-1]

            return kept

        return made

    for name in ("default_noise_sampler", "BrownianTreeNoiseSampler"):
        monkeypatch.setattr(comfy.k_diffusion.sampling, name, listening(getattr(comfy.k_diffusion.sampling, name)))
    return found


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2s_ancestral", "ddpm", "lcm", "dpmpp_sde", "er_sde"])
def test_layers_apart_draw_the_noise_of_the_plain_run_once(model, clip, vae, prompts, draws, sampler):
    sample(model, prompts, sampler=sampler)
    plain = [draw.clone() for draw in draws]
    draws.clear()
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, **APART)
    sample(ours, our_prompts, sampler=sampler)
    assert len(draws) == len(plain) > 1
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(draws, plain, strict=True))


@pytest.mark.parametrize("sampler", NOISY)
def test_a_sampler_that_adds_noise_takes_that_of_the_run_or_is_refused(sampler):
    chosen = comfy.samplers.sampler_object(sampler)
    x, sigmas = torch.zeros(1, 4, 8, 8), torch.tensor([14.0, 5.0, 1.0, 0.0])
    noise = fresh_noise(chosen, x, sigmas, SEED)
    first, second = noise(sigmas[0], sigmas[1]), noise(sigmas[1], sigmas[2])
    assert abs(float((first * second).mean())) < 0.3
    noise.start_again()
    assert torch.equal(noise(sigmas[0], sigmas[1]), first) and torch.equal(noise(sigmas[1], sigmas[2]), second)


def test_noise_that_cannot_be_given_is_refused():
    restless = comfy.samplers.ksampler("euler", {"s_churn": 1.0})
    with pytest.raises(ValueError, match='"euler" adds fresh noise .*s_churn 1.* mode "paper"'):
        fresh_noise(restless, torch.zeros(1, 4, 8, 8), torch.tensor([14.0, 0.0]), SEED)
    assert fresh_noise(comfy.samplers.sampler_object("euler"), torch.zeros(1), torch.tensor([14.0, 0.0]), SEED) is None


def in_two(model, prompts, split):
    """What two KSampler (Advanced) make of a run, the first up to a step and the second from there."""
    begun = sample(model, prompts, last_step=split, force_full_denoise=False)
    return going_on(model, prompts, begun, split)


def going_on(model, prompts, begun, step):
    """The run from a step on, without noise of its own."""
    rest = {"disable_noise": True, "start_step": step, "force_full_denoise": True, "seed": SEED, "disable_pbar": True}
    return comfy.sample.sample(model, torch.zeros_like(begun), STEPS, CFG, "euler", "normal", *prompts, begun, **rest)


@pytest.mark.parametrize("inject", ["every step", "first step"])
@pytest.mark.parametrize(
    ("mode", "split"), [("paper", 1), ("paper", 3), ("paper", 4), ("trajectories", 3), ("trajectories", 4)]
)
def test_a_run_split_in_two_is_the_run(model, clip, vae, prompts, mode, inject, split):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, guidance=VisionGuidance(inject=inject), mode=mode)
    whole = sample(ours, our_prompts)
    torch.testing.assert_close(in_two(ours, our_prompts, split), whole, rtol=0, atol=1e-5 * float(whole.std()))


def test_trajectories_that_are_split_before_t0_are_refused(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, **APART)
    with pytest.raises(ValueError, match='stops at noise level .* latent of its own. Let it stop .* mode "paper"'):
        sample(ours, our_prompts, last_step=1, force_full_denoise=False)
    begun = sample(model, prompts, last_step=1, force_full_denoise=False)
    with pytest.raises(ValueError, match="goes on from a latent at noise level .* latent of its own"):
        going_on(ours, our_prompts, begun, 1)
