"""Prompts, CFG, LoRA hooks and ControlNets of single layers."""

import comfy.hooks
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import (
    Guider_Basic,
)
from stagecraft.core.layered_rendering.comfy.settings import LayerSettings
from stagecraft.core.layout.region import LayoutError
from stagecraft.tests.comfy.conftest import encode
from stagecraft.tests.comfy.layered_rendering.small_runs import (
    CFG,
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


def test_a_layers_own_prompts_and_the_backgrounds_negative(model, clip, prompts):
    mine, against = encode(clip, "my own dog"), encode(clip, "cats")
    settings = (LayerSettings("A dog", positive=mine, negative=against),)
    ours, our_prompts = layered(
        model, clip, None, "a dog: 0 0 0.5 1", prompts, settings=settings, background_negative="{phrases}, ugly"
    )
    texts = [text for text, options in our_prompts[0] if "stagecraft_visible_mask" in options]
    assert torch.equal(texts[1], mine[0][0])
    seen = {id(text): float(options["mask"].sum()) for text, options in our_prompts[1] if "mask" in options}
    assert seen == {id(against[0][0]): 2048.0} | {k: v for k, v in seen.items() if k != id(against[0][0])}
    background = [text for text, options in our_prompts[1] if "mask" in options and text is not against[0][0]]
    assert len(background) == 1 and torch.equal(background[0], encode(clip, "a dog, ugly")[0][0])
    assert torch.isfinite(sample(ours, our_prompts)).all()


@pytest.mark.parametrize("mode", ["paper", "trajectories"])
@pytest.mark.parametrize("sampler_cfg", [CFG, 1.0])
def test_a_layers_own_cfg(model, clip, vae, prompts, mode, sampler_cfg):
    settings = (LayerSettings("2", cfg=5.0), LayerSettings("background", cfg=0.5))
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, settings=settings, mode=mode)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64))
    scales = {"background": 0.5, "a dog": sampler_cfg, "a cat": 5.0}
    x, found = starting_point(slow), sample(ours, our_prompts, cfg=sampler_cfg)
    expected = slow_own_cfg(slow, x, list(scales.values()), sampler_cfg, mode)
    assert_same_picture(model.model.process_latent_in(found), expected)


def slow_own_cfg(slow, x, scales, cfg, mode):
    """The slow loop with a scale for each layer; cells are whole here, so every cell belongs to one layer."""
    until = int((slow.sigmas[:-1] >= slow.last_layered_sigma).sum())
    painted = slow.painted([layer.box for layer in slow.layers])
    states = [x] * len(slow.layers)
    for i, when in enumerate(slow.timesteps):
        sigma, following = slow.sigmas[i], slow.sigmas[i + 1]
        if i < until:
            new = []
            for layer, state, scale in zip(slow.layers, states, scales, strict=True):
                seen = state + slow.guidance(layer, x.shape, sigma)
                positive, negative = (
                    slow.denoise(state, seen, sigma, when, text, {}) for text in (layer.text, slow.negative)
                )
                new.append(negative + scale * (positive - negative))
            if mode == "paper":
                new = [_cut(slow, painted, new)] * len(new)
        else:
            if i == until:
                states = [_cut(slow, painted, states)]
            positive, negative = (
                slow.denoise(states[0], states[0], sigma, when, text, {}) for text in (slow.positive, slow.negative)
            )
            new = [negative + cfg * (positive - negative)]
        states = [state + (state - one) / sigma * (following - sigma) for state, one in zip(states, new, strict=False)]
    return states[0]


def _cut(slow, painted, states):
    joined = torch.zeros_like(states[0])
    for pixels, state in zip(painted, states, strict=False):
        cells = pixels.reshape(8, 8, 8, 8).mean((1, 3)).float()
        joined += cells * state
    return joined


def test_a_layers_cfg_needs_a_negative_prompt(model, clip, prompts):
    settings = (LayerSettings("a dog", cfg=3.0),)
    ours, our_prompts = layered(model, clip, None, "a dog: 0 0 0.5 1", prompts, settings=settings)
    guider = Guider_Basic(ours)
    guider.set_conds(our_prompts[0])
    latent, euler = torch.zeros(1, 4, 8, 8), comfy.samplers.sampler_object("euler")
    with pytest.raises(ValueError, match="no negative prompt. Use KSampler or CFGGuider"):
        guider.sample(latent, latent, euler, torch.tensor([1.0, 0.0]))


def _lora(model, seed):
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for name, weight in model.model.diffusion_model.named_parameters():
        if name.endswith("attn2.to_v.weight"):
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            lora[f"{key}.lora_up.weight"] = 2 * torch.randn(weight.shape[0], 2, generator=generator)
            lora[f"{key}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator)
    return lora


@pytest.mark.parametrize("mode", ["paper", "trajectories"])
def test_a_layers_own_lora_through_hooks(model, clip, prompts, mode):
    """The other half of the first step does not see it; one step is linear in the layers' predictions."""
    hooks = comfy.hooks.create_hook_lora(_lora(model, 1), strength_model=1.0, strength_clip=0.0)
    hooked = comfy.hooks.set_conds_props([encode(clip, "a dog")], 1.0, "default", hooks=hooks)[0]
    text = "a dog: 0 0 0.5 1\na cat: 0.5 0 1 1"
    before = sample(model, prompts)
    with_hooks, its_prompts = layered(
        model, clip, None, text, prompts, settings=[LayerSettings("a dog", positive=hooked)], mode=mode, t0=1.0
    )
    without, other_prompts = layered(model, clip, None, text, prompts, mode=mode, t0=1.0)
    found, plain = (sample(m, p, steps=1) for m, p in ((with_hooks, its_prompts), (without, other_prompts)))
    assert torch.equal(found[..., 4:], plain[..., 4:])
    assert (found[..., :4] - plain[..., :4]).abs().max() > 1e-2 * plain.std()
    assert torch.equal(sample(model, prompts), before)


def test_a_control_net_on_one_layer(model, clip, prompts, control_net):
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(6))
    (controlled,) = comfy_nodes.ControlNetApply().apply_controlnet(encode(clip, "a dog"), control_net, hint, 0.8)
    text = "a dog: 0 0 0.5 1\na cat: 0.5 0 1 1"
    settings = [LayerSettings("a dog", positive=controlled)]
    ours, our_prompts = layered(model, clip, None, text, prompts, settings=settings, t0=1.0)
    plain, plain_prompts = layered(model, clip, None, text, prompts, t0=1.0)
    found, expected = sample(ours, our_prompts, steps=1, cfg=1.0), sample(plain, plain_prompts, steps=1, cfg=1.0)
    assert_same_picture(found[..., 4:], expected[..., 4:])
    assert (found[..., :4] - expected[..., :4]).abs().max() > 1e-2 * expected.std()


@pytest.mark.parametrize("name", ["a cow", "0", "3", ""])
def test_settings_for_a_layer_that_is_not_there(model, clip, prompts, name):
    with pytest.raises(LayoutError, match=f'settings for a layer "{name}", but .* it has "a dog", "a cat", "backgr'):
        layered(model, clip, None, "a dog: 0 0 0.5 1\na cat: 0.5 0 1 1", prompts, settings=[LayerSettings(name)])
