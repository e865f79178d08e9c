"""Inversion through ComfyUI's guider and samplers, against a plain loop, and which samplers cannot follow one."""

import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerDPMAdaptative, SamplerDPMPP_SDE, SamplerER_SDE
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from stagecraft.core.comfy.guider import Prompts
from stagecraft.core.inversion.comfy.invert import invert_latent
from stagecraft.core.inversion.comfy.samplers import adds_noise, require_deterministic, sampler_name
from stagecraft.core.inversion.inversion import rising_sigmas
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layout.reading import parse_layout
from stagecraft.tests.comfy.conftest import encode

STEPS = 6
PROMPT = "a dog and a cat on a green meadow"


pytestmark = pytest.mark.usefixtures("no_gradients")


def levels(model, steps=STEPS):
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)


def a_latent(batch=1):
    return torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def predict(model, clip, kind, x, sigma, text=PROMPT):
    """The network's clean prediction, with the parametrisations written out."""
    when = model.get_model_object("model_sampling").timestep(sigma).float().expand(len(x))
    scale = 1.0 if kind == "FLOW" else (sigma**2 + 1) ** -0.5
    context = encode(clip, text)[0][0].expand(len(x), -1, -1)
    output = model.model.diffusion_model(x * scale, when, context=context)
    if kind == "V_PREDICTION":
        return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1) ** 0.5
    return x - sigma * output


