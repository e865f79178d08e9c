"""Editing in real ComfyUI samplers: against a plain loop, what stays as it is, and what is refused."""

import logging

import comfy.hooks
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_custom_sampler import CFGGuider, DisableNoise, RandomNoise, SamplerCustomAdvanced
from stagecraft.core.comfy.guider import Prompts
from stagecraft.core.comfy.sticker_world import register_model_class
from stagecraft.core.editing.comfy.edit import edit_picture
from stagecraft.core.editing.edits import EditError, insert, move, remove, replace
from stagecraft.core.inversion.comfy.invert import invert_latent
from stagecraft.core.inversion.comfy.samplers import adds_noise
from stagecraft.core.inversion.inversion import rising_sigmas
from stagecraft.core.layered_rendering.comfy.deltas import colour_latent
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance
from stagecraft.core.layout.layout import parse_layout
from stagecraft.core.layout.region import Region
from stagecraft.nodes.editing.edit_picture import StageEditPicture
from stagecraft.nodes.editing.edits import StageEditInsert, StageEditMove, StageEditRemove, StageEditReplace
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.world.scene import make_scene
from stagecraft.tests.comfy.conftest import NEGATIVE, PROMPT, encode
from stagecraft.tests.comfy.families import FAMILIES, build_family
from stagecraft.tests.comfy.layered_rendering.slow_layers import SlowLayer, SlowRun

import nodes as comfy_nodes

STEPS, CFG, T0 = 5, 2.0, 0.5
SIZE = 64  # pixels; 8 cells
DOG = Region("a dog", box=(0.25, 0.25, 0.75, 0.75), colour="red")


pytestmark = pytest.mark.usefixtures("no_gradients")


def picture(batch=1, height=SIZE, width=SIZE):
    return torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(5))


def corner(height=SIZE, width=SIZE):
    """A mask of the upper left quarter."""
    mask = torch.zeros(1, height, width)
    mask[:, : height // 2, : width // 2] = 1
    return mask


def edited(model, clip, vae, edits, prompts, image=None, **settings):
    """Model, prompts, latent and mask of an edit."""
    settings = {"t0": T0, "strength": 1.0, "background": "on a meadow", "edge": 8} | settings
    image = picture() if image is None else image
    model, positive, negative, latent, mask = edit_picture(model, clip, vae, image, edits, *prompts, **settings)
    return model, (positive, negative), latent, mask


def sample(model, prompts, latent, *, steps=STEPS, sampler="euler", seed=7, noise=None, **more):
    noise = comfy.sample.prepare_noise(latent, seed) if noise is None else noise
    return comfy.sample.sample(
        model, noise, steps, CFG, sampler, "normal", *prompts, latent, seed=seed, disable_pbar=True, **more
    )


def cells(mask):
    """Mean of every 8 x 8 pixels of a mask (1 h w), as (1 1 h w)."""
    return mask.reshape(1, 1, mask.shape[1] // 8, 8, mask.shape[2] // 8, 8).mean((3, 5))


# --- against a plain loop ---


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


# --- what stays as it is ---


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


def test_with_a_lora_a_control_net_and_stock_nodes(model, clip, vae, prompts, control_net):
    generator = torch.Generator().manual_seed(5)
    key, weight = next((n, w) for n, w in model.model.diffusion_model.named_parameters() if "attn2.to_v" in n)
    name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
    lora = {
        f"{name}.lora_up.weight": torch.randn(weight.shape[0], 2, generator=generator),
        f"{name}.lora_down.weight": torch.randn(2, weight.shape[1], generator=generator),
    }
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 0.5, 0)
    hint = torch.rand(1, SIZE, SIZE, 3, generator=generator)
    controlled = comfy_nodes.ControlNetApplyAdvanced().apply_controlnet(*prompts, control_net, hint, 0.8, 0.0, 1.0)
    plain = sample(model, prompts, vae.encode(picture()))
    results = []
    for base, given in ((model, prompts), (patched, prompts), (model, controlled)):
        ours, our_prompts, latent, mask = edited(base, clip, vae, [insert(DOG)], given)
        found = sample(ours, our_prompts, latent)
        outside = (cells(mask) == 0).expand_as(latent)
        assert torch.equal(found[outside], latent[outside])
        assert all(not torch.equal(found, other) for other in results)
        results.append(found)
    (guider,) = CFGGuider.execute(ours, *our_prompts, CFG).args
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)
    euler = comfy.samplers.sampler_object("euler")
    for noise, refused in ((RandomNoise.execute(7).args[0], False), (DisableNoise.execute().args[0], True)):
        if refused:
            with pytest.raises(EditError, match="adds no noise"):
                SamplerCustomAdvanced.execute(noise, guider, euler, sigmas, {"samples": latent})
        else:
            advanced = SamplerCustomAdvanced.execute(noise, guider, euler, sigmas, {"samples": latent})[0]
            torch.testing.assert_close(advanced["samples"], results[-1])
    assert torch.equal(sample(model, prompts, vae.encode(picture())), plain)


