"""Trajectories, dynamic deltas, injections, CFG and prompts of single layers, crop, and batches of layouts."""

import comfy.hooks
import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Guider_Basic
from einops import rearrange
from stagecraft.core.clip.comfy.words import phrase_positions
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import LayerSettings, Rendering
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance, state_scale, vision_guidance
from stagecraft.core.layout.layout import LayoutError, parse_layout

import nodes as comfy_nodes

from ..conftest import encode
from .test_layered_rendering import (
    CFG,
    FULL,
    STEPS,
    T0,
    TWO,
    assert_same_picture,
    layered,
    sample,
    slow_run,
    starting_point,
    two_layers,
)

APART = {"mode": "trajectories"}
DYNAMIC = VisionGuidance(source="dynamic", top_k=5)


pytestmark = pytest.mark.usefixtures("no_gradients")


# --- trajectories ---


def slow_apart(slow, x, again=None):
    """Each layer's Euler run to t0, one composite, and the rest; `again` changes a layer's state for good."""
    until = int((slow.sigmas[:-1] >= slow.last_layered_sigma).sum())

    def steps(x, first, last, layer):
        for i in range(first, last):
            sigma, following, when = slow.sigmas[i], slow.sigmas[i + 1], slow.timesteps[i]
            if layer is None:
                texts, seen = (slow.positive, slow.negative), x
            else:
                texts, seen = (layer.text, slow.negative), x + (0 if again else slow.guidance(layer, x.shape, sigma))
            positive, negative = (slow.denoise(x, seen, sigma, when, text, {}) for text in texts)
            denoised = negative + slow.cfg * (positive - negative)
            x = x + (x - denoised) / sigma * (following - sigma)
            if layer is not None and again:
                x = again(layer, x, i, following)
        return x

    joined = torch.zeros_like(x)
    for layer, pixels in zip(slow.layers, slow.painted([layer.box for layer in slow.layers]), strict=True):
        start = again(layer, x, -1, slow.sigmas[0]) if again else x
        state = steps(start, 0, until, layer)
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                joined[:, :, row, column] += slow.cell(pixels, row, column) * state[:, :, row, column]
    return steps(joined, until, len(slow.timesteps), None)


@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "FLOW"])
@pytest.mark.parametrize("inject", ["every step", "first step", "as published"])
def test_trajectories_match_the_slow_loop(make_model, clip, vae, prompts, kind, inject):
    model = make_model(kind)
    guidance = VisionGuidance(inject=inject)
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, guidance=guidance, **APART)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64), kind)

    def again(layer, x, i, sigma):
        xi = slow.guidance(layer, x.shape, torch.tensor(0.0))  # at no noise the state's scale is 1
        scale = ((1 - sigma) ** 2 + sigma**2) ** 0.5 if kind == "FLOW" else (sigma**2 + 1) ** 0.5
        if i < 0:
            return x + xi * scale
        return x + xi / scale if inject == "as published" and i < 5 else x

    expected = slow_apart(slow, starting_point(slow), None if inject == "every step" else again)
    assert_same_picture(model.model.process_latent_in(sample(ours, our_prompts)), expected)


@pytest.mark.parametrize("t0", [0.25, 0.4, 1.0])
def test_trajectories_switch_at_the_step_that_paper_mode_switches_at(model, clip, vae, prompts, t0):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, t0=t0, **APART)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64), t0=t0)
    assert_same_picture(
        model.model.process_latent_in(sample(ours, our_prompts)), slow_apart(slow, starting_point(slow))
    )


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2", "ddim", "euler_cfg_pp", "ddpm", "euler_ancestral"])
def test_one_full_layer_on_its_own_trajectory_is_plain_sampling(model, clip, prompts, sampler):
    """Bit for bit for every sampler that remembers nothing; noise that is drawn anew differs after t0 by its seed."""
    plain = sample(model, prompts, sampler=sampler)
    ours, our_prompts = layered(model, clip, None, FULL, prompts, t0=1.0, **APART)
    assert torch.equal(sample(ours, our_prompts, sampler=sampler), plain)
    if sampler not in ("ddpm", "euler_ancestral"):
        ours, our_prompts = layered(model, clip, None, FULL, prompts, t0=0.5, **APART)
        assert torch.equal(sample(ours, our_prompts, sampler=sampler), plain)


