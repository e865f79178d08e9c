"""Layered rendering in real ComfyUI samplers, against a slow loop that shares no code with it."""

import logging

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import (
    BasicScheduler,
    CFGGuider,
    Guider_Basic,
    RandomNoise,
    SamplerCustomAdvanced,
)
from stagecraft.core.layered_rendering.vision_guidance import READINGS, WITHOUT, VisionGuidance
from stagecraft.core.layout.region import LayoutError
from stagecraft.tests.comfy.conftest import PROMPT, encode
from stagecraft.tests.comfy.layered_rendering.small_runs import (
    CFG,
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

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")


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


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
def test_layers_match_the_slow_loop(make_model, clip, vae, prompts, kind, reading):
    model = make_model(kind)
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, guidance=VisionGuidance(reading=reading))
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64), kind, without=reading == WITHOUT)
    found = model.model.process_latent_in(sample(ours, our_prompts))
    assert_same_picture(found, slow(starting_point(slow)))
    if reading == WITHOUT:
        other = sample(*layered(model, clip, vae, TWO, prompts))
        assert (found - model.model.process_latent_in(other)).abs().max() > 0.01


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


def test_layer_prompts(model, clip, prompts):
    text = "a dog: 0 0 0.5 1\na cat: 0.5 0 1 0.5 | my cat"
    _, (positive, _) = layered(model, clip, None, text, prompts, layer_prompt="{phrase} {background}")
    for (found, _), expected in zip(positive, ["on a meadow", "a dog on a meadow", "my cat", PROMPT], strict=True):
        assert torch.equal(found, encode(clip, expected)[0][0])
    with pytest.raises(LayoutError, match=r"placeholder \{name\}; known: \{phrase\}, \{background\}, \{prompt\}"):
        layered(model, clip, None, text, prompts, layer_prompt="{name}")


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
