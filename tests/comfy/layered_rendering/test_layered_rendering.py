"""Layered rendering in real ComfyUI samplers, against a slow loop that shares no code with it."""

import logging

import comfy.latent_formats
import comfy.model_management
import comfy.model_sampling
import comfy.nested_tensor
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_custom_sampler import (
    BasicScheduler,
    CFGGuider,
    Guider_Basic,
    RandomNoise,
    SamplerCustomAdvanced,
)
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from stagecraft.core.layered_rendering.comfy.deltas import colour_latent
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layered_rendering.comfy.state import scale_of_state
from stagecraft.core.layered_rendering.vision_guidance import state_scale
from stagecraft.core.layout.layout import LayoutError, parse_layout
from stagecraft.tests.comfy.conftest import NEGATIVE, PROMPT, encode
from stagecraft.tests.comfy.layered_rendering.slow_layers import SlowLayer, SlowRun

import nodes as comfy_nodes

STEPS, CFG, T0 = 5, 2.0, 0.5
FULL = f"{PROMPT}: 0 0 1 1"


pytestmark = pytest.mark.usefixtures("no_gradients")


def sample(
    model, prompts, height=8, width=8, *, batch=1, steps=STEPS, sampler="euler", cfg=CFG, seed=7, noise=None, **more
):
    latent = torch.zeros(batch, 4, height, width)
    noise = comfy.sample.prepare_noise(latent, seed) if noise is None else noise
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "normal", *prompts, latent, seed=seed, disable_pbar=True, **more
    )


def layered(
    model, clip, vae, text, prompts, *, width=64, height=64, background="on a meadow", t0=T0, strength=1.0, **more
):
    layout = parse_layout(text, width=width, height=height, background=background)
    prepared = render_in_layers(model, clip, vae, layout, *prompts, Rendering(t0, strength, **more))
    return prepared[0], prepared[1:]


def slow_run(model, clip, layers, canvas, kind="EPS", t0=T0, steps=STEPS, **more):
    """Build the slow loop with ComfyUI's schedule; `layers` are (text, box in pixels, delta)."""
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", steps)
    timesteps = torch.stack([sampling.timestep(sigma) for sigma in sigmas[:-1]])
    return SlowRun(
        network=model.model.diffusion_model,
        kind=kind,
        layers=[SlowLayer(encode(clip, text)[0][0], box, delta) for text, box, delta in layers],
        positive=encode(clip, PROMPT)[0][0],
        negative=encode(clip, NEGATIVE)[0][0],
        sigmas=sigmas,
        timesteps=timesteps,
        last_layered_sigma=sampling.percent_to_sigma(t0) if t0 < 1 else 0.0,
        cfg=CFG,
        canvas=canvas,
        **more,
    )


