"""Soft guidance in real samplers on transformers: joint attention and cross-attention, pictures and videos."""

import comfy.clip_vision
import comfy.ldm.flux.redux
import comfy.sample
import comfy.sd
import pytest
import torch
from stagecraft.core.attention.comfy.families import family_of
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.soft_guidance.comfy.apply import apply_soft_guidance, words_for
from stagecraft.core.soft_guidance.comfy.regions import phrase_regions
from stagecraft.core.soft_guidance.comfy.tokens import RegionTokens
from stagecraft.nodes.soft_guidance.soft_guidance import StageRegionTokens, StageSoftGuidance
from stagecraft.tests.comfy.families import CELL, WIDTH, build_family, fill

import nodes as comfy_nodes

pytestmark = pytest.mark.usefixtures("no_gradients")
NAMES = ("SD3", "Flux", "QwenImage", "WAN21_T2V")
SIZE = (4, 6)
PROMPT, NEGATIVE = "a dog and a cat on a green meadow", "blurry"


@pytest.fixture(scope="module", params=NAMES)
def family(request):
    return build_family(request.param)


def encode(family, text):
    return family.clip.encode_from_tokens_scheduled(family.clip.tokenize(text))


def prompts_of(family):
    return encode(family, PROMPT), encode(family, NEGATIVE)


def sample(family, model, prompts, batch=1, cfg=2.0, callback=None):
    latent = family.latent(*SIZE, batch)
    noise = comfy.sample.prepare_noise(latent, 7)
    how = 3, cfg, "euler", "simple"
    return comfy.sample.sample(model, noise, *how, *prompts, latent, callback=callback, seed=7, disable_pbar=True)


def left():
    """Cells of the first column of tokens, which are two cells wide."""
    mask = torch.zeros(1, SIZE[0] * CELL, SIZE[1] * CELL)
    mask[..., : 2 * CELL] = 1
    return mask


def tokens(family, seed, count=4):
    width = encode(family, PROMPT)[0][0].shape[-1]
    return 2 * torch.randn(1, count, width, generator=torch.Generator().manual_seed(seed))


def soft(family, regions, prompts=None):
    model, *prompts = apply_soft_guidance(family.model, *(prompts or prompts_of(family)), regions, "area")
    return model, prompts


def changes(one, two):
    """Mean change in the first column of tokens and in the rest."""
    change = (one - two).abs().flatten(0, -2).mean(0)
    return change[:2].mean().item(), change[2:].mean().item()


def test_a_regions_tokens_change_its_region(family):
    found = [sample(family, *soft(family, [RegionTokens(tokens(family, seed), left())])) for seed in (1, 2)]
    inside, outside = changes(*found)
    assert torch.isfinite(found[0]).all()
    assert inside > 2 * outside > 0, "the rest changes by what the picture sees of itself, and hardly"


def test_off_is_off_and_nothing_stays_behind(family):
    prompts = prompts_of(family)
    before = sample(family, family.model, prompts)
    off = apply_soft_guidance(family.model, *prompts, [RegionTokens(tokens(family, 1), left(), weight=0.0)])
    assert off[0] is family.model and off[1] is prompts[0] and off[2] is prompts[1]
    assert not torch.equal(sample(family, *soft(family, [RegionTokens(tokens(family, 1), left())])), before)
    assert torch.equal(sample(family, family.model, prompts), before)


def test_pictures_of_a_batch_are_as_alone(family):
    masks = torch.cat([left(), 1 - left()])
    both = torch.cat([tokens(family, 1), tokens(family, 2)])
    together = sample(family, *soft(family, [RegionTokens(both, masks)]), batch=2)
    alone = []
    for row in range(2):
        model, prompts = soft(family, [RegionTokens(both[row : row + 1], masks[row : row + 1])])
        alone.append(sample(family, model, prompts, batch=2)[row])
    for row in range(2):
        torch.testing.assert_close(together[row], alone[row], atol=1e-4, rtol=1e-4)


def test_a_layout_by_the_node(family):
    layout = parse_layout("a dog: 0 0 0.5 1\na cat: 0.5 0 1 1", width=48, height=32, background="a meadow")
    prompts = prompts_of(family)
    given = {"strength": 0.5, "rule": "area", "clip": family.clip, "layout": layout}
    if family.name in ("QwenImage", "WAN21_T2V"):  # whose stand-in for a text encoder has no words to find
        pytest.skip("no real text encoder at a small size")
    model, *made = StageSoftGuidance.execute(family.model, *prompts, **given).args
    assert not torch.equal(sample(family, model, made), sample(family, family.model, prompts))
    hard, *made_hard = StageSoftGuidance.execute(family.model, *prompts, hard_until=0.9, **given).args
    assert not torch.equal(sample(family, hard, made_hard), sample(family, model, made))
    regions = phrase_regions(family.clip, layout, 5.0, words=words_for(family.model))
    assert max(each.tokens.shape[1] for each in regions) < 10, "the words, without padding"


def test_hard_regions_do_not_see_each_other(family):
    if not family_of(family.model, "This test").order or family.name == "WAN21_T2V":
        pytest.skip("its attention to the picture is none that is masked")
    regions = [RegionTokens(tokens(family, 1), left()), RegionTokens(tokens(family, 3), 1 - left())]
    effects = {}
    for hard in (0.0, 1.0):
        found = []
        for seed in (1, 2):
            mine = RegionTokens(tokens(family, seed), left(), hard_until=hard)
            other = RegionTokens(regions[1].tokens, regions[1].mask, hard_until=hard)
            found.append(sample(family, *soft(family, [mine, other])))
        effects[hard] = changes(*found)
    assert effects[1.0][1] < 0.2 * effects[0.0][1], effects
    assert effects[1.0][0] > 0


def test_hard_regions_are_for_transformers():
    family = build_family("SD15")
    with pytest.raises(ValueError, match=r"hard_until closes .*Set hard_until to 0"):
        soft(family, [RegionTokens(tokens(family, 1), left(), hard_until=0.3)])


def redux():
    """A style model of Flux, and what CLIP Vision has seen."""
    network = comfy.ldm.flux.redux.ReduxImageEncoder(redux_dim=8, txt_in_features=WIDTH)
    fill(network, 6)
    seen = comfy.clip_vision.Output()
    seen.last_hidden_state = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(7))
    return comfy.sd.StyleModel(network), seen


def test_a_reference_picture_for_one_region_of_flux():
    family = build_family("Flux")
    style, seen = redux()
    mask = {"mask": left(), "strength": 1.0, "outside": False, "on_negative": False}
    (regions,) = StageRegionTokens.execute(**mask, style_model=style, clip_vision_output=seen).args
    prompts, plain = prompts_of(family), sample(family, family.model, prompts_of(family))
    model, *made = StageSoftGuidance.execute(family.model, *prompts, strength=1.0, rule="area", regions=regions).args
    inside, outside = changes(sample(family, model, made), plain)
    assert inside > 2 * outside > 0
    apply = comfy_nodes.StyleModelApply().apply_stylemodel
    (styled,) = apply(prompts[0], style, seen, 0.5, "attn_bias")
    model, *made = StageSoftGuidance.execute(
        family.model, styled, prompts[1], strength=1.0, rule="area", regions=regions
    ).args
    with pytest.raises(ValueError, match="a mask of attention for its own tokens.*Choose multiply"):
        sample(family, model, made)
