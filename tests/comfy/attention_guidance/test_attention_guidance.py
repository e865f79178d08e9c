"""Attention guidance in real ComfyUI samplers, against a slow loop that shares no code with it."""

import comfy.ldm.modules.attention
import comfy.samplers
import pytest
import torch
from stagecraft.core.attention_guidance.log import GuidanceLog
from stagecraft.core.attention_guidance.published import ENERGIES
from stagecraft.core.attention_guidance.step import NORMALISED, RULES
from stagecraft.core.clip.comfy.words import phrase_positions
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError
from stagecraft.tests.comfy.attention_guidance.guided import (
    END,
    STEPS,
    TWO,
    assert_same_picture,
    guide,
    guided,
    sample,
    slow,
)
from stagecraft.tests.comfy.conftest import NEGATIVE, PROMPT, encode

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
@pytest.mark.parametrize("threshold", [0.2, 0.9])
def test_euler_is_the_published_loop(make_model, clip, prompts, kind, threshold):
    model = make_model(kind)
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = slow(model, clip, noise, threshold=threshold, scale=300.0)
    plain = sample(model, prompts, noise=noise)
    found = sample(guided(model, clip, strength=10.0, threshold=threshold), prompts, noise=noise)
    assert_same_picture(found, expected)
    assert (expected - plain).abs().max() > 1e-2, "guidance must do something for this to say anything"


def test_words_of_several_tokens_and_more_than_77_tokens(model, clip, prompts):
    prompt = "a stegosaurus " + "on a green meadow " * 20 + "and a (small:1.2) cat"
    boxes = {"a stegosaurus": (0.0, 0.0, 0.5, 1.0), "cat": (0.5, 0.25, 1.0, 0.75)}
    positions = phrase_positions(clip, prompt, "a stegosaurus"), phrase_positions(clip, prompt, "cat")
    assert len(positions[0]) > 1 and positions[1][0] > 77, "the test wants a long word and a second chunk"
    text = "a stegosaurus: 0 0 0.5 1\ncat: 0.5 0.25 1 0.75"
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = slow(model, clip, noise, prompt=prompt, boxes=boxes, scale=300.0)
    long = encode(clip, prompt), prompts[1]
    assert_same_picture(sample(guided(model, clip, text, prompt=prompt, strength=10.0), long, noise=noise), expected)
    with pytest.raises(LayoutError, match='region "a hippo" does not say its name.*give the region another name'):
        guided(model, clip, "a hippo: 0 0 1 1")


def test_boxes_of_one_phrase_are_one_place(model, clip, prompts):
    boxes = {"a dog": [(0.0, 0.0, 0.5, 0.5), (0.25, 0.5, 0.75, 1.0)], "a cat": (0.5, 0.25, 1.0, 0.5)}
    text = "a dog: 0 0 0.5 0.5\ndog: 0.25 0.5 0.75 1 | strength=0.5\na cat: 0.5 0.25 1 0.5"
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    expected = slow(model, clip, noise, boxes=boxes, scale=300.0)
    assert_same_picture(sample(guided(model, clip, text, strength=10.0), prompts, noise=noise), expected)


def test_a_lora_and_its_guidance_are_those_of_the_merged_weights(make_model, clip, prompts):
    patched, merged = make_model(), make_model()
    name = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_q.weight"
    change = 0.3 * torch.randn(merged.model.state_dict()[name].shape, generator=torch.Generator().manual_seed(5))
    patched.add_patches({name: (change,)}, 1.0)
    merged.model.state_dict()[name].add_(change)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    expected = slow(merged, clip, noise, scale=300.0)
    assert_same_picture(sample(guided(patched, clip, strength=10.0), prompts, noise=noise), expected)
    assert not torch.allclose(expected, slow(make_model(), clip, noise, scale=300.0), atol=1e-3)


