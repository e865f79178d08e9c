"""Soft guidance beside LoRAs, ControlNets, layered rendering and attention guidance."""

import pytest
import torch
from stagecraft.core.attention_guidance.comfy.guide import guide_attention
from stagecraft.core.attention_guidance.log import GuidanceLog
from stagecraft.core.attention_guidance.settings import Guidance
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.soft_guidance.comfy.tokens import RegionTokens
from stagecraft.tests.comfy.conftest import PROMPT
from stagecraft.tests.comfy.soft_guidance.small_regions import (
    appended,
    assert_same_picture,
    by_hand,
    sample,
    soft,
    tokens,
    two_sides,
)

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_a_lora_is_the_merged_weights(make_model, prompts):
    patched, merged = make_model(), make_model()
    name = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    change = 0.3 * torch.randn(merged.model.state_dict()[name].shape, generator=torch.Generator().manual_seed(5))
    patched.add_patches({name: (change,)}, 1.0)
    merged.model.state_dict()[name].add_(change)
    expected = sample(*soft(merged, prompts, two_sides()))
    assert_same_picture(
        sample(*soft(patched, prompts, two_sides())), expected, sample(*soft(make_model(), prompts, two_sides()))
    )


def test_a_control_net_reads_the_text_alone(plain_model, prompts, control_net):
    """What the ControlNet gives is what it gives without soft guidance: recorded there, and put in by hand here."""
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(6))
    controlled = comfy_nodes.ControlNetApplyAdvanced().apply_controlnet(*prompts, control_net, hint, 1.0, 0.0, 1.0)
    seen = []
    inner = control_net.control_model.forward
    control_net.control_model.forward = lambda *args, **kwargs: seen.append(kwargs["context"]) or inner(*args, **kwargs)
    found = sample(*soft(plain_model, controlled, two_sides()))
    assert {each.shape[1] for each in seen} == {77}
    texts = torch.cat([prompts[1][0][0], prompts[0][0][0]])
    assert all(torch.equal(each.sort(0).values, texts.sort(0).values) for each in seen)
    regions = two_sides()

    def text_for_control(conditioning):
        return [
            [text, {**options, "cross_attn_controlnet": plain[0]}]
            for (text, options), plain in zip(
                appended(conditioning, *(r.tokens for r in regions)), conditioning, strict=True
            )
        ]

    expected = sample(by_hand(plain_model, regions), [text_for_control(each) for each in controlled])
    assert_same_picture(found, expected, sample(*soft(plain_model, prompts, regions)))


@pytest.mark.parametrize("mode", ["paper", "trajectories"])
def test_layers_of_layered_rendering_keep_the_regions(plain_model, clip, vae, prompts, mode):
    """A layer over the whole canvas is the plain run, with soft guidance before it or behind it."""
    layout = parse_layout(f"{PROMPT}: 0 0 1 1", width=128, height=128)

    def layered(model, pair):
        model, *pair = render_in_layers(model, clip, vae, layout, *pair, Rendering(0.5, 1.0, mode=mode))
        return model, pair

    expected = sample(*soft(plain_model, prompts, two_sides()))
    assert_same_picture(sample(*layered(*soft(plain_model, prompts, two_sides()))), expected)
    assert_same_picture(sample(*soft(*layered(plain_model, prompts), two_sides())), expected)


def test_layers_without_tokens_stay_as_they_are(plain_model, clip, vae, prompts):
    """Tokens on the negative prompt alone change nothing of what the layers' captions see."""
    layout = parse_layout("a dog: 0 0 0.5 1\na cat: 0.5 0 1 1", width=128, height=128)
    model, *pair = render_in_layers(plain_model, clip, vae, layout, *prompts, Rendering(0.5, 1.0))
    closed = [RegionTokens(tokens(), torch.zeros(1, 128, 128))]
    ours, (_, negative) = soft(model, pair, closed)
    assert_same_picture(sample(ours, (pair[0], negative)), sample(model, pair))


def test_attention_guidance_looks_at_its_own_prompt_alone(plain_model, clip, prompts):
    """In either order: tokens would take the phrases' attention where they are, and the energy could not fall."""
    layout = parse_layout("a dog: 0 0 0.5 0.5\na cat: 0.5 0.25 1 1", width=128, height=128, prompt=PROMPT)
    log = GuidanceLog()

    def guided(model):
        return guide_attention(model, clip, layout, Guidance(end_at=0.5, strength=10.0), log)

    def energies(latent):
        (run,) = log.find(latent)
        return [each.energies for each in run.measurements]

    alone = sample(guided(plain_model), prompts)
    closed = [RegionTokens(tokens(77), torch.zeros(1, 128, 128))]
    model, pair = soft(plain_model, prompts, closed)
    assert_same_picture(sample(guided(model), pair), alone, sample(plain_model, prompts))
    open_everywhere = [RegionTokens(tokens(), torch.ones(1, 128, 128))]
    model, pair = soft(plain_model, prompts, open_everywhere)
    first = sample(guided(model), pair)
    model, pair = soft(guided(plain_model), prompts, open_everywhere)
    assert torch.equal(sample(model, pair), first)
    assert (first - alone).abs().max() > 1e-2
    assert energies(first)[:3] == energies(alone)[:3], "the first call's, at the same noise"


@pytest.mark.parametrize("count", [4, 7 * 77])
def test_maps_of_layers_prompts_count_no_token_twice(plain_model, clip, vae, prompts, count):
    """A dynamic vector reads a layer's prompt with the tokens behind it, also with as many as the prompt has."""
    layout = parse_layout("a dog: 0 0 0.5 1\na cat: 0.5 0 1 1", width=128, height=128)

    def layered(model, pair):
        guidance = VisionGuidance(source="dynamic")
        model, *pair = render_in_layers(model, clip, vae, layout, *pair, Rendering(0.5, 0.1, guidance=guidance))
        return model, pair

    closed = [RegionTokens(tokens(count), torch.zeros(1, 128, 128))]
    found = sample(*soft(*layered(plain_model, prompts), closed))
    assert_same_picture(found, sample(*layered(plain_model, prompts)), sample(plain_model, prompts))
