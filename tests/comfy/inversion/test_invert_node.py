"""Invert in the graph: where its outputs start a run, what comes back, and which runs are refused."""

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_custom_sampler import BasicGuider, RandomNoise, SamplerCustomAdvanced, SplitSigmas
from stagecraft.core.comfy.guider import Prompts
from stagecraft.core.comfy.sticker_world import register_model_class
from stagecraft.core.inversion.comfy.invert import DDIM, invert_latent
from stagecraft.core.inversion.comfy.start import Inversion, InvertedNoise, falling_levels, invert_to_start, start_runs
from stagecraft.core.inversion.inversion import rising_sigmas
from stagecraft.nodes.inversion.invert import StageInvert
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.world.scene import make_scene
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.families import FAMILIES, build_family

import nodes as comfy_nodes

STEPS = 6
PROMPT = "a dog and a cat on a green meadow"
KINDS = ("EPS", "V_PREDICTION", "FLOW")

pytestmark = pytest.mark.usefixtures("no_gradients")


def a_latent(batch=1, height=8):
    return torch.randn(batch, 4, height, 8, generator=torch.Generator().manual_seed(0)) / 0.18215


def inverted(model, clip, latent=None, **given):
    """The node's outputs: model, latent, noise, psnr, report."""
    settings = {
        "steps": STEPS,
        "scheduler": "normal",
        "method": "euler",
        "refinements": 1,
        "cfg": 1.0,
        "forward_noise_first_k": 0,
        "renormalise": False,
        "measure": False,
        "seed": 0,
    }
    latent = {"samples": a_latent() if latent is None else latent}
    return StageInvert.execute(model=model, positive=encode(clip), latent=latent, **settings | given).args


def first_state(model, run):
    """The state that a run's sampler starts from."""
    seen = []

    def sample_euler(denoise, x, sigmas, extra_args=None, callback=None, disable=None):
        seen.append(x.clone())
        return x

    run(model, comfy.samplers.KSAMPLER(sample_euler))
    return seen[0]


def by_noise(noise, sigmas, latent, clip):
    """A run of SamplerCustomAdvanced."""

    def run(model, sampler):
        guider = BasicGuider.execute(model, encode(clip)).args[0]
        return SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, {"samples": latent}).args[0]["samples"]

    return run


def by_latent(latent, sigmas, clip):
    """A run without noise, as KSampler (Advanced) does it with add_noise disabled."""

    def run(model, sampler):
        positive = encode(clip)
        return comfy.sample.sample_custom(
            model, torch.zeros_like(latent), 1.0, sampler, sigmas, positive, positive, latent, disable_pbar=True
        )

    return run


# --- where a run starts ---


