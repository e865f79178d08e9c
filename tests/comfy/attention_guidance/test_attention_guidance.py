"""Attention guidance in real ComfyUI samplers, against a slow loop that shares no code with it."""

from dataclasses import replace

import comfy.model_management
import comfy.sample
import comfy.samplers
import pytest
import torch
from stagecraft.core.attention.comfy.maps import attention_maps
from stagecraft.core.attention.sites import HALF
from stagecraft.core.attention_guidance.comfy.guide import guide_attention
from stagecraft.core.attention_guidance.log import GuidanceLog
from stagecraft.core.attention_guidance.published import ENERGIES
from stagecraft.core.attention_guidance.step import NORMALISED, RULES
from stagecraft.core.clip.comfy.words import phrase_positions
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layout.layout import LayoutError, parse_layout
from stagecraft.evaluation.baselines.slow_guidance import SlowGuidance, SlowThing, slow_chen_loop
from stagecraft.nodes.attention_guidance.attention_guidance import StageAttentionGuidance, StageGuidanceReport
from stagecraft.nodes.attention_guidance.attention_maps import StageAttentionMaps
from stagecraft.nodes.inversion.invert import StageInvert
from stagecraft.tests.comfy.conftest import NEGATIVE, PROMPT, encode
from stagecraft.tests.comfy.families import FAMILIES, build_family

import nodes as comfy_nodes

STEPS, CFG, END = 5, 2.0, 0.4  # two of five steps are guided
TWO = "a dog: 0 0 0.5 0.5\na cat: 0.5 0.25 1 1"
BOXES = {"a dog": (0.0, 0.0, 0.5, 0.5), "a cat": (0.5, 0.25, 1.0, 1.0)}


pytestmark = pytest.mark.usefixtures("no_gradients")


def guided(model, clip, text=TWO, *, width=128, height=128, prompt=PROMPT, end=END, **more):
    layout = parse_layout(text, width=width, height=height, prompt=prompt)
    return guide_attention(model, clip, layout, end=end, **more)


def sample(model, prompts, height=16, width=16, *, batch=1, sampler="euler", steps=STEPS, cfg=CFG, noise=None, **more):
    latent = torch.zeros(batch, 4, height, width) if noise is None else torch.zeros_like(noise)
    noise = comfy.sample.prepare_noise(latent, 7) if noise is None else noise
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "normal", *prompts, latent, seed=7, disable_pbar=True, **more
    )


def slow(model, clip, noise, *, prompt=PROMPT, boxes=BOXES, **settings):
    """The slow loop; boxes has a box for each phrase, or several in a list."""
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", STEPS)
    found = slow_chen_loop(
        noise * torch.sqrt(sigmas[0] ** 2 + 1),
        network=model.model.diffusion_model,
        things=[
            SlowThing(phrase_positions(clip, prompt, phrase), box if isinstance(box, list) else [box])
            for phrase, box in boxes.items()
        ],
        positive=encode(clip, prompt)[0][0],
        negative=encode(clip, NEGATIVE)[0][0],
        sigmas=sigmas,
        timesteps=torch.stack([sampling.timestep(sigma) for sigma in sigmas[:-1]]),
        cfg=CFG,
        guided_steps=2,
        kind=model.model.model_type.name,
        **settings,
    )
    return model.model.process_latent_out(found)


def assert_same_picture(found, expected):
    assert torch.isfinite(found).all()
    size = max(1.0, expected.std().item())
    torch.testing.assert_close(found / size, expected / size, atol=1e-4, rtol=0)


# --- parity ---


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION"])
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


# --- identities ---


def test_nothing_asked_is_the_plain_model_bit_for_bit(model, clip, prompts):
    plain = sample(model, prompts)
    assert torch.equal(sample(guided(model, clip, strength=0.0), prompts), plain)
    assert torch.equal(sample(guided(model, clip, "a dog: 0 0 0.5 0.5 | strength=0"), prompts), plain)
    assert torch.equal(sample(guided(model, clip, start=0.01, end=0.02), prompts), plain), "no step lies between"
    assert not torch.equal(sample(guided(model, clip), prompts), plain)
    assert torch.equal(sample(model, prompts), plain)


@pytest.mark.parametrize("sampler", comfy.samplers.SAMPLER_NAMES)
def test_every_sampler_is_guided(model, clip, prompts, sampler):
    given = dict(height=8, width=8, sampler=sampler, steps=3)
    plain = sample(model, prompts, **given)
    ours = guided(model, clip, width=64, height=64, strength=10.0, iterations=1, end=0.6)
    found = sample(ours, prompts, **given)
    assert torch.isfinite(found).all() and not torch.allclose(found, plain, atol=1e-4)
    assert torch.equal(sample(model, prompts, **given), plain)


