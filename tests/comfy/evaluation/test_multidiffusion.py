"""The evaluation's MultiDiffusion baseline, against a slow loop that shares no code with it."""

import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import torch
from stagecraft.core.layout.reading import parse_layout
from stagecraft.evaluation.baselines.multidiffusion.method import COLOURS, paint_regions
from stagecraft.tests.comfy.conftest import encode

STEPS, CFG, SEED = 10, 2.0, 7
BOOTSTRAPPED = 0.2
CANVAS, CELLS = 64, 8  # pixels, latent cells
BACKGROUND, NEGATIVE = "on a green meadow", "blurry"
# Two regions of whole cells that overlap, and in cells: rows, columns.
TEXT = "a dog: 0.125 0.125 0.75 0.5\na cat: 0.5 0.25 1 0.875"
PLACES = [("a dog", (1, 4, 1, 6)), ("a cat", (2, 7, 4, 8))]


pytestmark = pytest.mark.usefixtures("no_gradients")


def prepare(model, clip, vae, text=TEXT, bootstrapped=BOOTSTRAPPED, **more):
    layout = parse_layout(text, width=CANVAS, height=CANVAS, background=BACKGROUND)
    negatives = [encode(clip, NEGATIVE)] * 2
    return paint_regions(model, clip, vae, layout, *negatives, bootstrapped, SEED, **more)


def sample(model, positive, negative, sampler="euler", batch=1, steps=STEPS):
    latent = torch.zeros(batch, 4, CELLS, CELLS)
    noise = comfy.sample.prepare_noise(latent, SEED)
    return comfy.sample.sample(
        model, noise, steps, CFG, sampler, "normal", positive, negative, latent, seed=SEED, disable_pbar=True
    )


def seen_by_the_network(model, positive, negative, sampler="euler"):
    """What every evaluation saw, one row per region and prompt: (sigma, rows at the size of the sampler's state)."""
    calls = []
    model = model.clone()

    def look(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
        sigma = transformer_options["sigmas"][0]
        calls.append((float(sigma), list(x * (sigma**2 + 1) ** 0.5)))
        return executor(x, timesteps, context, y, control, transformer_options, **kwargs)

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "look", look)
    sample(model, positive, negative, sampler)
    return calls


def slow(model, clip, vae, kind):
    """Steps of every region from what it sees, averaged by the masks, cell by cell."""
    network, sampling = model.model.diffusion_model, model.get_model_object("model_sampling")
    colour = torch.rand(1, 3, generator=torch.Generator().manual_seed(SEED))
    flat = vae.encode(torch.ones(1, 64, 64, 3) * colour)  # the small model's latent format is SD 1.5's
    colour = 0.18215 * flat[0, :, 4, 4]
    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, CELLS, CELLS), SEED)
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", STEPS)
    x = noise * (1.0 if kind == "FLOW" else (sigmas[0] ** 2 + 1) ** 0.5)
    inside = [torch.zeros(CELLS, CELLS) for _ in range(3)]
    for number, (_, (top, bottom, left, right)) in enumerate(PLACES, 1):
        inside[number][top:bottom, left:right] = 1
    inside[0] = ((inside[1] + inside[2]) == 0).float()

    for i, sigma in enumerate(sigmas[:-1]):
        timestep = sampling.timestep(sigma)
        late = timestep <= 800 if kind == "EPS" else sigma <= 0.8
        steps = torch.zeros(3, *x.shape)
        for number, prompt in enumerate([BACKGROUND, *(phrase for phrase, _ in PLACES)]):
            if kind == "FLOW":
                around = (1 - sigma) * colour.view(1, 4, 1, 1) + sigma * noise
            else:
                around = colour.view(1, 4, 1, 1) + sigma * noise
            seen = x if late or number == 0 else inside[number] * x + (1 - inside[number]) * around
            predictions = []
            for text in (prompt, NEGATIVE):
                scale = 1.0 if kind == "FLOW" else (sigma**2 + 1) ** -0.5
                output = network(seen * scale, timestep.view(1), context=encode(clip, text)[0][0])
                predictions.append(seen - sigma * output)
            denoised = predictions[1] + CFG * (predictions[0] - predictions[1])
            steps[number] = seen + (seen - denoised) / sigma * (sigmas[i + 1] - sigma)
        for row in range(CELLS):
            for column in range(CELLS):
                weights = [mask[row, column] for mask in inside]
                stepped = sum(w * step[:, :, row, column] for w, step in zip(weights, steps, strict=True))
                x[:, :, row, column] = stepped / sum(weights)
    return x / 0.18215