def test_early_exit_checkpointing_and_replaced_attention_change_nothing(model, clip, prompts):
    expected = sample(guided(model, clip, strength=10.0), prompts)
    assert_same_picture(sample(guided(model, clip, strength=10.0, checkpointing=True), prompts), expected)

    calls = []

    def same(q, k, v, extra_options, **kwargs):
        calls.append(extra_options["block"])
        return comfy.ldm.modules.attention.attention_pytorch(q, k, v, extra_options["n_heads"])

    def count(attend, *args, **kwargs):
        calls.append("override")
        return attend(*args, **kwargs)

    other = model.clone()
    other.set_model_attn2_replace(same, "middle", 0)
    other.model_options["transformer_options"]["optimized_attention_override"] = count
    assert_same_picture(sample(guided(other, clip, strength=10.0), prompts), expected)
    guided_calls, calls[:] = list(calls), []
    sample(other, prompts)
    assert ("middle", 0) in guided_calls and len(guided_calls) > len(calls) > 0
    # 8 attentions a pass and 5 passes of 2 rows in one batch; a guided pass ends behind the sixth or seventh.
    per_pass = len(calls) / STEPS
    assert len(guided_calls) - len(calls) < 10 * per_pass


@pytest.mark.parametrize("energy", ENERGIES)
def test_self_attention_that_looks_at_more_is_still_self_attention(model, clip, prompts, energy):
    """Every key twice is the same attention; packs put a reference picture's keys there."""

    def lengthen(n, context, value, extra_options):
        return n, context.repeat(1, 2, 1), value.repeat(1, 2, 1)

    other = model.clone()
    other.set_model_attn1_patch(lengthen)
    expected, found = (sample(guided(each, clip, strength=10.0, energy=energy), prompts) for each in (model, other))
    assert_same_picture(found, expected)


def test_nothing_asked_is_the_plain_model_bit_for_bit(model, clip, prompts):
    plain = sample(model, prompts)
    assert torch.equal(sample(guided(model, clip, strength=0.0), prompts), plain)
    assert torch.equal(sample(guided(model, clip, "a dog: 0 0 0.5 0.5 | strength=0"), prompts), plain)
    assert torch.equal(sample(guided(model, clip, start_at=0.01, end_at=0.02), prompts), plain), "no step lies between"
    assert not torch.equal(sample(guided(model, clip), prompts), plain)
    assert torch.equal(sample(model, prompts), plain)


@pytest.mark.parametrize("sampler", comfy.samplers.SAMPLER_NAMES)
def test_every_sampler_is_guided(model, clip, prompts, sampler):
    given = dict(height=8, width=8, sampler=sampler, steps=3)
    plain = sample(model, prompts, **given)
    ours = guided(model, clip, width=64, height=64, strength=10.0, iterations=1, end_at=0.6)
    found = sample(ours, prompts, **given)
    assert torch.isfinite(found).all() and not torch.allclose(found, plain, atol=1e-4)
    assert torch.equal(sample(model, prompts, **given), plain)


def test_pictures_of_a_batch_are_guided_each_by_itself(model, clip, prompts):
    noise = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    texts = [TWO, "meadow: 0 0 1 0.5\na dog: 0 0.5 1 1 | strength=0", "a cat: 0 0 0.25 1 | strength=0"]
    layouts = [parse_layout(text, width=128, height=128, prompt=PROMPT) for text in texts]
    settings = dict(strength=10.0, threshold=0.7, end_at=END)
    for energy in ENERGIES:
        together = sample(guide(model, clip, layouts, energy=energy, **settings), prompts, noise=noise)
        for i, layout in enumerate(layouts):
            alone = guide(model, clip, layout, energy=energy, **settings)
            assert_same_picture(together[i : i + 1], sample(alone, prompts, noise=noise[i : i + 1]))
    with pytest.raises(LayoutError, match="3 layouts for 1 pictures"):
        sample(guide(model, clip, layouts), prompts)


def test_layouts_with_prompts_of_different_lengths(model, clip, prompts):
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    long = "a cat " + "on a green meadow " * 20
    layouts = [
        parse_layout("a dog: 0 0 0.5 1", width=128, height=128, prompt="a dog"),
        parse_layout("a cat: 0 0 0.5 1", width=128, height=128, prompt=long),
    ]
    for energy in ("chen", "boxdiff"):
        together = sample(guide(model, clip, layouts, energy=energy, strength=10.0), prompts, noise=noise)
        for i, layout in enumerate(layouts):
            alone = guide(model, clip, layout, energy=energy, strength=10.0)
            assert_same_picture(together[i : i + 1], sample(alone, prompts, noise=noise[i : i + 1]))


