"""Soft guidance in real ComfyUI samplers, against attention that is written out by hand on prompts with the tokens."""

import logging

import comfy.context_windows
import pytest
import torch
from stagecraft.core.soft_guidance.comfy.apply import apply_soft_guidance
from stagecraft.core.soft_guidance.comfy.tokens import RegionTokens
from stagecraft.core.soft_guidance.soft_guidance import AREA, PUBLISHED
from stagecraft.tests.comfy.conftest import NEGATIVE, PROMPT, encode
from stagecraft.tests.comfy.families import build_family
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

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.mark.parametrize("rule", [PUBLISHED, AREA])
@pytest.mark.parametrize("size", [(16, 16), (16, 24), (18, 10)])
def test_equals_attention_written_out(plain_model, prompts, size, rule):
    """Both CFG rows have the tokens and the mask; also of latents that are not square."""
    regions = two_sides(left(*size, share=0.4))
    both = [appended(each, *(region.tokens for region in regions)) for each in prompts]
    expected = sample(by_hand(plain_model, regions, rule), both, *size)
    found = sample(*soft(plain_model, prompts, regions, rule), *size)
    assert_same_picture(found, expected, sample(plain_model, both, *size))


def test_a_mask_of_ones_is_plain_appended_tokens(plain_model, prompts):
    ones = torch.ones(1, 128, 128)
    found = sample(*soft(plain_model, prompts, [RegionTokens(tokens(), ones)]))
    expected = sample(plain_model, [appended(each, tokens()) for each in prompts])
    assert_same_picture(found, expected, sample(plain_model, prompts))
    nowhere = sample(*soft(plain_model, prompts, [RegionTokens(tokens(), ones, outside=True)]))
    assert_same_picture(nowhere, sample(plain_model, prompts))


def test_no_weight_is_the_very_same_model(plain_model, prompts):
    for regions in ([], two_sides(weight=0.0)):
        model, positive, negative = apply_soft_guidance(plain_model, *prompts, regions)
        assert model is plain_model and positive is prompts[0] and negative is prompts[1]


def test_weight_is_how_often_the_tokens_count(plain_model, prompts):
    """A weight of 2 is every token twice."""
    twice = [RegionTokens(region.tokens.repeat(1, 2, 1), region.mask, region.outside) for region in two_sides()]
    found = sample(*soft(plain_model, prompts, two_sides(weight=2.0)))
    assert_same_picture(
        found, sample(*soft(plain_model, prompts, twice)), sample(*soft(plain_model, prompts, two_sides()))
    )


def test_prompts_of_any_length_share_a_batch(plain_model, clip, prompts):
    """ComfyUI would evaluate contexts of 162 and 85 columns apart, and repeat those of 154 and 77."""
    calls = []
    model = plain_model.clone()
    model.set_model_unet_function_wrapper(
        lambda run, args: calls.append(1) or run(args["input"], args["timestep"], **args["c"])
    )
    for count in (4, 77):
        mine = tokens(count, seed=3)
        regions = [RegionTokens(mine, left())]
        for texts in ((LONG, NEGATIVE), (PROMPT, LONG), (PROMPT, LONG * 2)):
            pair = [encode(clip, text) for text in texts]
            expected = sample(by_hand(plain_model, regions), [appended(each, mine) for each in pair])
            calls.clear()
            assert_same_picture(sample(*soft(model, pair, regions)), expected, sample(plain_model, pair))
            assert len(calls) == STEPS


@pytest.mark.parametrize("count", [1, 8])
def test_very_short_prompts(plain_model, prompts, count):
    """Some models' prompts are the embedding of a picture: one token."""
    pair = [[[text[:, :count], options] for text, options in each] for each in prompts]
    expected = sample(
        by_hand(plain_model, two_sides()), [appended(each, tokens(seed=1), tokens(seed=2)) for each in pair]
    )
    assert_same_picture(sample(*soft(plain_model, pair, two_sides())), expected, sample(plain_model, pair))


def test_only_the_positive_prompt_where_asked(plain_model, prompts):
    """Rows with and without tokens, here in one batch."""
    mine = RegionTokens(tokens(), left(), negative=False)
    model, (positive, negative) = soft(plain_model, prompts, [mine])
    assert negative is prompts[1]
    found = sample(model, (positive, negative))
    unseen = RegionTokens(tokens(), torch.zeros(1, 128, 128))
    _, _, closed = apply_soft_guidance(plain_model, *prompts, [unseen])
    assert_same_picture(found, sample(model, (positive, closed)), sample(*soft(plain_model, prompts, two_sides()[:1])))


def test_every_picture_of_a_batch_has_its_own_mask_and_tokens(plain_model, prompts):
    masks = torch.cat([left(share=0.25), left(share=0.75)])
    mine = tokens(batch=2)
    regions = [RegionTokens(mine, masks)]
    expected = sample(by_hand(plain_model, regions), [appended(each, mine) for each in prompts], batch=2)
    found = sample(*soft(plain_model, prompts, regions), batch=2)
    assert_same_picture(found, expected, sample(*soft(plain_model, prompts, [RegionTokens(mine, masks[:1])]), batch=2))
    shared = sample(*soft(plain_model, prompts, [RegionTokens(mine[:1], masks[:1])]), batch=2)
    assert_same_picture(found[:1], shared[:1])
    with pytest.raises(ValueError, match="2 masks for a batch of 3 pictures"):
        sample(*soft(plain_model, prompts, regions), batch=3)