def test_every_sampler_can_run_layers_apart(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, **APART)
    for sampler in comfy.samplers.SAMPLER_NAMES:
        found = sample(ours, our_prompts, sampler=sampler, steps=4)
        assert torch.isfinite(found).all(), sampler


def test_trajectories_put_smaller_regions_in_front(model, clip, prompts):
    large, small = "a dog: 0 0 1 1", "a cat: 0.25 0.25 0.75 0.75"
    one, its_prompts = layered(model, clip, None, f"{large}\n{small}", prompts, **APART)
    other, other_prompts = layered(model, clip, None, f"{small}\n{large}", prompts, **APART)
    assert torch.equal(sample(one, its_prompts), sample(other, other_prompts))
    hidden = f"{small} | order=0\n{large} | order=1"
    with pytest.raises(LayoutError, match='"a cat" is hidden'):
        layered(model, clip, None, hidden, prompts, **APART)


def test_progress_of_trajectories_ends_at_the_last_step(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, **APART)
    seen = []
    sample(ours, our_prompts, callback=lambda step, denoised, x, total: seen.append((step, total)))
    assert [step for step, _ in seen] == sorted(step for step, _ in seen)
    assert seen[-1] == (STEPS - 1, STEPS) and len(seen) == 3 * 3 + 2  # the first three steps are the layers'


def test_interrupting_trajectories_leaves_everything_as_it_was(model, clip, vae, prompts):
    before = sample(model, prompts)
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, **APART)
    expected = sample(ours, our_prompts)

    def stop(step, *_):
        comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(ours, our_prompts, callback=stop)
    assert torch.equal(sample(ours, our_prompts), expected)
    assert torch.equal(sample(model, prompts), before)


def test_trajectories_need_a_sampler_that_can_be_stopped(model, clip, prompts):
    class Own(comfy.samplers.Sampler):
        def sample(self, *args, **kwargs):
            raise AssertionError("must not be reached")

    ours, our_prompts = layered(model, clip, None, "a dog: 0 0 0.5 1", prompts, **APART)
    guider = comfy.samplers.CFGGuider(ours)
    guider.set_conds(*our_prompts)
    with pytest.raises(ValueError, match='"trajectories" stops the sampler at t0, which Own does not allow'):
        guider.sample(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), Own(), torch.tensor([1.0, 0.0]))


# --- dynamic delta ---