def test_pictures_of_a_batch_are_guided_each_by_itself(model, clip, prompts):
    noise = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    texts = [TWO, "meadow: 0 0 1 0.5\na dog: 0 0.5 1 1 | strength=0", "a cat: 0 0 0.25 1 | strength=0"]
    layouts = [parse_layout(text, width=128, height=128, prompt=PROMPT) for text in texts]
    settings = dict(strength=10.0, threshold=0.7, end=END)
    for energy in ENERGIES:
        together = sample(guide_attention(model, clip, layouts, energy=energy, **settings), prompts, noise=noise)
        for i, layout in enumerate(layouts):
            alone = guide_attention(model, clip, layout, energy=energy, **settings)
            assert_same_picture(together[i : i + 1], sample(alone, prompts, noise=noise[i : i + 1]))
    with pytest.raises(LayoutError, match="3 layouts for 1 pictures"):
        sample(guide_attention(model, clip, layouts), prompts)


def test_layouts_with_prompts_of_different_lengths(model, clip, prompts):
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    long = "a cat " + "on a green meadow " * 20
    layouts = [
        parse_layout("a dog: 0 0 0.5 1", width=128, height=128, prompt="a dog"),
        parse_layout("a cat: 0 0 0.5 1", width=128, height=128, prompt=long),
    ]
    for energy in ("chen", "boxdiff"):
        together = sample(guide_attention(model, clip, layouts, energy=energy, strength=10.0), prompts, noise=noise)
        for i, layout in enumerate(layouts):
            alone = guide_attention(model, clip, layout, energy=energy, strength=10.0)
            assert_same_picture(together[i : i + 1], sample(alone, prompts, noise=noise[i : i + 1]))


def test_a_mask_is_the_box_that_it_shows(model, clip, prompts):
    mask = torch.zeros(16, 16)
    mask[:8, :8] = 1
    by_mask = parse_layout("a dog: mask 1", width=128, height=128, prompt=PROMPT, masks=[mask])
    by_box = parse_layout("a dog: 0 0 0.5 0.5", width=128, height=128, prompt=PROMPT)
    found, expected = (sample(guide_attention(model, clip, each), prompts) for each in (by_mask, by_box))
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
    ours = guide_attention(
        model, clip, layout, energy=energy, step_rule=NORMALISED, iterations=4, threshold=-torch.inf, end=0.1, log=log
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
    ours = guided(model, clip, width=64, height=64, energy="refocusing", iterations=1, end=None, log=log)
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
        model, clip, energy=energy, step_rule=rule, strength=0.5, iterations=4, end=0.1, threshold=0.0, log=log
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
            ours = guide_attention(model, clip, layouts, energy=energy, strength=5.0, checkpointing=energy == "sali")
            found.append(sample(ours, prompts, batch=2))
    assert_same_picture(found[1].clone(), found[0])


# --- beside others ---


def test_inpainting_moves_only_what_may_change(model, clip, prompts):
    given = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(4))
    noise, mask = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(5)), torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1

    def paint(model):
        how = STEPS, CFG, "euler", "normal", *prompts
        return comfy.sample.sample(model, noise, *how, given.clone(), noise_mask=mask, seed=7, disable_pbar=True)

    plain, found = paint(model), paint(guided(model, clip, strength=10.0))
    assert torch.equal(found[..., 8:], plain[..., 8:])
    assert (found[..., :8] - plain[..., :8]).abs().max() > 1e-3


def test_a_control_net_acts_in_the_guided_evaluation_too(model, clip, prompts, control_net):
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(6))
    controlled = comfy_nodes.ControlNetApplyAdvanced().apply_controlnet(*prompts, control_net, hint, 1.0, 0.0, 1.0)
    plain = sample(model, controlled)
    logs = GuidanceLog(), GuidanceLog()
    found = [sample(guided(model, clip, log=log), each) for log, each in zip(logs, (controlled, prompts), strict=True)]
    energies = [log.find(each)[0].measurements[0].energies for log, each in zip(logs, found, strict=True)]
    assert energies[0] != energies[1] and torch.isfinite(found[0]).all() and not torch.equal(found[0], plain)
    again = sample(guided(model, clip, checkpointing=True), controlled)
    assert_same_picture(again, found[0])
    assert torch.equal(sample(model, controlled), plain)