def starting_point(run, batch=1, seed=7):
    height, width = (side // 8 for side in run.canvas)
    noise = comfy.sample.prepare_noise(torch.zeros(batch, 4, height, width), seed)
    return noise * (run.sigmas[0] if run.kind == "FLOW" else torch.sqrt(run.sigmas[0] ** 2 + 1))


def assert_same_picture(found, expected):
    """Equal to 1e-4 of the picture's own size; random weights may give large ones."""
    assert torch.isfinite(found).all()
    size = max(1.0, expected.std().item())
    torch.testing.assert_close(found / size, expected / size, atol=1e-4, rtol=0)


# --- identities, bit for bit ---


@pytest.mark.parametrize("sampler", comfy.samplers.SAMPLER_NAMES)
def test_one_full_layer_without_delta_is_plain_sampling_in_every_sampler(model, clip, prompts, sampler):
    plain = sample(model, prompts, sampler=sampler, steps=3)
    ours, our_prompts = layered(model, clip, None, FULL, prompts)
    assert len(our_prompts[0]) == 2 and our_prompts[1] is prompts[1]
    assert torch.equal(sample(ours, our_prompts, sampler=sampler, steps=3), plain)


def test_one_full_mask_on_an_odd_canvas_is_plain_sampling(model, clip, prompts):
    """A canvas that does not divide into cells: pooled ones have to stay exactly ones."""
    ours, our_prompts = layered(model, clip, None, FULL, prompts, width=77, height=61)
    assert torch.equal(sample(ours, our_prompts, 8, 10), sample(model, prompts, 8, 10))


def test_t0_of_zero_gives_back_what_came_in(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, "a dog: 0 0 0.5 1 | colour=red", prompts, t0=0.0)
    assert ours is model and our_prompts == prompts


def test_plain_sampling_is_the_same_before_and_after_and_with_our_model(model, clip, vae, prompts, caplog):
    before = sample(model, prompts)
    ours, our_prompts = layered(model, clip, vae, "a dog: 0 0 0.5 1 | colour=red", prompts)
    assert not torch.equal(sample(ours, our_prompts), before)
    assert torch.equal(sample(model, prompts), before)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(sample(ours, prompts), before)
    assert "sampling without layers" in caplog.text


def test_a_layer_without_strength_is_a_layer_without_colour(model, clip, vae, prompts):
    colourless, its_prompts = layered(model, clip, None, "a dog: 0 0 0.5 1", prompts)
    expected = sample(colourless, its_prompts)
    for text, strength in [("a dog: 0 0 0.5 1 | colour=red", 0.0), ("a dog: 0 0 0.5 1 | colour=red | strength=0", 1.0)]:
        ours, our_prompts = layered(model, clip, None, text, prompts, strength=strength)
        assert torch.equal(sample(ours, our_prompts), expected)


# --- against the slow loop ---

TWO = "a dog: 0.125 0.25 0.625 0.875 | colour=red\na cat: 0.5 0 1 0.5 | a small cat | colour=#2040ff | strength=0.5"


def two_layers(model, vae, canvas=(64, 64), strength=1.0):
    """`TWO` on a canvas of whole pixels, as the slow loop takes it."""
    height, width = canvas
    red, blue = (colour_latent(model, vae, colour, "") for colour in ("red", "#2040ff"))
    dog = (round(0.125 * width), round(0.25 * height), round(0.625 * width), round(0.875 * height))
    cat = (round(0.5 * width), 0, width, round(0.5 * height))
    return [
        ("on a meadow", None, None),
        ("a dog", dog, strength * red),
        ("a small cat", cat, 0.5 * strength * blue),
    ]


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
def test_layers_match_the_slow_loop(make_model, clip, vae, prompts, kind):
    model = make_model(kind)
    ours, our_prompts = layered(model, clip, vae, TWO, prompts)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64), kind)
    found = model.model.process_latent_in(sample(ours, our_prompts))
    assert_same_picture(found, slow(starting_point(slow)))


@pytest.mark.parametrize("t0", [0.25, 0.4, 1.0])
def test_no_step_counts_twice_or_not_at_all_at_t0(model, clip, vae, prompts, t0):
    """With five steps a quarter of the run ends exactly on a noise level; that step is the layers' last."""
    sampling = model.get_model_object("model_sampling")
    on_a_step = float(comfy.samplers.calculate_sigmas(sampling, "normal", STEPS)[1]) == sampling.percent_to_sigma(t0)
    assert on_a_step == (t0 == 0.25)
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, t0=t0)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64), t0=t0)
    assert_same_picture(model.model.process_latent_in(sample(ours, our_prompts)), slow(starting_point(slow)))


def test_odd_latent_sizes_and_boxes_between_cells(model, clip, vae, prompts):
    canvas = (72, 88)
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, height=72, width=88)
    slow = slow_run(model, clip, two_layers(model, vae, canvas), canvas)
    found = model.model.process_latent_in(sample(ours, our_prompts, 9, 11))
    assert_same_picture(found, slow(starting_point(slow)))


def test_negative_strength_pushes_the_opposite_way(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, strength=-0.7)
    slow = slow_run(model, clip, two_layers(model, vae, strength=-0.7), (64, 64))
    assert_same_picture(model.model.process_latent_in(sample(ours, our_prompts)), slow(starting_point(slow)))


def test_the_canvas_may_have_another_resolution_than_the_latent(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts)
    larger, larger_prompts = layered(model, clip, vae, TWO, prompts, width=256, height=256)
    assert_same_picture(sample(larger, larger_prompts), sample(ours, our_prompts))


def test_a_batch_is_its_pictures_one_by_one(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts)
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    together = sample(ours, our_prompts, batch=3, noise=noise)
    for i in range(3):
        assert_same_picture(sample(ours, our_prompts, noise=noise[i : i + 1]), together[i : i + 1])