def slow_attention(model, text, columns, x_in, timestep):
    """Maps of the first cross-attention of each down stage, from hooks on the network's own layers."""
    found = {}
    hooks = []
    for block in model.model.diffusion_model.input_blocks:
        for part in block:
            if type(part).__name__ == "SpatialTransformer":
                attention = part.transformer_blocks[0].attn2

                def record(module, args, kwargs, attention=attention):
                    x, context = args[0], kwargs["context"]
                    q, k = attention.to_q(x), attention.to_k(context)
                    q, k = (rearrange(y, "b n (h d) -> b h n d", h=attention.heads) for y in (q, k))
                    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
                    found.setdefault(x.shape[1], weights[..., columns].mean((1, 3)))

                hooks.append(attention.register_forward_pre_hook(record, with_kwargs=True))
    model.model.diffusion_model(x_in, torch.full((len(x_in),), float(timestep)), context=text.expand(len(x_in), -1, -1))
    for hook in hooks:
        hook.remove()
    assert found, "the network has no cross-attention on its way down"
    height, width = x_in.shape[-2:]
    resized = []
    for cells, weights in found.items():
        factor = round((height * width / cells) ** 0.5)
        coarse = weights.reshape(len(x_in), 1, height // factor, width // factor)
        resized.append(torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[:, 0])
    return torch.stack(resized).mean(0)


@pytest.mark.parametrize("mode", ["paper", "trajectories"])
def test_dynamic_deltas_match_the_slow_loop(model, clip, prompts, mode):
    text = "a dog: 0.125 0.25 0.625 0.875\na cat: 0.5 0 1 0.5 | a small cat | strength=0.5"
    ours, our_prompts = layered(model, clip, None, text, prompts, strength=0.8, guidance=DYNAMIC, mode=mode)
    bare = [(text, box, None) for text, box, _ in _boxes()]
    slow = slow_run(model, clip, bare, (64, 64))
    x = starting_point(slow)
    state = x / (slow.sigmas[0] ** 2 + 1) ** 0.5
    columns = {"a dog": [2], "a small cat": [3]}  # nouns: "a cat" is not in that caption, and articles do not count
    for layer, (caption, _, _), factor in list(zip(slow.layers, bare, [0, 0.8, 0.4], strict=True))[1:]:
        attention = slow_attention(model, layer.text, columns[caption], state, slow.timesteps[0])
        strongest = attention.flatten(1).topk(5).indices[0]
        layer.delta = factor * state[0].flatten(1)[:, strongest].mean(1)
    expected = slow(x) if mode == "paper" else slow_apart(slow, x)
    assert_same_picture(model.model.process_latent_in(sample(ours, our_prompts)), expected)


def _boxes():
    return [("on a meadow", None, None), ("a dog", (8, 16, 40, 56), None), ("a small cat", (32, 0, 64, 32), None)]


def test_dynamic_deltas_of_a_batch_are_those_of_its_pictures(model, clip, prompts):
    ours, our_prompts = layered(model, clip, None, TWO, prompts, guidance=DYNAMIC)
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    together = sample(ours, our_prompts, batch=3, noise=noise)
    for i in range(3):
        assert_same_picture(sample(ours, our_prompts, noise=noise[i : i + 1]), together[i : i + 1])


def test_reading_attention_leaves_other_overrides_working(model, clip, prompts):
    calls = []

    def count(attend, *args, **kwargs):
        calls.append(1)
        return attend(*args, **kwargs)

    other = model.clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = count
    ours, our_prompts = layered(model, clip, None, TWO, prompts, guidance=DYNAMIC)
    theirs, _ = layered(other, clip, None, TWO, prompts, guidance=DYNAMIC)
    assert torch.equal(sample(theirs, our_prompts), sample(ours, our_prompts)) and calls


def test_phrases_are_found_by_their_tokens(clip):
    def found(caption, phrase):
        return phrase_positions(clip, caption, phrase)

    assert found("a dog and a cat", "a cat") == [5], "an article looks nowhere in particular"
    assert found("a cat", "The cat") == [2] and found("a", "a") == [1]
    assert found("an apple and the apple", "the apple") == [5]
    assert found("a (red:1.3) dog, a red dog", "red dog") == [2, 3, 6, 7]
    unusual = clip.tokenize("a stegosaurus")["l"][0]
    length = len([token for token, _ in unusual if token < 49406]) - 1
    assert length > 1, "the test wants a word of several tokens"
    assert found("on the moon a stegosaurus sleeps", "stegosaurus") == list(range(5, 5 + length))
    assert found("a small cat", "a cat") == [3]
    assert found(" ".join(["word"] * 80) + " dog", "dog") == [77 + 1 + 80 - 75]
    with pytest.raises(LayoutError, match='The prompt "something" of the region "a cat" does not say its name'):
        found("something", "a cat")


# --- other deltas and injections ---


def test_a_given_vector_and_a_colours_latent_are_the_same_guidance(model, clip, vae, prompts):
    from stagecraft.core.layered_rendering.comfy.deltas import colour_latent

    red = colour_latent(model, vae, "red", "")
    by_colour, its_prompts = layered(model, clip, vae, "a dog: 0 0 0.5 1 | colour=red", prompts)
    guidance = VisionGuidance(source="vector", vector=tuple(red.tolist()))
    by_vector, other_prompts = layered(model, clip, None, "a dog: 0 0 0.5 1", prompts, guidance=guidance)
    assert torch.equal(sample(by_vector, other_prompts), sample(by_colour, its_prompts))
    with pytest.raises(ValueError, match="vector has 2 numbers, but the model has 4 latent channels"):
        wrong = VisionGuidance(source="vector", vector=(1.0, 2.0))
        layered(model, clip, None, "a dog: 0 0 0.5 1", prompts, guidance=wrong)


def test_a_reference_gives_its_mean_latent(model, clip, vae, prompts):
    pictures = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(3))
    means = [vae.encode(picture[None]).mean((0, 2, 3)) * 0.18215 for picture in pictures]
    guidance = VisionGuidance(source="reference", references=pictures)
    text = "a dog: 0 0 0.5 1\na cat: 0.5 0 1 1"
    _, (positive, _) = layered(model, clip, vae, text, prompts, guidance=guidance)
    found = [options["stagecraft_delta"][0] for _, options in positive if "stagecraft_delta" in options]
    torch.testing.assert_close(torch.stack(found), torch.stack(means), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="2 reference pictures are connected for 1 regions"):
        layered(model, clip, vae, "a dog: 0 0 0.5 1", prompts, guidance=guidance)
    with pytest.raises(ValueError, match="but no VAE"):
        layered(model, clip, None, text, prompts, guidance=guidance)