@pytest.mark.parametrize("kind", ["EPS", "FLOW"])
def test_it_equals_a_plain_loop_over_the_regions(make_model, clip, vae, kind):
    model = make_model(kind)
    expected = slow(model, clip, vae, kind)
    found = sample(*prepare(model, clip, vae, colours=1))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    plain = sample(model, encode(clip, BACKGROUND), encode(clip, NEGATIVE))
    assert (plain - expected).abs().max() > 0.05 * expected.abs().max()


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_one_region_everywhere_is_plain_sampling(model, clip, vae, sampler):
    found = sample(*prepare(model, clip, vae, "a dog: 0 0 1 1"), sampler=sampler)
    plain = sample(model, encode(clip, "a dog"), encode(clip, NEGATIVE), sampler=sampler)
    assert (found - plain).abs().max() < 1e-4 * plain.abs().max()


@pytest.mark.parametrize(("sampler", "share"), [("euler", 0.2), ("heun", 0.4), ("euler", 0.0), ("euler", 1.0)])
def test_only_the_first_share_of_the_run_is_bootstrapped(model, clip, vae, sampler, share):
    calls = seen_by_the_network(*prepare(model, clip, vae, bootstrapped=share), sampler)
    threshold = model.get_model_object("model_sampling").percent_to_sigma(share)
    early = [rows for sigma, rows in calls if sigma > threshold]
    assert share - 0.1 < len(early) / len(calls) <= share + 0.1
    for sigma, rows in calls:
        assert len(rows) == 6  # background and two regions, each with its prompt and the negative prompt
        different = {tuple(row.flatten().tolist()) for row in rows}
        assert len(different) == (3 if sigma > threshold else 1)


def test_colours_are_constant_and_change(model, clip, vae):
    """What stands around a region is a constant once the noise is taken off, and not the same one every time."""
    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, CELLS, CELLS), SEED)[0]
    threshold = model.get_model_object("model_sampling").percent_to_sigma(BOOTSTRAPPED)
    outside = torch.ones(CELLS, CELLS, dtype=torch.bool)
    for _, (top, bottom, left, right) in PLACES:
        outside[top:bottom, left:right] = False
    found = set()
    for sigma, rows in seen_by_the_network(*prepare(model, clip, vae)):
        if sigma > threshold:
            plain = [(row - sigma * noise)[:, outside] for row in rows]
            constant = [p.mean(1) for p in plain if p.std(1).max() < 1e-4]
            assert len(constant) == 4  # two regions, each with its prompt and the negative prompt
            found |= {tuple(round(v, 3) for v in colour.tolist()) for colour in constant}
    assert 2 < len(found) <= COLOURS


def test_the_same_seed_paints_the_same_and_leaves_the_model_as_it_was(model, clip, vae):
    before = sample(model, encode(clip, "a dog"), encode(clip, NEGATIVE))
    prepared = prepare(model, clip, vae)
    assert torch.equal(sample(*prepared), sample(*prepared))
    assert torch.equal(sample(model, encode(clip, "a dog"), encode(clip, NEGATIVE)), before)
    assert not torch.allclose(sample(*prepare(model, clip, vae, colours=1)), sample(*prepared))


def test_a_region_smaller_than_a_cell_is_refused(model, clip, vae):
    with pytest.raises(ValueError, match='region "a dog" covers no cell'):
        sample(*prepare(model, clip, vae, "a dog: 0 0 0.05 0.05"))