def test_the_order_of_the_entries_does_not_matter(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts)
    swapped = tuple(entries[::-1] for entries in our_prompts)
    assert_same_picture(sample(ours, swapped), sample(ours, our_prompts))


def test_the_order_of_equal_regions_matters(model, clip, vae, prompts):
    first, last = TWO.split("\n")
    one, its_prompts = layered(model, clip, vae, TWO, prompts)
    other, other_prompts = layered(model, clip, vae, f"{last}\n{first}", prompts)
    same, same_prompts = layered(model, clip, vae, f"{last} | order=1\n{first}", prompts)
    assert not torch.equal(sample(other, other_prompts), sample(one, its_prompts))
    assert_same_picture(sample(same, same_prompts), sample(one, its_prompts))


def test_without_guidance_to_take_off_the_negative_prompt_is_not_needed(model, clip, vae, prompts):
    """CFG 1: ComfyUI then leaves the negative rows out, and so does a basic guider."""
    ours, our_prompts = layered(model, clip, vae, TWO, prompts)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64))
    slow.cfg = 1.0
    expected = slow(starting_point(slow))
    assert_same_picture(model.model.process_latent_in(sample(ours, our_prompts, cfg=1.0)), expected)
    guider = Guider_Basic(ours)
    guider.set_conds(our_prompts[0])
    assert_same_picture(model.model.process_latent_in(advanced(guider, model)), expected)


def advanced(guider, model, seed=7):
    (sigmas,) = BasicScheduler.execute(model, "normal", STEPS, 1.0).args
    (noise,) = RandomNoise.execute(seed).args
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    return SamplerCustomAdvanced.execute(noise, guider, comfy.samplers.sampler_object("euler"), sigmas, latent)[0][
        "samples"
    ]


def test_stock_sampler_nodes_agree(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts)
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    (stock,) = comfy_nodes.KSampler().sample(ours, 7, STEPS, CFG, "euler", "normal", *our_prompts, latent)
    assert torch.equal(stock["samples"], sample(ours, our_prompts))
    (guider,) = CFGGuider.execute(ours, *our_prompts, CFG).args
    assert torch.equal(advanced(guider, ours), stock["samples"])
    assert torch.equal(advanced(guider, ours), stock["samples"]), "the second run of one guider differs"


def test_rows_that_are_evaluated(model, clip, vae, prompts):
    """Both guided layers and the background have a caption; the negative prompt sees both guided ones and the rest."""
    rows = []

    def count(executor, x, *args, **kwargs):
        rows.append(len(x))
        return executor(x, *args, **kwargs)

    ours, our_prompts = layered(model, clip, vae, TWO, prompts, t0=0.25)
    ours.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "count", count)
    sigmas = []
    sample(ours, our_prompts, callback=lambda step, *_: sigmas.append((step, sum(rows))))
    total = [count for _, count in sigmas]
    assert [later - earlier for earlier, later in zip([0, *total], total, strict=False)] == [6, 6, 2, 2, 2]


# --- stacking ---


def test_with_a_lora(model, clip, vae, prompts):
    generator = torch.Generator().manual_seed(5)
    lora = {}
    for name, weight in model.model.diffusion_model.named_parameters():
        if name.endswith(("attn1.to_q.weight", "attn2.to_v.weight")):
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            lora[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator)
            lora[f"{key}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator)
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 0.5, 0)
    assert len(patched.patches) == len(lora) / 2 > 4
    plain = sample(model, prompts)
    ours, our_prompts = layered(patched, clip, vae, TWO, prompts)
    found = model.model.process_latent_in(sample(ours, our_prompts))
    slow = slow_run(patched, clip, two_layers(model, vae), (64, 64))
    comfy.model_management.load_models_gpu([ours])  # the slow loop reads the patched weights
    expected = slow(starting_point(slow))
    assert_same_picture(found, expected)
    after, after_prompts = layered(model, clip, vae, TWO, prompts)
    without = model.model.process_latent_in(sample(after, after_prompts))
    assert (without - found).abs().max() > 1e-2 * found.std(), "the LoRA changes nothing"
    later, _ = comfy.sd.load_lora_for_models(after, None, lora, 0.5, 0)
    assert torch.equal(model.model.process_latent_in(sample(later, after_prompts)), found)
    assert torch.equal(sample(model, prompts), plain)