def test_first_step_only_and_sides_of_different_strength(model, clip, vae, prompts):
    guidance = VisionGuidance(inject="first step", inside=0.5, outside=2.0)
    ours, our_prompts = layered(model, clip, vae, TWO, prompts, guidance=guidance)
    slow = slow_run(model, clip, two_layers(model, vae), (64, 64))

    def asymmetric(layer, shape, sigma):
        xi = torch.zeros(shape)
        if layer.delta is not None and sigma == slow.sigmas[0]:
            inside = slow.painted([layer.box])[0]
            for row in range(shape[2]):
                for column in range(shape[3]):
                    share = slow.cell(inside, row, column)
                    xi[:, :, row, column] = layer.delta * (0.5 * share - 2.0 * (1 - share))
        return xi * (sigma**2 + 1) ** 0.5

    slow.guidance = asymmetric
    assert_same_picture(model.model.process_latent_in(sample(ours, our_prompts)), slow(starting_point(slow)))


# --- single layers ---


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
    with pytest.raises(ValueError, match="no negative prompt. Use KSampler or CFGGuider"):
        guider.sample(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8), comfy.samplers.sampler_object("euler"),
                      torch.tensor([1.0, 0.0]))  # fmt: skip


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


# --- crop ---


def test_a_cropped_layer_is_the_layer_evaluated_on_its_part_of_the_latent(model, clip, vae, prompts):
    """One step: what the network gives for the cropped, guided state, put back where it was cut out."""
    text = "a dog: 0 0 0.25 0.25 | colour=red"
    ours, our_prompts = layered(model, clip, vae, text, prompts, width=256, height=128, background="", t0=1.0, crop=2)
    shapes = []

    def note(executor, x, *args, **kwargs):
        shapes.append(tuple(x.shape))
        return executor(x, *args, **kwargs)

    ours.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "note", note)
    found = model.model.process_latent_in(sample(ours, our_prompts, 16, 32, steps=1, cfg=1.0))
    assert sorted(shapes) == [(1, 4, 8, 16), (1, 4, 16, 32)]
    red = two_layers(model, vae)[1][2]
    slow = slow_run(model, clip, [("", None, None)], (128, 256), steps=1)
    x, sigma, when = starting_point(slow), slow.sigmas[0], slow.timesteps[0]
    mask = torch.zeros(1, 16, 32)
    mask[:, :4, :8] = 1
    xi = vision_guidance(red[None], mask) * state_scale(torch.tensor(1.0), sigma)
    part = (..., slice(0, 8), slice(0, 16))
    dog = slow.denoise(x[part], (x + xi)[part], sigma, when, encode(clip, "a dog")[0][0], {})
    expected = slow.denoise(x, x, sigma, when, slow.layers[0].text, {})
    expected[..., :4, :8] = dog[..., :4, :8]
    assert_same_picture(found, expected)