@pytest.mark.parametrize("refinements", [0, 2])
@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
def test_it_follows_the_model_itself(make_model, clip, kind, refinements):
    model = make_model(kind)
    rising = rising_sigmas(levels(model))
    found = invert_latent(model, Prompts(encode(clip)), a_latent(), rising, refinements=refinements, disable_pbar=True)
    x = a_latent() * 0.18215
    x = x * (1 - rising[0]) if kind == "FLOW" else x
    states, slope = [x], None
    for i in range(len(rising) - 1):
        step = rising[i + 1] - rising[i]
        if refinements == 0 or i == 0:
            slope = (x - predict(model, clip, kind, x, rising[i])) / rising[i]
        arriving = x + step * slope
        for _ in range(refinements):
            slope = (arriving - predict(model, clip, kind, arriving, rising[i + 1])) / rising[i + 1]
            arriving = x + step * slope
        x = arriving
        states.append(x)
    expected = torch.stack(states)
    assert found.shape == (STEPS + 1, 1, 4, 8, 8)
    # The first slope is a difference of nearly equal numbers; it counts for the first, short step only.
    torch.testing.assert_close(found / expected.std(), expected / expected.std(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
def test_sampling_on_the_same_levels_returns_to_the_picture(make_model, clip, kind):
    """Random weights are no denoiser, so the network's answer counts for a tenth: then the iteration contracts."""
    model = make_model(kind)
    model.set_model_unet_function_wrapper(lambda apply, a: _tamed(apply(a["input"], a["timestep"], **a["c"]), a))
    sigmas, latent = levels(model, 12), a_latent() / 0.18215
    errors = []
    for refinements in (0, 1, 3, 12):
        states = invert_latent(
            model, Prompts(encode(clip)), latent, rising_sigmas(sigmas), refinements=refinements, disable_pbar=True
        )
        x, clean = states[-1], states[0]
        sampling = model.get_model_object("model_sampling")
        unit = sampling.noise_scaling(sigmas[0], torch.ones_like(x), torch.zeros_like(x), True)
        base = sampling.noise_scaling(sigmas[0], torch.zeros_like(x), latent * 0.18215, True)
        back = comfy.sample.sample(
            model,
            (x - base) / unit,
            12,
            1.0,
            "euler",
            "normal",
            encode(clip),
            encode(clip, ""),
            latent,
            seed=0,
            disable_pbar=True,
        )
        errors.append(((back * 0.18215 - clean).abs().max() / clean.std()).item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[3] < 5e-3, errors


def _tamed(denoised, a):
    """Most of the way from the model's prediction to that for Gaussian data."""
    sigma = a["timestep"].reshape(-1, 1, 1, 1)
    return 0.1 * denoised + 0.9 * a["input"] / (1 + sigma**2)


def test_every_row_is_inverted_by_itself(model, clip):
    rising = rising_sigmas(levels(model))
    together = invert_latent(model, Prompts(encode(clip)), a_latent(3), rising, disable_pbar=True)
    alone = invert_latent(model, Prompts(encode(clip)), a_latent(3)[1:2], rising, disable_pbar=True)
    torch.testing.assert_close(together[:, 1:2], alone, atol=1e-3, rtol=1e-3)


def test_guidance_and_other_nodes_of_ours_do_not_count(model, clip):
    rising = rising_sigmas(levels(model))
    plain = invert_latent(model, Prompts(encode(clip)), a_latent(), rising, disable_pbar=True)
    (perturbed,) = PerturbedAttentionGuidance.execute(model, 3.0).args
    layout = parse_layout("a dog: 0 0 0.5 1", width=64, height=64)
    layered, *_ = render_in_layers(perturbed, clip, None, layout, encode(clip), encode(clip, ""), Rendering(0.5, 1.0))
    kept = {kind: set(of_kind) for kind, of_kind in layered.wrappers.items()}
    assert torch.equal(invert_latent(layered, Prompts(encode(clip)), a_latent(), rising, disable_pbar=True), plain)
    assert {kind: set(of_kind) for kind, of_kind in layered.wrappers.items()} == kept
    assert "sampler_post_cfg_function" in layered.model_options


def test_progress_is_reported_once_a_step(model, clip):
    seen = []
    invert_latent(
        model,
        Prompts(encode(clip)),
        a_latent(),
        rising_sigmas(levels(model)),
        refinements=2,
        disable_pbar=True,
        callback=lambda step, clean, state, total: seen.append((step, total)),
    )
    assert seen == [(step, STEPS) for step in range(STEPS)]


# --- which samplers add noise ---


def made(node, **options):
    return node.execute(**options).args[0]


CHOSEN = {name: (lambda name=name: comfy.samplers.sampler_object(name)) for name in comfy.samplers.SAMPLER_NAMES} | {
    "euler with churn": lambda: comfy.samplers.ksampler("euler", {"s_churn": 5.0}),
    "dpmpp_sde without eta": lambda: made(SamplerDPMPP_SDE, eta=0.0, s_noise=1.0, r=0.5, noise_device="cpu"),
    "dpmpp_sde without noise": lambda: made(SamplerDPMPP_SDE, eta=1.0, s_noise=0.0, r=0.5, noise_device="cpu"),
    "dpm_adaptive with eta": lambda: made(
        SamplerDPMAdaptative,
        order=2,
        rtol=0.5,
        atol=0.5,
        h_init=0.5,
        pcoeff=0.0,
        icoeff=1.0,
        dcoeff=0.0,
        accept_safety=0.81,
        eta=1.0,
        s_noise=1.0,
    ),
    "er_sde as an ODE": lambda: made(SamplerER_SDE, solver_type="ODE", max_stage=3, eta=1.0, s_noise=1.0),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_rule_says_what_the_sampler_does(model, clip, name):
    """Two runs from the same noise with different seeds differ exactly where a sampler adds noise."""
    sampler, sigmas = CHOSEN[name](), levels(model, 4)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def run(seed):
        torch.manual_seed(seed)
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(encode(clip), encode(clip, ""))
        guider.set_cfg(2.0)
        return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas.clone(), disable_pbar=True, seed=seed)

    assert bool(adds_noise(sampler)) == (not torch.equal(run(1), run(2)))


def test_the_refusal_names_the_sampler_the_reason_and_others():
    require_deterministic(comfy.samplers.sampler_object("euler"), "this")
    message = r'"euler_ancestral" adds fresh noise at its steps \(eta 1\), but this follows .* Choose euler, heun'
    with pytest.raises(ValueError, match=message):
        require_deterministic(comfy.samplers.sampler_object("euler_ancestral"), "this")

    def sample_restart(model, x, sigmas, extra_args=None, callback=None, disable=None, segments=()):
        return x

    assert adds_noise(comfy.samplers.KSAMPLER(sample_restart)) == "its restarts"
    assert sampler_name(comfy.samplers.KSAMPLER(sample_restart)) == "restart"
    assert sampler_name(comfy.samplers.sampler_object("dpm_adaptive")) == "dpm_adaptive"
    assert adds_noise(comfy.samplers.Sampler()) == ""