def test_patches_that_overwrite_what_the_way_back_needs(model, clip, prompts):
    def out_of_place(h, hsp, options):
        return h * (1 + h.mean(1, keepdim=True)), hsp

    def in_place(h, hsp, options):
        h[:] = h * (1 + h.mean(1, keepdim=True))
        return h, hsp

    patched = [model.clone(), model.clone()]
    for each, patch in zip(patched, (out_of_place, in_place), strict=True):
        each.set_model_output_block_patch(patch)
    expected, found = (sample(guided(each, clip, strength=10.0), prompts) for each in patched)
    assert_same_picture(found, expected)


def test_two_guidances_in_a_row_are_both_there(model, clip, prompts):
    log = GuidanceLog()
    dog, cat = "a dog: 0 0 0.5 1", "a cat: 0.5 0 1 1"
    one = guided(model, clip, dog, log=log, strength=10.0)
    two = guided(one, clip, cat, log=log, strength=10.0, energy="boxdiff")
    found = sample(two, prompts)
    runs = log.find(found)
    assert {run.title for run in runs} == {"Attention guidance (chen)", "Attention guidance (boxdiff)"}
    assert all(run.measurements for run in runs)
    assert not torch.allclose(found, sample(one, prompts), atol=1e-4)


@pytest.mark.parametrize("guidance_is_first", [False, True])
def test_samplers_that_an_inversion_refuses_are_recognised_in_any_order(model, clip, prompts, guidance_is_first):
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", STEPS)
    picture = {"samples": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(6))}

    def invert(model):
        return StageInvert.execute(
            model=model, positive=prompts[0], latent=picture, steps=STEPS, scheduler="normal", method="euler",
            refinements=0, cfg=1.0, forward_noise_first_k=0, renormalise=False, measure=False, seed=0,
        ).args[:2]  # fmt: skip

    if guidance_is_first:
        ours, latent = invert(guided(model, clip))
    else:
        ours, latent = invert(model)
        ours = guided(ours, clip)
    guider = comfy.samplers.CFGGuider(ours)
    guider.set_conds(*prompts)
    ancestral = comfy.samplers.sampler_object("euler_ancestral")
    with pytest.raises(ValueError, match='"euler_ancestral" adds fresh noise'):
        guider.sample(torch.zeros_like(latent["samples"]), latent["samples"], ancestral, sigmas)


def test_layered_rendering_and_guidance_in_one_run(model, clip, vae, prompts):
    layout = parse_layout(TWO, width=128, height=128, prompt=PROMPT, background="on a meadow")
    for mode in ("paper", "trajectories"):
        layered, *layered_prompts = render_in_layers(
            model, clip, vae, layout, *prompts, t0=0.5, strength=0.0, mode=mode
        )
        plain = sample(layered, layered_prompts)
        found = sample(guide_attention(layered, clip, layout, strength=10.0, end=END), layered_prompts)
        assert torch.isfinite(found).all() and not torch.allclose(found, plain, atol=1e-4)


# --- failures, after which a plain run is as it was ---


@pytest.fixture
def unharmed(model, prompts):
    before = sample(model, prompts)
    yield
    assert torch.equal(sample(model, prompts), before)


def test_an_energy_that_is_no_number_stops_with_a_sentence(model, clip, prompts, monkeypatch, unharmed):
    broken = replace(ENERGIES["chen"], measure=lambda maps, *_: next(iter(maps.values())).sum((1, 2, 3)) * torch.nan)
    monkeypatch.setitem(ENERGIES, "chen", broken)
    with pytest.raises(ValueError, match="energy of attention guidance is not a number at noise level 14.6"):
        sample(guided(model, clip), prompts)


def test_cancelling_in_the_backward_pass(model, clip, prompts, unharmed):
    interrupt = comfy.model_management.interrupt_current_processing

    def cancel(attend, q, *args, **kwargs):
        if q.requires_grad:
            q.register_hook(lambda gradient: interrupt(True))
        return attend(q, *args, **kwargs)

    other = model.clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = cancel
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            sample(guided(other, clip), prompts)
    finally:
        interrupt(False)


def test_a_patch_without_a_gradient_is_named(model, clip, prompts, unharmed):
    other = model.clone()
    other.set_model_attn2_replace(lambda q, k, v, extra_options, **_: q.detach() * 0, "middle", 0)
    other.set_model_attn1_patch(lambda n, context, value, extra_options: (n.detach(), context.detach(), value.detach()))
    other.set_model_input_block_patch(lambda h, options: h.detach())
    with pytest.raises(ValueError, match="needs the model's gradient.*or remove the other node|Or remove the other"):
        sample(guided(other, clip), prompts)


