"""Attention guidance beside what else lies on a run: masks, ControlNets, patches, our own methods; and failures."""

from dataclasses import replace

import comfy.ldm.modules.attention
import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import torch
from stagecraft.core.attention_guidance.comfy.run import WRAPPER
from stagecraft.core.attention_guidance.log import GuidanceLog
from stagecraft.core.attention_guidance.published import ENERGIES
from stagecraft.core.editing.comfy.edit import Editing, edit_picture
from stagecraft.core.editing.edits import insert
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError
from stagecraft.nodes.inversion.invert import StageInvert
from stagecraft.tests.comfy.attention_guidance.guided import (
    CFG,
    END,
    STEPS,
    TWO,
    assert_same_picture,
    guide,
    guided,
    sample,
)
from stagecraft.tests.comfy.conftest import PROMPT

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")


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
            model=model,
            positive=prompts[0],
            latent=picture,
            steps=STEPS,
            scheduler="normal",
            method="euler",
            refinements=0,
            cfg=1.0,
            forward_noise_first_k=0,
            renormalise=False,
            measure=False,
            seed=0,
        ).args[:2]

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
        layered, *layered_prompts = render_in_layers(model, clip, vae, layout, *prompts, Rendering(0.5, 0.0, mode=mode))
        plain = sample(layered, layered_prompts)
        found = sample(guide(layered, clip, layout, strength=10.0, end_at=END), layered_prompts)
        assert torch.isfinite(found).all() and not torch.allclose(found, plain, atol=1e-4)


@pytest.mark.parametrize("energy", ["chen", "boxdiff"])
@pytest.mark.parametrize("guidance_is_first", [False, True])
def test_every_layer_on_a_trajectory_of_its_own_is_guided(model, clip, vae, prompts, guidance_is_first, energy):
    """Each is guided at the run's own noise levels, as far as its own energy asks, and so is what comes after t0."""
    layout, log = parse_layout(TWO, width=128, height=128, prompt=PROMPT, background="on a meadow"), GuidanceLog()
    rendering = Rendering(t0=0.5, strength=0.0, mode="trajectories")

    def guided_model(model):
        return guide(model, clip, layout, log, energy=energy, end_at=0.95, threshold=0.0, iterations=1)

    ours = guided_model(model) if guidance_is_first else model
    ours, *both = render_in_layers(ours, clip, vae, layout, *prompts, rendering)
    found = sample(ours if guidance_is_first else guided_model(ours), both)
    ((run,),) = [log.find(found)]
    levels = [round(each.sigma, 3) for each in run.measurements]
    apart = levels[: levels.index(levels[0], 1)]
    assert levels[: 3 * len(apart)] == 3 * apart and len(levels) > 3 * len(apart)
    assert all(min(each.energies) > 0 for each in run.measurements)


def test_what_our_methods_write_on_a_prompt_is_theirs_alone(model, clip, vae, prompts):
    """An entry's options that begin with "stagecraft" are read by their own method, which would see its prompt twice.

    A run goes through the wrapper that was put on last first, so the guided prompt is made before a method that was
    put on earlier has taken its options off.
    """
    layout = parse_layout(TWO, width=128, height=128, prompt=PROMPT, background="on a meadow")
    picture = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(1))

    def rendered(model, mode):
        layered, *both = render_in_layers(model, clip, vae, layout, *prompts, Rendering(0.5, 0.0, mode=mode))
        return layered, both, torch.zeros(1, 4, 16, 16)

    def edited(model):
        edits = [insert(layout.regions[0])]
        changed, *both, latent, _ = edit_picture(model, clip, vae, picture, edits, *prompts, Editing(0.5, 0.0))
        return changed, both, latent

    for method in (lambda m: rendered(m, "paper"), lambda m: rendered(m, "trajectories"), edited):
        seen = []

        def look(executor, *args, seen=seen, **kwargs):
            guider = executor.class_obj
            found = executor(*args, **kwargs)
            seen.extend(entry for name, each in guider.conds.items() if name.startswith(WRAPPER) for entry in each)
            return found

        for guidance_is_first in (False, True):
            seen.clear()
            ours = guide(model, clip, layout, strength=10.0, end_at=END) if guidance_is_first else model
            ours, both, latent = method(ours)
            ours = ours if guidance_is_first else guide(ours, clip, layout, strength=10.0, end_at=END)
            ours.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, "test", look)
            noise = comfy.sample.prepare_noise(latent, 7)
            given = STEPS, CFG, "euler", "normal", *both, latent
            assert torch.isfinite(comfy.sample.sample(ours, noise, *given, seed=7, disable_pbar=True)).all()
            assert seen and not [key for entry in seen for key in entry if str(key).startswith("stagecraft")]


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
