"""Soft guidance in real ComfyUI samplers, against attention that is written out by hand on prompts with the tokens."""

import logging

import comfy.context_windows
import comfy.ldm.modules.attention
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from einops import rearrange
from stagecraft.core.attention_guidance.comfy.guide import guide_attention
from stagecraft.core.attention_guidance.log import GuidanceLog
from stagecraft.core.attention_guidance.settings import Guidance
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.vision_guidance import VisionGuidance
from stagecraft.core.layout.layout import parse_layout
from stagecraft.core.soft_guidance.comfy.apply import RegionTokens, apply_soft_guidance
from stagecraft.core.soft_guidance.soft_guidance import AREA, PUBLISHED, cell_mask
from stagecraft.tests.comfy.conftest import CONTEXT, NEGATIVE, PROMPT, encode
from stagecraft.tests.comfy.families import build_family

import nodes as comfy_nodes

STEPS, CFG = 3, 2.0
LONG = "a dog and a cat on a green meadow " * 12  # two chunks of 77

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture(scope="module")
def plain_model(make_model):
    return make_model()


def sample(model, prompts, height=16, width=16, *, batch=1, sampler="euler", cfg=CFG, steps=STEPS):
    latent = torch.zeros(batch, 4, height, width)
    noise = comfy.sample.prepare_noise(latent, 7)
    return comfy.sample.sample(model, noise, steps, cfg, sampler, "normal", *prompts, latent, seed=7, disable_pbar=True)


def tokens(count=4, seed=0, batch=1, scale=2.0):
    return scale * torch.randn(batch, count, CONTEXT, generator=torch.Generator().manual_seed(seed))


def left(height=16, width=16, share=0.5, pixels=8):
    mask = torch.zeros(1, height * pixels, width * pixels)
    mask[..., : int(share * width * pixels)] = 1
    return mask


def two_sides(mask=None, **more):
    mask = left() if mask is None else mask
    return [RegionTokens(tokens(seed=1), mask, **more), RegionTokens(tokens(seed=2), mask, outside=True, **more)]


def soft(model, prompts, regions, rule=PUBLISHED):
    model, *prompts = apply_soft_guidance(model, *prompts, regions, rule)
    return model, prompts


def appended(conditioning, *more):
    """The prompt with tokens behind its text and nothing else."""
    rows = max(len(each) for each in more)
    return [
        [torch.cat([text.expand(rows, -1, -1), *(m.expand(rows, -1, -1) for m in more)], 1), o]
        for text, o in conditioning
    ]