def test_a_mask_is_the_box_that_it_shows(model, clip, prompts):
    mask = torch.zeros(16, 16)
    mask[:8, :8] = 1
    by_mask = parse_layout("a dog: mask 1", width=128, height=128, prompt=PROMPT, masks=[mask])
    by_box = parse_layout("a dog: 0 0 0.5 0.5", width=128, height=128, prompt=PROMPT)
    found, expected = (sample(guide(model, clip, each), prompts) for each in (by_mask, by_box))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [(9, 13), (16, 11), (7, 7)])
@pytest.mark.parametrize("energy", ENERGIES)
def test_odd_sizes_and_a_mask_of_one_cell(model, clip, prompts, size, energy):
    mask = torch.zeros(size)
    mask[2, 3] = 1
    layout = parse_layout(
        "a dog: mask 1\na cat: 0.5 0.5 1 1", width=8 * size[1], height=8 * size[0], prompt=PROMPT, masks=[mask]
    )
    log = GuidanceLog()
    ours = guide(
        model,
        clip,
        layout,
        energy=energy,
        step_rule=NORMALISED,
        iterations=4,
        threshold=-torch.inf,
        end_at=0.1,
        log=log,
    )
    found = sample(ours, prompts, *size)
    (run,) = log.find(found)
    energies = [each.energies[0] for each in run.measurements]
    assert torch.isfinite(found).all() and len(energies) == 4 and energies[-1] < energies[0]


@pytest.mark.parametrize(
    ("steps", "expected"), [(20, [*range(4), *range(4, 14, 2)]), (50, [*range(10), *range(10, 35, 5)])]
)
def test_refocusing_rests_between_every_fifth_of_50_steps(model, clip, prompts, steps, expected):
    log = GuidanceLog()
    ours = guided(model, clip, width=64, height=64, energy="refocusing", iterations=1, end_at=None, log=log)
    found = sample(ours, prompts, 8, 8, steps=steps, cfg=1.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    last = model.get_model_object("model_sampling").percent_to_sigma(ENERGIES["refocusing"].end)
    (run,) = log.find(found)
    assert [each.call - 1 for each in run.measurements] == [i for i in expected if sigmas[i] >= last]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("energy", ENERGIES)
def test_every_energy_falls_by_every_rule_on_the_small_model(model, clip, prompts, energy, rule):
    log = GuidanceLog()
    ours = guided(
        model, clip, energy=energy, step_rule=rule, strength=0.5, iterations=4, end_at=0.1, threshold=0.0, log=log
    )
    found = sample(ours, prompts)
    (run,) = log.find(found)
    energies = [each.energies[0] for each in run.measurements]
    assert len(energies) == 4 and energies[-1] < energies[0]


@pytest.mark.parametrize("energy", ENERGIES)
def test_the_executors_inference_mode_changes_nothing(make_model, clip, control_net, energy):
    """Everything as nodes make it there: weights, layout, masks, prompts, noise."""
    found = []
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            model, mask = make_model(), torch.zeros(16, 16)
            mask[:8] = 1
            layouts = [
                parse_layout("a dog: mask 1", width=128, height=128, prompt=PROMPT, masks=[mask]),
                parse_layout("a cat: 0 0 0.5 1\nmeadow: 0.5 0 1 1", width=128, height=128, prompt=f"{PROMPT} today"),
            ]
            hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(6))
            prompts = encode(clip, PROMPT), encode(clip, NEGATIVE)
            prompts = comfy_nodes.ControlNetApplyAdvanced().apply_controlnet(*prompts, control_net, hint, 1.0, 0.0, 1.0)
            ours = guide(model, clip, layouts, energy=energy, strength=5.0, checkpointing=energy == "sali")
            found.append(sample(ours, prompts, batch=2))
    assert_same_picture(found[1].clone(), found[0])
