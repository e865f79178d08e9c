"""Soft guidance beside what others do to attention: overrides, replacements, patches, and kernels without masks."""

import logging

import comfy.ldm.modules.attention
import pytest
import torch
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from stagecraft.core.soft_guidance.comfy.tokens import RegionTokens
from stagecraft.tests.comfy.conftest import CONTEXT, NEGATIVE, PROMPT, encode
from stagecraft.tests.comfy.soft_guidance.small_regions import (
    LONG,
    STEPS,
    appended,
    assert_same_picture,
    by_hand,
    left,
    sample,
    soft,
    tokens,
    two_sides,
)

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_another_packs_override_is_called_with_the_mask(plain_model, prompts):
    model, calls = plain_model.clone(), []

    def override(attend, q, k, v, heads, *args, **kwargs):
        calls.append(kwargs.get("mask") is not None)
        return attend(q, k, v, heads, *args, **kwargs) * 1.1

    model.model_options["transformer_options"]["optimized_attention_override"] = override
    found = sample(*soft(model, prompts, two_sides()))
    assert calls.count(True) * 2 == len(calls), "one of two attentions in every block is to the prompt"
    reference = by_hand(model, two_sides())
    hand = reference.model_options["transformer_options"]["patches_replace"]["attn2"]
    for block, attend in list(hand.items()):
        hand[block] = lambda *args, attend=attend: attend(*args) * 1.1
    both = [appended(each, *(region.tokens for region in two_sides())) for each in prompts]
    assert_same_picture(found, sample(reference, both), sample(*soft(plain_model, prompts, two_sides())))


def test_an_override_that_drops_masks_is_found_out(plain_model, prompts, caplog):
    model, calls = plain_model.clone(), []

    def forgetful(attend, q, k, v, heads, *args, **kwargs):
        calls.append(k.shape[1])
        return attend(q, k, v, heads, **{**kwargs, "mask": None})

    model.model_options["transformer_options"]["optimized_attention_override"] = forgetful
    with caplog.at_level(logging.WARNING):
        found = sample(*soft(model, prompts, two_sides()))
    assert caplog.text.count("ignores masks") == 1
    assert calls.count(88) == 2, "it is asked for the text's attention once on each grid"
    assert calls.count(64) > STEPS and calls.count(256) > STEPS, "and for the picture's as before"
    assert_same_picture(found, sample(*soft(plain_model, prompts, two_sides())), sample(model, prompts))


def test_one_that_drops_masks_of_some_shapes_only(plain_model, prompts):
    """Fast kernels take heads of some widths and leave the others to another."""
    model = plain_model.clone()

    def forgetful(attend, q, k, v, heads, *args, **kwargs):
        return attend(q, k, v, heads, **{**kwargs, "mask": kwargs.get("mask") if q.shape[1] == 64 else None})

    model.model_options["transformer_options"]["optimized_attention_override"] = forgetful
    found = sample(*soft(model, prompts, two_sides()))
    assert_same_picture(found, sample(*soft(plain_model, prompts, two_sides())), sample(model, prompts))


def test_one_that_drops_masks_is_found_out_where_everything_is_open(plain_model, prompts):
    """Three tokens fill up the context, and at first their mask is everywhere."""
    model = plain_model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = (
        lambda attend, q, k, v, heads, *args, **kwargs: attend(q, k, v, heads, **{**kwargs, "mask": None})
    )

    def scheduled(model):
        parts = []
        for mask, start, end in ((torch.ones(1, 128, 128), 0.0, 0.5), (left(), 0.5, 1.0)):
            ours, pair = soft(model, prompts, [RegionTokens(tokens(3), mask)])
            parts.append([[[text, {**o, "start_percent": start, "end_percent": end}] for text, o in p] for p in pair])
        return sample(ours, [[*early, *late] for early, late in zip(*parts, strict=True)], steps=4)

    assert_same_picture(scheduled(model), scheduled(plain_model), sample(plain_model, prompts, steps=4))


def test_attention_that_calls_no_override_is_refused(plain_model, prompts, monkeypatch):
    """As older patches put a function of their own in the place of ComfyUI's."""
    module = comfy.ldm.modules.attention
    monkeypatch.setattr(
        module, "optimized_attention", lambda q, k, v, heads, **_: module.attention_pytorch(q, k, v, heads)
    )
    with pytest.raises(ValueError, match="replaced the attention of this model by one that soft guidance cannot mask"):
        sample(*soft(plain_model, prompts, two_sides()))