def by_hand(model, regions, rule=PUBLISHED):
    """A model whose cross-attention is written out, with the tokens of the regions in the last columns of each row."""
    model = model.clone()

    def attend(q, k, v, options):
        heads, grid = options["n_heads"], options["activations_shape"][-2:]
        count = sum(region.tokens.shape[1] for region in regions)
        q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k, v))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).exp()
        start = k.shape[2] - count
        for region in regions:
            stop = start + region.tokens.shape[1]
            seen = cell_mask(region.mask, tuple(grid), rule)
            seen = (~seen if region.outside else seen).float() * region.weight
            seen = seen.repeat(len(q) // len(seen), 1)  # the pictures of each entry, entry after entry
            weights[..., start:stop] *= seen[:, None, :, None]
            start = stop
        return rearrange(weights / weights.sum(-1, keepdim=True) @ v, "b h n d -> b n (h d)")

    for part, numbers in (("input", range(12)), ("middle", range(3)), ("output", range(12))):
        for number in numbers:
            model.set_model_attn2_replace(attend, part, number)

    def one_by_one(args):
        rest = args["input"], args["sigma"], args["model_options"]
        return [comfy.samplers.calc_cond_batch(args["model"], [each], *rest)[0] for each in args["conds"]]

    # In one batch ComfyUI may repeat contexts, and the columns would not be the last ones.
    model.set_model_sampler_calc_cond_batch_function(one_by_one)
    return model


def assert_same_picture(found, expected, plain=None):
    assert torch.isfinite(found).all()
    size = max(1.0, expected.std().item())
    torch.testing.assert_close(found / size, expected / size, atol=1e-4, rtol=0)
    if plain is not None:
        assert (expected - plain).abs().max() > 1e-2 * size, "it must change something for this to say anything"


# --- parity ---


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


# --- beside other things ---


def test_two_in_a_row_are_one_with_all_regions(plain_model, prompts):
    first, second = two_sides(), [RegionTokens(tokens(3, seed=5), left(share=0.75))]
    model, pair = soft(plain_model, prompts, first)
    model, pair = soft(model, pair, second, AREA)
    expected = sample(*soft(plain_model, prompts, [*first, *second]))
    assert_same_picture(sample(model, pair), expected, sample(*soft(plain_model, prompts, first)))


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


@pytest.mark.parametrize("count", [1, 8])
def test_very_short_prompts(plain_model, prompts, count):
    """Some models' prompts are the embedding of a picture: one token."""
    pair = [[[text[:, :count], options] for text, options in each] for each in prompts]
    expected = sample(
        by_hand(plain_model, two_sides()), [appended(each, tokens(seed=1), tokens(seed=2)) for each in pair]
    )
    assert_same_picture(sample(*soft(plain_model, pair, two_sides())), expected, sample(plain_model, pair))


def test_tokens_that_another_pack_appends_stay_open(plain_model, prompts):
    mine = torch.randn(1, 5, CONTEXT, generator=torch.Generator().manual_seed(8))

    def patch(n, context, value, options):
        context, value = (torch.cat([x, mine.expand(len(x), -1, -1)], 1) for x in (context, value))
        return n, context, value

    model = plain_model.clone()
    model.set_model_attn2_patch(patch)
    expected = sample(*soft(plain_model, prompts, [RegionTokens(mine, torch.ones(1, 128, 128)), *two_sides()]))
    assert_same_picture(sample(*soft(model, prompts, two_sides())), expected)


@pytest.mark.parametrize("mode", ["paper", "trajectories"])
def test_layers_of_layered_rendering_keep_the_regions(plain_model, clip, vae, prompts, mode):
    """A layer over the whole canvas is the plain run, with soft guidance before it or behind it."""
    layout = parse_layout(f"{PROMPT}: 0 0 1 1", width=128, height=128)

    def layered(model, pair):
        model, *pair = render_in_layers(model, clip, vae, layout, *pair, t0=0.5, strength=1.0, mode=mode)
        return model, pair

    expected = sample(*soft(plain_model, prompts, two_sides()))
    assert_same_picture(sample(*layered(*soft(plain_model, prompts, two_sides()))), expected)
    assert_same_picture(sample(*soft(*layered(plain_model, prompts), two_sides())), expected)


def test_layers_without_tokens_stay_as_they_are(plain_model, clip, vae, prompts):
    """Tokens on the negative prompt alone change nothing of what the layers' captions see."""
    layout = parse_layout("a dog: 0 0 0.5 1\na cat: 0.5 0 1 1", width=128, height=128)
    model, *pair = render_in_layers(plain_model, clip, vae, layout, *prompts, t0=0.5, strength=1.0)
    closed = [RegionTokens(tokens(), torch.zeros(1, 128, 128))]
    ours, (_, negative) = soft(model, pair, closed)
    assert_same_picture(sample(ours, (pair[0], negative)), sample(model, pair))


def test_attention_guidance_looks_at_its_own_prompt_alone(plain_model, clip, prompts):
    """In either order: tokens would take the phrases' attention where they are, and the energy could not fall."""
    layout = parse_layout("a dog: 0 0 0.5 0.5\na cat: 0.5 0.25 1 1", width=128, height=128, prompt=PROMPT)
    log = GuidanceLog()

    def guided(model):
        return guide_attention(model, clip, layout, Guidance(end=0.5, strength=10.0), log)

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
        model, *pair = render_in_layers(model, clip, vae, layout, *pair, t0=0.5, strength=0.1, guidance=guidance)
        return model, pair

    closed = [RegionTokens(tokens(count), torch.zeros(1, 128, 128))]
    found = sample(*soft(*layered(plain_model, prompts), closed))
    assert_same_picture(found, sample(*layered(plain_model, prompts)), sample(plain_model, prompts))


# --- what cannot be ---


@pytest.mark.parametrize("name", ["SD3", "Flux", "QwenImage", "WAN21_T2V"])
def test_models_without_cross_attention_to_text_are_refused(name, prompts):
    family = build_family(name)
    with pytest.raises(ValueError, match=r"cross-attention of a U-Net .*; this model is \w+.*Use Layered Rendering"):
        apply_soft_guidance(family.model, *prompts, two_sides())


def test_u_nets_that_read_the_text_in_place_of_the_picture_are_refused(plain_model, prompts, monkeypatch):
    """As the x4 upscaler's first attentions, where nothing would be masked."""
    network = plain_model.get_model_object("diffusion_model")
    first = next(part for part in network.modules() if hasattr(part, "disable_self_attn"))
    monkeypatch.setattr(first, "disable_self_attn", True)
    with pytest.raises(ValueError, match="mixes text and picture otherwise"):
        apply_soft_guidance(plain_model, *prompts, two_sides())


def test_sdxl_is_a_u_net_like_any(no_gradients):
    family = build_family("SDXL")
    pair = [family.clip.encode_from_tokens_scheduled(family.clip.tokenize(text)) for text in (PROMPT, NEGATIVE)]
    mine = torch.randn(1, 4, pair[0][0][0].shape[-1], generator=torch.Generator().manual_seed(0))
    regions = [RegionTokens(mine, left())]
    both = [appended(each, mine) for each in pair]
    expected = sample(by_hand(family.model, regions), both)
    assert_same_picture(sample(*soft(family.model, pair, regions)), expected, sample(family.model, pair))


def test_what_cannot_be_meant_is_one_sentence(plain_model, prompts):
    wide = RegionTokens(torch.zeros(1, 4, 24), left())
    with pytest.raises(ValueError, match=f"width 24, but the prompts have {CONTEXT}"):
        apply_soft_guidance(plain_model, *prompts, [wide])
    other = [[torch.zeros(1, 77, 24), {}]]
    with pytest.raises(ValueError, match=f"width {CONTEXT}, but the prompts have 24"):
        apply_soft_guidance(plain_model, prompts[0], other, two_sides())
    with pytest.raises(ValueError, match="expected .pictures, tokens, width"):
        apply_soft_guidance(plain_model, *prompts, [RegionTokens(tokens(), torch.ones(8, 8))])
    with pytest.raises(ValueError, match="weight -1; expected a number from 0 on"):
        apply_soft_guidance(plain_model, *prompts, two_sides(weight=-1.0))
    with pytest.raises(ValueError, match='no rule "half"'):
        apply_soft_guidance(plain_model, *prompts, two_sides(), "half")
    with pytest.raises(ValueError, match="24 x 16 cells, which is not the shape of soft guidance's mask of 128 x 128"):
        sample(*soft(plain_model, prompts, two_sides()), 16, 24)