@pytest.mark.parametrize("name", FAMILIES)
def test_on_every_family_pictures_and_videos(name):
    family = build_family(name)
    frames = 4 * (family.frames[0] - 1) + 1 if family.frames else 1
    image = picture(frames, 64, 96)
    texts = (encode(family.clip, PROMPT), encode(family.clip, NEGATIVE))
    edits = [insert(DOG), move(corner(64, 96), "a cat", 0.0, 0.4)]
    ours, our_prompts, latent, mask = edited(family.model, family.clip, family.vae, edits, texts, image)
    assert latent.shape == family.latent(8, 12).shape
    found = sample(ours, our_prompts, latent, steps=3)
    free = cells(mask).reshape((1,) * (latent.ndim - 2) + (8, 12)).expand_as(latent)
    assert torch.isfinite(found).all()
    assert torch.equal(found[free == 0], latent[free == 0]) and (free == 0).any()
    assert (found - latent)[free == 1].abs().min() > 0


# --- what is refused ---


def test_a_latent_that_is_not_the_pictures_is_refused(model, clip, vae, prompts):
    ours, our_prompts, latent, _ = edited(model, clip, vae, [insert(DOG)], prompts)
    with pytest.raises(EditError, match=r"The latent is 12 x 8 cells, .* \(64 x 64 pixels\). Connect the latent"):
        sample(ours, our_prompts, torch.ones(1, 4, 8, 12))
    with pytest.raises(EditError, match="The latent is empty. Connect the latent output of Edit Picture"):
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


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
def test_every_scheduler_makes_a_whole_run(model, clip, vae, prompts, scheduler):
    ours, our_prompts, latent, mask = edited(model, clip, vae, [insert(DOG)], prompts)
    noise = comfy.sample.prepare_noise(latent, 7)
    found = comfy.sample.sample(
        ours, noise, 10, CFG, "euler", scheduler, *our_prompts, latent, seed=7, disable_pbar=True
    )
    outside = (cells(mask) == 0).expand_as(latent)
    assert torch.isfinite(found).all() and torch.equal(found[outside], latent[outside])


def test_kept_noise_needs_a_sampler_without_noise(model, clip, vae, prompts):
    sampler = "dpmpp_2m_sde"
    assert adds_noise(comfy.samplers.sampler_object(sampler))
    edit = replace(corner(), "a dog", whole_box=True, keep=0.5)
    ours, our_prompts, latent, _ = edited(model, clip, vae, [edit], prompts)
    with pytest.raises(ValueError, match=f'"{sampler}" adds fresh noise .* Choose euler'):
        sample(ours, our_prompts, latent, sampler=sampler)


def test_edits_of_edits_and_of_layers_are_refused(model, clip, vae, prompts):
    ours, our_prompts, latent, _ = edited(model, clip, vae, [remove(corner())], prompts)
    with pytest.raises(EditError, match="comes from another Edit Picture"):
        edited(ours, clip, vae, [insert(DOG)], our_prompts)
    with pytest.raises(EditError, match="2 Edit Pictures meet"):
        sample(ours, (our_prompts[0] * 2, our_prompts[1]), latent)
    layout = parse_layout("a dog: 0 0 0.5 1", width=SIZE, height=SIZE)
    layered = render_in_layers(model, clip, None, layout, *prompts, t0=T0, strength=1.0)
    with pytest.raises(EditError, match="already has a place on the canvas"):
        edited(layered[0], clip, vae, [remove(corner())], layered[1:])


# --- the nodes ---


def test_the_nodes_hand_on_every_input(model, clip, vae, prompts):
    layout = parse_layout("a dog: 0 0 0.5 1 | colour=red | order=1\na tree: 0.5 0 1 1", width=64, height=64)
    (chain,) = StageEditInsert.execute(layout).args
    given = {"phrase": "a cat", "prompt": "my cat", "colour": "blue", "keep": 0.3}
    (chain,) = StageEditReplace.execute(corner(), shape="outline", before=chain, **given).args
    (chain,) = StageEditRemove.execute(corner(), "a car", before=chain).args
    (chain,) = StageEditMove.execute(corner(), "a bus", 0.2, -0.1, before=chain).args
    assert [edit.action for edit in chain] == ["insert", "insert", "replace", "remove", "move"]
    assert [edit.region.phrase for edit in chain[:2]] == ["a tree", "a dog"]
    new = chain[2].region
    assert (new.phrase, new.prompt, new.colour, chain[2].keep) == ("a cat", "my cat", "blue", 0.3)
    assert torch.equal(new.mask, corner()[0]) and chain[3].gone == "a car"
    assert chain[4].gone == "a bus" and chain[4].shift == (0.2, -0.1)
    (boxed,) = StageEditReplace.execute(corner(), shape="box", **given).args
    assert boxed[0].region.box == (0, 0, 0.5, 0.5)
    with pytest.raises(EditError, match="2 layouts; expected one"):
        StageEditInsert.execute((layout, layout))

    settings = {
        "background": "grass",
        "source_prompt": "a cow",
        "t0": 0.4,
        "strength": 0.3,
        "edge": 6,
        "refinements": 2,
    }
    node = StageEditPicture.execute(picture(), model, clip, vae, *prompts, edits=boxed, **settings).args
    core = edit_picture(model, clip, vae, picture(), boxed, *prompts, **settings)
    assert torch.equal(node[3]["samples"], core[3]) and torch.equal(node[4], core[4])
    for found, expected in zip(node[1] + node[2], core[1] + core[2], strict=True):
        assert torch.equal(found[0], expected[0]) and found[1].keys() == expected[1].keys()
        for key, value in expected[1].items():
            assert torch.equal(found[1][key], value) if isinstance(value, torch.Tensor) else found[1][key] == value


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