def test_a_crop_as_large_as_the_canvas_is_no_crop(model, clip, vae, prompts):
    ours, our_prompts = layered(model, clip, vae, TWO, prompts)
    cropped, cropped_prompts = layered(model, clip, vae, TWO, prompts, crop=8)
    assert_same_picture(sample(cropped, cropped_prompts), sample(ours, our_prompts))


def test_crop_refuses_what_it_cannot_do(model, clip, prompts, control_net):
    with pytest.raises(ValueError, match='crop works in the mode "paper" only'):
        layered(model, clip, None, "a dog: 0 0 0.5 1", prompts, crop=1, **APART)
    with pytest.raises(ValueError, match='Choose the mode "trajectories"'):
        layered(model, clip, None, "a dog: 0 0 0.5 1", prompts, guidance=VisionGuidance(inject="as published"))
    (controlled,) = comfy_nodes.ControlNetApply().apply_controlnet(prompts[0], control_net, torch.rand(1, 64, 64, 3), 1)
    ours, our_prompts = layered(model, clip, None, "a dog: 0 0 0.5 1", (controlled, prompts[1]), crop=1)
    with pytest.raises(ValueError, match="ControlNet cannot be cropped"):
        sample(ours, our_prompts)


# --- a layout for each picture ---

FOUR = (
    "a dog: 0 0 0.5 1 | colour=red",
    "a cat: 0.5 0 1 0.5 | colour=blue\na tree: 0 0.5 0.5 1",
    "a dog: 0.25 0.25 0.75 0.75 | a large grey dog",
    "a bus: 0 0 1 0.25 | colour=yellow\na cat: 0 0.5 0.25 1\na dog: 0.5 0.5 1 1 | colour=brown",
)


@pytest.mark.parametrize("more", [{}, APART, {"guidance": DYNAMIC}, {"background_negative": "{phrases}"}], ids=str)
def test_a_batch_of_layouts_is_its_layouts_one_by_one(model, clip, vae, prompts, more):
    layouts = [parse_layout(text, width=64, height=64, background=f"place {i}") for i, text in enumerate(FOUR)]
    noise = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def render(which):
        return render_in_layers(model, clip, vae, which, *prompts, Rendering(T0, 1.0, **more))

    together, *together_prompts = render(layouts)
    found = sample(together, together_prompts, batch=4, noise=noise)
    for i, layout in enumerate(layouts):
        single, *single_prompts = render(layout)
        assert_same_picture(found[i : i + 1], sample(single, single_prompts, noise=noise[i : i + 1]))


def test_a_batch_of_layouts_that_cannot_be(model, clip, vae, prompts):
    layouts = [parse_layout("a dog: 0 0 0.5 1", width=64, height=height) for height in (64, 128)]
    rendering = Rendering(T0, 1.0)
    with pytest.raises(ValueError, match="different canvases"):
        render_in_layers(model, clip, vae, layouts, *prompts, rendering)
    ours, *our_prompts = render_in_layers(model, clip, vae, layouts[:1] * 2, *prompts, rendering)
    with pytest.raises(ValueError, match="2 layouts for a batch of 3 pictures"):
        sample(ours, our_prompts, batch=3)