def test_attention_of_others_without_a_gradient_is_named(model, clip, prompts, unharmed):
    """Most of the network would still give a gradient, a wrong one."""

    def fused(attend, *args, **kwargs):
        return attend(*args, **kwargs).detach()

    def replacement(q, k, v, extra_options, **_):
        return comfy.ldm.modules.attention.attention_pytorch(q, k, v, extra_options["n_heads"]).detach()

    by_override, by_replacement = model.clone(), model.clone()
    by_override.model_options["transformer_options"]["optimized_attention_override"] = fused
    by_replacement.set_model_attn1_replace(replacement, "middle", 0)
    for other in (by_override, by_replacement):
        with pytest.raises(ValueError, match="needs the model's gradient.*another node's attention returns"):
            sample(guided(other, clip), prompts)


def test_latents_of_another_shape_and_samplers_of_another_kind(model, clip, prompts, unharmed):
    with pytest.raises(LayoutError, match="not the shape of the layout's canvas"):
        sample(guided(model, clip, width=64, height=128), prompts)

    class Own(comfy.samplers.Sampler):
        def sample(self, *args, **kwargs):
            raise AssertionError("must not be reached")

    guider = comfy.samplers.CFGGuider(guided(model, clip))
    guider.set_conds(*prompts)
    with pytest.raises(ValueError, match="which Own does not allow"):
        guider.sample(torch.zeros(1, 4, 16, 16), torch.zeros(1, 4, 16, 16), Own(), torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    family = build_family(name)
    layout = parse_layout("a dog: 0 0 0.5 0.5\na cat: 0.5 0.5 1 1", width=64, height=64, prompt=PROMPT)
    if name not in ("SD15", "SDXL"):
        with pytest.raises(ValueError, match="mixes text and picture otherwise. Use Layered Rendering"):
            guide_attention(family.model, family.clip, layout)
        return
    prompts = [family.clip.encode_from_tokens_scheduled(family.clip.tokenize(text)) for text in (PROMPT, NEGATIVE)]
    plain = sample(family.model, prompts, 8, 8)
    for energy in ENERGIES:
        log = GuidanceLog()
        ours = guide_attention(family.model, family.clip, layout, energy=energy, strength=5.0, end=END, log=log)
        found = sample(ours, prompts, 8, 8)
        assert torch.isfinite(found).all() and not torch.equal(found, plain) and log.find(found)[0].measurements
    assert torch.equal(sample(family.model, prompts, 8, 8), plain)


def test_sites_that_an_energy_cannot_read(model, clip):
    with pytest.raises(ValueError, match='"boxdiff" averages maps of one size, but "middle and first up" has several'):
        guided(model, clip, energy="boxdiff", sites="middle and first up")
    with pytest.raises(ValueError, match='no choice of attentions "all"'):
        guided(model, clip, sites="all")


def test_a_range_without_a_step_is_refused(model, clip):
    with pytest.raises(ValueError, match='start is 0.3, but the published end of "chen" is 0.196, so nothing'):
        guided(model, clip, start=0.3, end=None)
    with pytest.raises(ValueError, match="start is 0.4, but end is 0.4, so nothing"):
        guided(model, clip, start=0.4, end=0.4, strength=0.0)


def test_the_editor_shows_settings_that_do_not_go_together():
    valid = StageAttentionGuidance.validate_inputs
    assert valid(energy="chen", start=0.0, end=0.0) is True
    assert valid(energy="chen", start=0.3, end=0.5, sites="half of the latent") is True
    assert "start is 0.3" in valid(energy="sali", start=0.3, end=0.0) and valid("refocusing", 0.3, 0.0) is True
    assert "averages maps of one size" in valid(energy="boxdiff", start=0.0, end=0.0, sites="middle and first up")
    assert valid(energy=None, start=0.3, end=0.0) is True, "connected, so known when it runs"


def test_flow_models_are_refused(make_model, clip):
    with pytest.raises(ValueError, match="sampled as a flow. Use Layered Rendering"):
        guided(make_model("FLOW"), clip)


# --- nodes ---


def test_the_report_finds_the_run_by_its_latent(model, clip, prompts):
    layout = parse_layout(TWO, width=128, height=128, prompt=PROMPT)
    given = ("chen", 1.0, 0, 0.0, 0.0, 0.0, "as published")
    (ours,) = StageAttentionGuidance.execute(model, clip, layout, *given).args
    noises = [torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    latents = [sample(ours, prompts, noise=noise) for noise in noises]
    node = StageGuidanceReport.PREPARE_CLASS_CLONE({})
    reports = [node.execute({"samples": latent}).args for latent in latents]
    assert reports[0][1] != reports[1][1] and "call   1, sigma  14.6146" in reports[0][1]
    assert reports[0][0].shape == (1, 360, 640, 3)
    assert node.execute({"samples": latents[0]}).args[1] == reports[0][1], "the older one is still there"
    with pytest.raises(ValueError, match="not sampled with attention guidance"):
        node.execute({"samples": sample(model, prompts, noise=noises[0])})


def test_published_settings_are_those_of_the_core(model, clip, prompts):
    layout = parse_layout(TWO, width=128, height=128, prompt=PROMPT)
    for energy in ENERGIES:
        node = StageAttentionGuidance.execute(model, clip, layout, energy, 2.0, 0, 0.0, 0.0, 0.0, "as published").args[
            0
        ]
        assert torch.equal(
            sample(node, prompts), sample(guide_attention(model, clip, layout, energy=energy, strength=2.0), prompts)
        )
    given = ("sali", 2.0, 3, 0.1, 0.7, -1.0, NORMALISED, HALF, 0.5, True, "the dog and the cat")
    node = StageAttentionGuidance.execute(model, clip, layout, *given).args[0]
    core = guide_attention(
        model, clip, layout, energy="sali", strength=2.0, iterations=3, start=0.1, end=0.7, threshold=-torch.inf,
        step_rule=NORMALISED, sites=HALF, eta=0.5, checkpointing=True, prompt="the dog and the cat",
    )  # fmt: skip
    assert torch.equal(sample(node, prompts), sample(core, prompts))


def test_maps_are_those_of_the_networks_own_layers(model, clip, vae):
    """One evaluation, against hooks on the layers of the network."""
    latent = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(8))
    found = attention_maps(
        model, clip, latent, PROMPT, ["a dog", "meadow"], noise=0.5, sites="middle and first up", seed=3
    )
    sampling = model.get_model_object("model_sampling")
    sigma = sampling.percent_to_sigma(0.5)
    noise = comfy.sample.prepare_noise(latent, 3)
    x = model.model.process_latent_in(latent) + sigma * noise
    loop = SlowGuidance(model.model.diffusion_model, [], None, None, None, None)
    timestep = sampling.timestep(torch.tensor(sigma)).float()
    _, maps = loop.evaluate(x, sigma, timestep, encode(clip, PROMPT)[0][0].expand(2, -1, -1))
    for i, phrase in enumerate(["a dog", "meadow"]):
        columns = phrase_positions(clip, PROMPT, phrase)
        sides = [int(each.shape[2] ** 0.5) for each in maps]
        coarse = [each[..., columns].mean((1, 3)).reshape(2, 1, n, n) for each, n in zip(maps, sides, strict=True)]
        fine = [torch.nn.functional.interpolate(each, (16, 16), mode="bilinear")[:, 0] for each in coarse]
        expected = torch.stack(fine).mean(0)
        torch.testing.assert_close(found[:, i], expected, atol=1e-5, rtol=0)


def test_the_maps_node_draws_every_phrase_of_every_picture(model, clip, vae):
    pictures = torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(9))
    layout = parse_layout("a dog: 0 0 0.5 0.5\na cat: 0.5 0.5 1 1", width=96, height=64, prompt=PROMPT)
    given = 0.5, "quarter of the latent", 0
    drawn, masks = StageAttentionMaps.execute(model, clip, vae, pictures, "", "", *given, layout).args
    assert drawn.shape == (4, 512, 768, 3) and masks.shape == (4, 64, 96)
    assert 0 <= drawn.min() and drawn.max() <= 1 and torch.equal(masks.amax((1, 2)), torch.ones(4))
    one = StageAttentionMaps.execute(model, clip, vae, pictures[:1], PROMPT, "meadow", *given).args[1]
    assert len(one) == 1
    alone = StageAttentionMaps.execute(model, clip, vae, pictures, PROMPT, "a cat\na dog", *given).args[1]
    torch.testing.assert_close(alone, masks[[1, 0, 3, 2]])
    with pytest.raises(LayoutError, match="no prompt or no phrases"):
        StageAttentionMaps.execute(model, clip, vae, pictures, "a dog", "", *given)
    with pytest.raises(LayoutError, match="or remove it from the phrases"):
        StageAttentionMaps.execute(model, clip, vae, pictures, "a dog", "a hippo", *given)