def test_the_same_for_a_backend_that_drops_them(plain_model, prompts, monkeypatch, caplog):
    """As SageAttention's newer kernels do, where ComfyUI hands the mask on."""
    real = comfy.ldm.modules.attention.optimized_attention

    @comfy.ldm.modules.attention.wrap_attn
    def fast(q, k, v, heads, mask=None, **kwargs):
        return real(q, k, v, heads, **kwargs)

    expected = sample(*soft(plain_model, prompts, two_sides()))
    for name in ("optimized_attention", "optimized_attention_masked"):
        monkeypatch.setattr(comfy.ldm.modules.attention, name, fast)
    with caplog.at_level(logging.WARNING):
        assert_same_picture(sample(*soft(plain_model, prompts, two_sides())), expected)
    assert "ignores masks" in caplog.text


@pytest.mark.parametrize("texts", [(PROMPT, NEGATIVE), (LONG, NEGATIVE)])
def test_another_packs_replacement_keeps_what_it_adds(plain_model, clip, texts):
    """As IPAdapter adds the attention to a picture of its own to that to the text, both without a mask."""
    pair = [encode(clip, text) for text in texts]

    def adapter(replace_plain):
        def attend(q, k, v, options):
            heads = options["n_heads"]
            picture = torch.ones_like(k[:, :3]) * torch.tensor([1.0, -1.0, 0.5])[:, None]
            attention = comfy.ldm.modules.attention.optimized_attention
            return replace_plain(q, k, v, options) + 0.5 * attention(q, picture, picture.flip(1), heads)

        return attend

    def plain(q, k, v, options):
        return comfy.ldm.modules.attention.optimized_attention(q, k, v, options["n_heads"])

    regions = two_sides()
    ours, reference = plain_model.clone(), by_hand(plain_model, regions)
    hand = reference.model_options["transformer_options"]["patches_replace"]["attn2"]
    for block, attend in list(hand.items()):
        ours.set_model_attn2_replace(adapter(plain), *block)
        hand[block] = adapter(attend)
    both = [appended(each, *(region.tokens for region in regions)) for each in pair]
    assert_same_picture(sample(*soft(ours, pair, regions)), sample(reference, both), sample(ours, pair))


def test_perturbed_attention_and_its_extra_evaluation(plain_model, prompts):
    """Its own evaluation of the positive prompt has the tokens too."""
    (model,) = PerturbedAttentionGuidance.execute(plain_model, 2.0).args
    (reference,) = PerturbedAttentionGuidance.execute(by_hand(plain_model, two_sides()), 2.0).args
    both = [appended(each, *(region.tokens for region in two_sides())) for each in prompts]
    assert_same_picture(
        sample(*soft(model, prompts, two_sides())),
        sample(reference, both),
        sample(*soft(plain_model, prompts, two_sides())),
    )


def test_a_patch_that_changes_the_rows_is_refused(plain_model, prompts):
    model = plain_model.clone()
    model.set_model_attn2_patch(lambda n, context, value, options: (n, context[:, :40], value[:, :40]))
    with pytest.raises(ValueError, match="Another node has changed cross-attention"):
        sample(*soft(model, prompts, two_sides()))


def test_tiles_of_other_packs_are_refused(plain_model, prompts):
    """Each tile would see the whole mask."""

    def in_tiles(part):
        def evaluate(run, args):
            tiles = args["input"].split(part, -1)
            return torch.cat([run(tile, args["timestep"], **args["c"]) for tile in tiles], -1)

        model = plain_model.clone()
        model.set_model_unet_function_wrapper(evaluate)
        return sample(*soft(model, prompts, two_sides()))

    assert torch.equal(in_tiles(16), sample(*soft(plain_model, prompts, two_sides())))
    with pytest.raises(ValueError, match="8 x 16 cells of the picture, as in tiles, where .* masks for 16 x 16"):
        in_tiles(8)


def test_prompts_that_nobody_knows_are_refused(plain_model, prompts):
    def other(run, args):
        options = {**args["c"]["transformer_options"], "uuids": ["unknown"] * len(args["cond_or_uncond"])}
        return run(args["input"], args["timestep"], **{**args["c"], "transformer_options": options})

    model = plain_model.clone()
    model.set_model_unet_function_wrapper(other)
    with pytest.raises(ValueError, match="evaluates prompts of its own beside the sampler's"):
        sample(*soft(model, prompts, two_sides()))


def test_tokens_that_another_pack_appends_stay_open(plain_model, prompts):
    mine = torch.randn(1, 5, CONTEXT, generator=torch.Generator().manual_seed(8))

    def patch(n, context, value, options):
        context, value = (torch.cat([x, mine.expand(len(x), -1, -1)], 1) for x in (context, value))
        return n, context, value

    model = plain_model.clone()
    model.set_model_attn2_patch(patch)
    expected = sample(*soft(plain_model, prompts, [RegionTokens(mine, torch.ones(1, 128, 128)), *two_sides()]))
    assert_same_picture(sample(*soft(model, prompts, two_sides())), expected)