def test_windows_of_a_batch_share_one_mask(plain_model, prompts):
    windows = comfy.context_windows
    model = plain_model.clone()
    model.model_options["context_handler"] = windows.IndexListContextHandler(
        context_schedule=windows.get_matching_context_schedule(windows.ContextSchedules.STATIC_STANDARD),
        fuse_method=windows.get_matching_fuse_method(windows.ContextFuseMethods.FLAT),
        context_length=2,
    )
    found = sample(*soft(model, prompts, two_sides()), batch=4)
    assert_same_picture(found, sample(*soft(plain_model, prompts, two_sides()), batch=4))
    own = [two_sides(left().repeat(4, 1, 1)), [RegionTokens(tokens(batch=4), left())]]
    for regions in own:
        with pytest.raises(ValueError, match="Context windows cut the batch"):
            sample(*soft(model, prompts, regions), batch=4)
    model.model_options["context_handler"].context_length = 4  # one window has them all
    assert_same_picture(
        sample(*soft(model, prompts, own[1]), batch=4), sample(*soft(plain_model, prompts, own[1]), batch=4)
    )


def test_order_of_entries_is_of_no_matter(plain_model, clip, prompts):
    """Entries with areas and masks of their own, with tokens and without, in either order."""
    other = encode(clip, LONG)
    _, (with_tokens, negative) = soft(plain_model, prompts, two_sides())
    model = soft(plain_model, prompts, two_sides())[0]
    masked = comfy_nodes.ConditioningSetMask().append(other, left(), "default", 0.7)[0]
    small = comfy_nodes.ConditioningSetArea().append(with_tokens, 64, 64, 32, 64, 1.0)[0]
    entries = [*with_tokens, *masked, *small]
    found = sample(model, (entries, negative))
    assert_same_picture(sample(model, (entries[::-1], negative)), found)
    without = sample(
        plain_model,
        (
            [*prompts[0], *masked, *comfy_nodes.ConditioningSetArea().append(prompts[0], 64, 64, 32, 64, 1.0)[0]],
            prompts[1],
        ),
    )
    assert (found - without).abs().max() > 1e-2


def test_an_area_sees_its_part_of_the_mask(plain_model, prompts):
    """The upper right quarter of the canvas, with a mask that covers its lower half."""
    mask = torch.zeros(1, 128, 128)
    mask[:, 32:64, 64:] = 1
    mask[:, 96:, :32] = 1  # elsewhere
    regions = [RegionTokens(tokens(), mask)]
    model, pair = soft(plain_model, prompts, regions)
    area = {"area": (8, 8, 0, 8), "strength": 1.0}
    pair = [[[text, {**options, **area}] for text, options in each] for each in pair]
    part = torch.zeros(1, 64, 64)
    part[:, 32:] = 1
    small = by_hand(plain_model, [RegionTokens(tokens(), part)])
    expected = sample(
        small, [[[text, {**options, **area}] for text, options in appended(each, tokens())] for each in prompts]
    )
    assert_same_picture(sample(model, pair)[..., :8, 8:], expected[..., :8, 8:])


def test_an_areas_namesake_among_the_negative_prompts_is_the_negative_prompt(plain_model, clip, prompts):
    """ComfyUI copies an entry with an area to the other prompts, options and all, with the text of another entry."""
    area = {"area": (8, 16, 8, 0), "strength": 1.0}
    mine = [RegionTokens(tokens(), left(), negative=False)]
    pair = [[*prompts[0], [encode(clip, LONG)[0][0], area]], prompts[1]]
    model, (positive, negative) = soft(plain_model, pair, mine)
    by_itself = [*negative, [negative[0][0], {**negative[0][1], **area}]]  # then ComfyUI has nothing to add
    found = sample(model, (positive, negative))
    assert_same_picture(found, sample(model, (positive, by_itself)), sample(plain_model, pair))


def test_a_plain_run_afterwards_is_bit_for_bit_what_it_was(plain_model, prompts):
    before = sample(plain_model, prompts)
    first = sample(*soft(plain_model, prompts, two_sides()))
    assert torch.equal(sample(plain_model, prompts), before)
    assert torch.equal(sample(*soft(plain_model, prompts, two_sides())), first)
    assert not torch.equal(first, before)


def test_model_without_prompts_says_so(plain_model, prompts, caplog):
    model, _ = soft(plain_model, prompts, two_sides())
    with caplog.at_level(logging.WARNING):
        assert torch.equal(sample(model, prompts), sample(plain_model, prompts))
    assert "Connect its positive and negative outputs" in caplog.text


def test_two_in_a_row_are_one_with_all_regions(plain_model, prompts):
    first, second = two_sides(), [RegionTokens(tokens(3, seed=5), left(share=0.75))]
    model, pair = soft(plain_model, prompts, first)
    model, pair = soft(model, pair, second, AREA)
    expected = sample(*soft(plain_model, prompts, [*first, *second]))
    assert_same_picture(sample(model, pair), expected, sample(*soft(plain_model, prompts, first)))


def test_sdxl_is_a_u_net_like_any(no_gradients):
    family = build_family("SDXL")
    pair = [family.clip.encode_from_tokens_scheduled(family.clip.tokenize(text)) for text in (PROMPT, NEGATIVE)]
    mine = torch.randn(1, 4, pair[0][0][0].shape[-1], generator=torch.Generator().manual_seed(0))
    regions = [RegionTokens(mine, left())]
    both = [appended(each, mine) for each in pair]
    expected = sample(by_hand(family.model, regions), both)
    assert_same_picture(sample(*soft(family.model, pair, regions)), expected, sample(family.model, pair))