@pytest.mark.parametrize("node", ["ControlNetApplyAdvanced", "ControlNetApply"])
def test_with_a_control_net_on_the_given_prompts(model, clip, vae, prompts, control_net, node):
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(6))
    if node == "ControlNetApply":
        controlled = (comfy_nodes.ControlNetApply().apply_controlnet(prompts[0], control_net, hint, 0.8)[0], prompts[1])
    else:
        apply = comfy_nodes.ControlNetApplyAdvanced().apply_controlnet
        controlled = apply(*prompts, control_net, hint, 0.8, 0.0, 1.0)
    ours, our_prompts = layered(model, clip, vae, TWO, controlled)
    found = model.model.process_latent_in(sample(ours, our_prompts))

    def control(x_in, timestep, text):
        residuals = control_net.control_model(x=x_in, hint=hint.movedim(-1, 1), timesteps=timestep, context=text)
        return {key: [value * 0.8 for value in values] for key, values in residuals.items()}

    slow = slow_run(model, clip, two_layers(model, vae), (64, 64), control=control)
    expected = slow(starting_point(slow))
    slow.control = None
    assert (slow(starting_point(slow)) - expected).abs().max() > 1e-2 * expected.std(), "the hint changes nothing"
    assert_same_picture(found, expected)


def test_with_perturbed_attention_guidance_before_or_after(model, clip, vae, prompts):
    (perturbed,) = PerturbedAttentionGuidance.execute(model, 1.5).args
    ours, our_prompts = layered(perturbed, clip, vae, TWO, prompts)
    found = sample(ours, our_prompts)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64), pag=1.5)
    assert_same_picture(model.model.process_latent_in(found), slow(starting_point(slow)))
    before, before_prompts = layered(model, clip, vae, TWO, prompts)
    (after,) = PerturbedAttentionGuidance.execute(before, 1.5).args
    assert torch.equal(sample(after, before_prompts), found)


def test_a_second_copy_on_the_model_changes_nothing(model, clip, vae, prompts, caplog):
    once, its_prompts = layered(model, clip, vae, TWO, prompts)
    twice, twice_prompts = layered(once, clip, vae, TWO, prompts)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(sample(twice, twice_prompts), sample(once, its_prompts))
    assert "sampling without layers" not in caplog.text


def test_two_layouts_combined_share_every_step(model, clip, vae, prompts):
    """ComfyUI's Combine means the average of both; one step from noise to picture is linear in it."""
    one, one_prompts = layered(model, clip, vae, TWO, prompts)
    two, two_prompts = layered(one, clip, vae, "a tree: 0 0.5 1 1 | colour=green", prompts)
    combined = tuple(first + second for first, second in zip(one_prompts, two_prompts, strict=True))
    mean = (sample(one, one_prompts, steps=1) + sample(two, two_prompts, steps=1)) / 2
    assert_same_picture(sample(two, combined, steps=1), mean)


def test_layered_prompts_cannot_be_layered_again(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts)
    with pytest.raises(ValueError, match="positive prompt already has a place on the canvas"):
        layered(ours, clip, vae, TWO, our_prompts)


@pytest.mark.parametrize(
    "place",
    [
        lambda c: comfy_nodes.ConditioningSetMask().append(c, torch.ones(1, 64, 64), "default", 1.0)[0],
        lambda c: comfy_nodes.ConditioningSetAreaPercentage().append(c, 0.5, 0.5, 0.0, 0.0, 1.0)[0],
    ],
    ids=["mask", "area"],
)
def test_prompts_with_a_place_are_refused(model, clip, prompts, place):
    with pytest.raises(ValueError, match="negative prompt already has a place"):
        layered(model, clip, None, "a dog: 0 0 0.5 1", (prompts[0], place(prompts[1])))