def test_vision_guidance_of_another_kind_and_loras_on_prompts(model, clip, vae, prompts):
    plain = sample(model, prompts, vae.encode(picture()))
    key, weight = next((n, w) for n, w in model.model.diffusion_model.named_parameters() if "attn2.to_v" in n)
    name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
    generator = torch.Generator().manual_seed(5)
    lora = {
        f"{name}.lora_up.weight": torch.randn(weight.shape[0], 2, generator=generator),
        f"{name}.lora_down.weight": torch.randn(2, weight.shape[1], generator=generator),
    }
    hook = comfy.hooks.create_hook_lora(lora, 0.5, 0.0)
    hooked = comfy.hooks.set_hooks_for_conditioning(prompts[0], hook), prompts[1]
    dynamic = {"guidance": VisionGuidance("dynamic", top_k=5)}
    results = []
    for given, more in ((prompts, {}), (prompts, dynamic), (hooked, {})):
        ours, our_prompts, latent, mask = edited(model, clip, vae, [insert(DOG)], given, **more)
        found = sample(ours, our_prompts, latent)
        outside = (cells(mask) == 0).expand_as(latent)
        assert torch.isfinite(found).all() and torch.equal(found[outside], latent[outside])
        assert all(not torch.equal(found, other) for other in results)
        results.append(found)
    assert torch.equal(sample(model, prompts, latent), plain)


# --- the embedded checkpoint ---


def psnr(found, given):
    """In dB, of pictures in 0..1."""
    return float(-10 * torch.log10((found - given).square().mean()))


@pytest.fixture(scope="module")
def embedded():
    register_model_class()
    return comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), embedding_directory=[])


@pytest.mark.parametrize("action", ["insert", "replace", "remove", "move"])
def test_the_rest_of_a_picture_stays_at_35_db(embedded, action):
    model, clip, vae, _ = embedded
    scene = make_scene(77, 1, held_out=None, counts=(0, 0, 1.0))
    image = torch.from_numpy(scene.image)[None].float() / 255
    thing = scene.objects[-1]
    mask, phrase = torch.from_numpy(thing.visible)[None], f"a {thing.concept}"
    edit = {
        "insert": insert(Region("a cat", box=(0.6, 0.55, 0.95, 0.9), colour="#f3a04b")),
        "replace": replace(mask, "a cat", whole_box=True, colour="#f3a04b"),
        "remove": remove(mask, phrase),
        "move": move(mask, phrase, 0.3, 0.1),
    }[action]
    texts = (encode(clip, scene.caption), encode(clip, ""))
    ours, positive, negative, latent, free = edit_picture(
        model, clip, vae, image, [edit], *texts, t0=0.5, strength=0.6, source_prompt=scene.caption
    )
    result = vae.decode(sample(ours, (positive, negative), latent, steps=8))[0]
    outside = free[0] == 0
    given = vae.decode(latent)[0]
    assert psnr(result[outside], given[outside]) >= 35
    if edit.shift is None:
        assert torch.equal(latent, vae.encode(image))
    assert psnr(result[free[0] == 1], given[free[0] == 1]) < 30, "nothing was edited"


def test_the_embedded_model_finds_its_way_back(embedded):
    """Latents at 50 dB of their range and pixels at 40 dB in 20 steps of the default inversion."""
    model, clip, vae, _ = embedded
    scene = make_scene(77, 0, held_out=None, counts=(0, 0, 1.0))
    latent = vae.encode(torch.from_numpy(scene.image)[None].float() / 255)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 20)
    text = encode(clip, scene.caption)
    inverted = invert_latent(model, Prompts(text), latent, rising_sigmas(sigmas), refinements=1, disable_pbar=True)[-1]
    clean = model.model.process_latent_in(latent)
    noise = (inverted - clean) / torch.sqrt(sigmas[0] ** 2 + 1)
    back = comfy.sample.sample(
        model, noise, 20, 1.0, "euler", "normal", text, text, latent, seed=0, disable_pbar=True
    )  # fmt: skip
    found = model.model.process_latent_in(back)
    extent = float(clean.max() - clean.min())
    assert 10 * torch.log10(extent**2 / (found - clean).square().mean()) > 50
    assert psnr(vae.decode(back), vae.decode(latent)) > 40