@pytest.mark.parametrize("levels", ["whole", "part"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_start_where_the_inversion_ended(make_model, clip, kind, levels):
    model = make_model(kind)
    sigmas = falling_levels(model, "normal", STEPS)[0 if levels == "whole" else 2 :]
    state = invert_latent(model, Prompts(encode(clip)), a_latent(2), rising_sigmas(sigmas), disable_pbar=True)[-1]
    started, latent, noise, *_ = inverted(model, clip, a_latent(2), sigmas=sigmas, refinements=0)
    ways = [by_noise(noise, sigmas, other, clip) for other in (torch.zeros(2, 4, 8, 8), a_latent(2))]
    for run in [*ways, by_latent(latent["samples"], sigmas, clip)]:
        torch.testing.assert_close(first_state(started, run), state, atol=1e-4 * state.std().item(), rtol=1e-5)
    if kind != "FLOW" or levels == "part":  # nothing of a flow model's latent is left at its highest level
        found = first_state(model, by_latent(latent["samples"], sigmas, clip))
        torch.testing.assert_close(found, state, atol=1e-4 * state.std().item(), rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_starts_every_family(name):
    family = build_family(name)
    sigmas = falling_levels(family.model, "simple", 2)
    latent = torch.randn(family.latent(8, 8).shape, generator=torch.Generator().manual_seed(1))
    positive = family.clip.encode_from_tokens_scheduled(family.clip.tokenize("a dog"))
    start = invert_to_start(family.model, Prompts(positive), latent, sigmas, Inversion(DDIM), disable_pbar=True)
    model = start_runs(family.model, start, refuse_noise=True)

    class Clip:
        tokenize, encode_from_tokens_scheduled = staticmethod(lambda text: text), staticmethod(lambda text: positive)

    empty = torch.zeros_like(latent)
    for run in (by_noise(InvertedNoise(start), sigmas, empty, Clip), by_latent(start.latent(), sigmas, Clip)):
        found = first_state(model, run)
        torch.testing.assert_close(found, start.state, atol=1e-3 * start.state.std().item(), rtol=1e-4)


def test_a_part_of_a_batch_and_a_repeated_one_get_their_rows(model, clip):
    sigmas = falling_levels(model, "normal", STEPS)
    _, latent, noise, *_ = inverted(model, clip, a_latent(3))
    whole = noise.generate_noise({"samples": torch.zeros(3, 4, 8, 8)})
    part = noise.generate_noise({"samples": torch.zeros(1, 4, 8, 8), "batch_index": [2]})
    assert torch.equal(part, whole[2:])
    assert torch.equal(noise.generate_noise({"samples": torch.zeros(6, 4, 8, 8)}), whole.repeat(2, 1, 1, 1))
    assert latent["samples"].shape == (3, 4, 8, 8)
    with pytest.raises(ValueError, match=r"is 4x8x16 .* but the inversion is 4x8x8"):
        by_noise(noise, sigmas, torch.zeros(1, 4, 8, 16), clip)(model, comfy.samplers.sampler_object("euler"))


# --- what comes back ---


@pytest.fixture(scope="module")
def embedded():
    """The embedded checkpoint, a picture's latent, and the node's outputs for it."""
    register_model_class()
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE))
    with torch.no_grad():
        latent = vae.encode(torch.from_numpy(make_scene(7, 0).image)[None].float() / 255)
        found = StageInvert.execute(
            model=model,
            positive=encode(clip, ""),
            latent={"samples": latent},
            steps=20,
            scheduler="normal",
            method="euler",
            refinements=1,
            cfg=1.0,
            forward_noise_first_k=0,
            renormalise=False,
            measure=True,
            seed=0,
            vae=vae,
        ).args
    return model, encode(clip, ""), vae, latent, found


@pytest.mark.parametrize("way", ["KSampler (Advanced)", "SamplerCustomAdvanced"])
def test_the_embedded_checkpoint_gives_the_picture_back(embedded, way):
    """Issue 4: at CFG 1 on the same levels at least 30 dB against the VAE's round trip."""
    model, positive, vae, latent, (started, start, noise, psnr, report) = embedded
    if way == "SamplerCustomAdvanced":
        guider = BasicGuider.execute(started, positive).args[0]
        sigmas = falling_levels(model, "normal", 20)
        euler = comfy.samplers.sampler_object("euler")
        empty = {"samples": torch.zeros_like(latent)}
        back = SamplerCustomAdvanced.execute(noise, guider, euler, sigmas, empty).args[0]["samples"]
    else:
        (result,) = comfy_nodes.KSamplerAdvanced().sample(
            started, "disable", 0, 20, 1.0, "euler", "normal", positive, positive, start, 0, 10000, "disable"
        )
        back = result["samples"]
    found = float(-10 * torch.log10((vae.decode(back) - vae.decode(latent)).square().mean()))
    assert found >= 30
    assert psnr == pytest.approx(found, abs=0.3)
    assert "against the VAE's round trip" in report and f"{psnr:.1f} dB" in report


def tame(model):
    """Random weights are no denoiser; most of the way to the prediction for Gaussian data they nearly are one."""

    def nearly(apply, a):
        sigma = a["timestep"].reshape(-1, 1, 1, 1)
        return 0.1 * apply(a["input"], a["timestep"], **a["c"]) + 0.9 * a["input"] / (1 + sigma**2)

    model = model.clone()
    model.set_model_unet_function_wrapper(nearly)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_more_refinements_come_back_closer_whatever_the_model_predicts(make_model, clip, kind):
    model = tame(make_model(kind))
    psnrs = [inverted(model, clip, refinements=n, measure=True, steps=12)[3] for n in (0, 1, 4)]
    assert psnrs[0] < psnrs[1] < psnrs[2] and psnrs[2] > 40, psnrs


@pytest.mark.parametrize("kind", KINDS)
def test_ddim_tells_the_network_the_level_of_arrival(make_model, clip, kind):
    """Against the formula in the model's own scale, with the clean prediction of the departing state."""
    model = make_model(kind)
    rising = rising_sigmas(falling_levels(model, "normal", STEPS))
    states = invert_latent(model, Prompts(encode(clip)), a_latent(), rising, method=DDIM, disable_pbar=True)
    context = encode(clip)[0][0]
    sampling = model.get_model_object("model_sampling")
    for i in range(1, STEPS):  # the first, tiny level has no better precision than float32
        sigma, following = rising[i], rising[i + 1]
        seen = states[i] if kind == "FLOW" else states[i] / (sigma**2 + 1) ** 0.5
        output = model.model.diffusion_model(seen, sampling.timestep(following).float().expand(1), context=context)
        if kind == "V_PREDICTION":  # eps = (output + sigma z) / sqrt(sigma^2 + 1), with z as the network sees it
            scale = (following**2 + 1) ** 0.5
            output = output / scale + following * seen / scale
        expected = states[i] + (following - sigma) * output
        torch.testing.assert_close(states[i + 1], expected, atol=1e-3 * expected.std().item(), rtol=1e-3)


def test_guidance_counts_where_it_is_asked_for(model, clip):
    plain = inverted(model, clip)[1]["samples"]
    negative = encode(clip, "blurry")
    assert torch.equal(inverted(model, clip, negative=negative)[1]["samples"], plain)
    assert not torch.allclose(inverted(model, clip, negative=negative, cfg=3.0)[1]["samples"], plain, atol=1e-3)
    with pytest.raises(ValueError, match="cfg is 3, which needs a negative prompt"):
        inverted(model, clip, cfg=3.0)


def test_replaced_steps_are_ordinary_noise(model, clip):
    plain = inverted(model, clip)[1]["samples"]
    assert torch.equal(inverted(model, clip, seed=5)[1]["samples"], plain)
    some = inverted(model, clip, forward_noise_first_k=2, seed=5)[1]["samples"]
    assert not torch.allclose(some, plain, atol=1e-2)
    every = inverted(model, clip, forward_noise_first_k=STEPS, seed=5)[1]["samples"]
    sigma = falling_levels(model, "normal", STEPS)[0]
    expected = a_latent() * 0.18215 + (1 + sigma**2) ** 0.5 * comfy.sample.prepare_noise(a_latent(), 5)
    torch.testing.assert_close(every * 0.18215, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=f"forward_noise_first_k is 7, but the schedule has {STEPS} steps"):
        inverted(model, clip, forward_noise_first_k=STEPS + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_renormalised_noise_has_the_size_of_noise(make_model, clip, kind):
    noise = inverted(make_model(kind), clip, a_latent(2), renormalise=True)[2]
    found = noise.generate_noise({"samples": torch.zeros(2, 4, 8, 8)}).flatten(1)
    torch.testing.assert_close(found.std(1), torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.mean(1), torch.zeros(2), atol=1e-4, rtol=0)


# --- what is refused ---


@pytest.mark.parametrize("way", ["latent", "noise"])
def test_samplers_that_add_noise_are_refused_only_from_this_start(model, clip, way):
    sigmas = falling_levels(model, "normal", STEPS)
    started, latent, noise, *_ = inverted(model, clip)
    ancestral, empty = comfy.samplers.sampler_object("euler_ancestral"), torch.zeros(1, 4, 8, 8)
    begin = by_latent(latent["samples"], sigmas, clip) if way == "latent" else by_noise(noise, sigmas, empty, clip)
    with pytest.raises(ValueError, match=r'"euler_ancestral" adds fresh noise .* Choose euler'):
        begin(started, ancestral)
    begin(model, ancestral)  # nothing of ours is on it
    fresh = by_noise(RandomNoise.execute(3).args[0], sigmas, empty, clip)
    torch.manual_seed(0)
    found = fresh(started, ancestral)  # a second pass, say
    torch.manual_seed(0)
    assert torch.equal(found, fresh(model, ancestral))


def test_a_latent_at_the_wrong_level_is_refused(model, clip):
    started, latent, *_ = inverted(model, clip)
    late = falling_levels(model, "normal", STEPS)[2:]
    with pytest.raises(ValueError, match=r"ends at noise level 14\.\d+, but the run starts at .* same scheduler"):
        by_latent(latent["samples"], late, clip)(started, comfy.samplers.sampler_object("euler"))


def test_an_inversion_behind_another_is_looked_after(model, clip):
    first = inverted(model, clip)[0]
    second, latent, *_ = inverted(first, clip, a_latent(2))
    sigmas = falling_levels(model, "normal", STEPS)
    with pytest.raises(ValueError, match="adds fresh noise"):
        by_latent(latent["samples"], sigmas, clip)(second, comfy.samplers.sampler_object("euler_ancestral"))


def test_what_cannot_be_inverted_is_refused(model, clip):
    with pytest.raises(ValueError, match="The latent is empty. Connect the latent of a picture"):
        inverted(model, clip, torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match='"simple" has no 2000 different noise levels'):
        inverted(model, clip, steps=2000, scheduler="simple")
    with pytest.raises(ValueError, match="do not rise step by step"):
        inverted(model, clip, sigmas=torch.tensor([1.0, 2.0, 0.0]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_part_of_a_schedule_is_refused(make_model, clip, kind):
    """Between a picture and its last level an inversion would take one step where the sampler takes many."""
    model = make_model(kind)
    sigmas = falling_levels(model, "normal", STEPS)
    high, low = (each for each in SplitSigmas.execute(sigmas, 3).args)
    with pytest.raises(ValueError, match=r"end at .* the model's lowest level is .* low_sigmas of SplitSigmas"):
        inverted(model, clip, sigmas=high)
    for whole in (low, sigmas, sigmas[:-1]):  # a schedule may leave the 0 out
        assert torch.isfinite(inverted(model, clip, sigmas=whole)[1]["samples"]).all()
    replaced = inverted(model, clip, sigmas=high, forward_noise_first_k=1)[1]["samples"]
    assert torch.isfinite(replaced).all()


def test_a_plain_run_is_as_before(model, clip):
    sigmas = falling_levels(model, "normal", STEPS)
    run = by_noise(RandomNoise.execute(1).args[0], sigmas, torch.zeros(1, 4, 8, 8), clip)
    before = run(model, comfy.samplers.sampler_object("euler"))
    started, *_ = inverted(model, clip, measure=True)
    assert torch.equal(run(model, comfy.samplers.sampler_object("euler")), before)
    assert torch.equal(run(started, comfy.samplers.sampler_object("euler")), before)


def test_an_interrupted_inversion_leaves_the_model_as_it_was(model, clip):
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        inverted(model, clip)
    assert torch.equal(inverted(model, clip)[1]["samples"], inverted(model, clip)[1]["samples"])