def test_prompts_with_a_share_of_the_run_keep_it(model, clip, prompts):
    """One prompt until 0.3 and another after it: both parts that lie before t0 are layered, and only then."""
    ranged = comfy_nodes.ConditioningSetTimestepRange().set_range
    early, late = encode(clip, "early"), encode(clip, "late")
    scheduled = ranged(early, 0.0, 0.3)[0] + ranged(late, 0.3, 1.0)[0]
    _, (positive, negative) = layered(model, clip, None, "a dog: 0 0 0.5 1", (scheduled, prompts[1]), t0=0.5)
    shares = [(options.get("start_percent", 0.0), options.get("end_percent", 1.0)) for _, options in positive]
    assert shares == [(0.0, 0.3)] * 2 + [(0.3, 0.5)] * 2 + [(0.5, 1.0)]
    assert torch.equal(positive[-1][0], late[0][0])
    assert negative is prompts[1]


# --- what goes wrong ---


def test_interrupting_leaves_the_model_as_it_was(model, clip, vae, prompts):
    before = sample(model, prompts)
    ours, our_prompts = layered(model, clip, vae, TWO, prompts)
    expected = sample(ours, our_prompts)

    def stop(step, *_):
        if step == 1:
            comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(ours, our_prompts, callback=stop)
    assert torch.equal(sample(ours, our_prompts), expected)
    assert torch.equal(sample(model, prompts), before)


def test_a_run_leaves_no_trace_on_the_model_or_the_prompts(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts)
    keys = [[set(options) for _, options in entries] for entries in our_prompts]
    wrappers = {kind: {key: list(each) for key, each in of.items()} for kind, of in ours.wrappers.items()}
    sample(ours, our_prompts)
    assert [[set(options) for _, options in entries] for entries in our_prompts] == keys
    assert ours.wrappers == wrappers and "wrappers" not in ours.model_options["transformer_options"]


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


def test_a_colour_is_its_flat_pictures_latent_in_the_models_own_scale(model, vae):
    flat = torch.tensor([1.0, 165 / 255, 0.0]).expand(1, 256, 256, 3)
    expected = vae.encode(flat.contiguous())[0, :, 16, 16] * 0.18215
    torch.testing.assert_close(colour_latent(model, vae, "orange", ""), expected)
    torch.testing.assert_close(colour_latent(model, vae, "#FFA500", ""), expected)


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


def test_layer_prompts(model, clip, prompts):
    text = "a dog: 0 0 0.5 1\na cat: 0.5 0 1 0.5 | my cat"
    _, (positive, _) = layered(model, clip, None, text, prompts, layer_prompt="{phrase} {background}")
    for (found, _), expected in zip(positive, ["on a meadow", "a dog on a meadow", "my cat", PROMPT], strict=True):
        assert torch.equal(found, encode(clip, expected)[0][0])
    with pytest.raises(LayoutError, match=r"placeholder \{name\}; known: \{phrase\}, \{background\}, \{prompt\}"):
        layered(model, clip, None, text, prompts, layer_prompt="{name}")


# --- the scale of the state ---


class _Settings:
    sampling_settings = {}


@pytest.mark.parametrize(
    ("sampling", "kind", "expected"),
    [
        ("ModelSamplingDiscrete", "EPS", lambda s: (s**2 + 1) ** 0.5),
        ("ModelSamplingDiscrete", "V_PREDICTION", lambda s: (s**2 + 1) ** 0.5),
        ("ModelSamplingContinuousEDM", "EDM", lambda s: ((2 * s) ** 2 + 1) ** 0.5),
        ("ModelSamplingDiscreteFlow", "CONST", lambda s: ((1 - s) ** 2 + s**2) ** 0.5),
        ("ModelSamplingCosmosRFlow", "COSMOS_RFLOW", lambda s: (s**2 + 1) ** 0.5),
    ],
)
@pytest.mark.parametrize("dims", [4, 5])
def test_scale_of_the_state_in_comfyuis_own_parametrisations(sampling, kind, expected, dims):
    names = [getattr(comfy.model_sampling, name) for name in (sampling, kind)]
    built = type("Sampling", tuple(names), {})(_Settings())
    if kind == "EDM":
        built.set_parameters(0.002, 80.0, 0.5)
    sigma = torch.tensor([0.9, 0.3, 0.01])
    found = scale_of_state(built, torch.zeros((3, 4) + (8,) * (dims - 2)), sigma)
    assert found.shape == (3,) + (1,) * (dims - 1)
    torch.testing.assert_close(found.flatten(), expected(sigma))
    assert state_scale(torch.tensor(1.0), torch.tensor(0.0)) == 1
