"""What the nodes of attention guidance take and refuse: models, settings, the report."""

from dataclasses import replace

import pytest
import torch
from comfy.text_encoders.pixart_t5 import PixArtTokenizer
from comfy.text_encoders.qwen_image import QwenImageTokenizer
from stagecraft.core.attention.sites import HALF
from stagecraft.core.attention_guidance.log import GuidanceLog
from stagecraft.core.attention_guidance.published import CHEN, ENERGIES
from stagecraft.core.attention_guidance.step import NORMALISED, SIGMA_SQUARED
from stagecraft.core.layered_rendering.comfy.render import render_in_layers
from stagecraft.core.layered_rendering.comfy.settings import Rendering
from stagecraft.core.layout.reading import parse_layout
from stagecraft.nodes.attention_guidance.attention_guidance import (
    OWN,
    PUBLISHED,
    StageAttentionGuidance,
    StageGuidanceReport,
    own_settings,
)
from stagecraft.tests.comfy.attention_guidance.guided import END, TWO, guide, guided, sample
from stagecraft.tests.comfy.attention_guidance.transformer_models import RandomText, model_of, small_model
from stagecraft.tests.comfy.conftest import NEGATIVE, PROMPT
from stagecraft.tests.comfy.families import FAMILIES, WIDTH, build_family
from stagecraft.tests.comfy.transformers import small

pytestmark = pytest.mark.usefixtures("no_gradients")


UNUSED = (7, 0.4, 0.9, 3.0, NORMALISED, HALF)  # own settings, where the published ones count

# Families whose text encoder is none of ComfyUI's have its tokenizer.
TOKENIZERS = {"QwenImage": QwenImageTokenizer, "WAN21_T2V": PixArtTokenizer}


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    family = build_family(name)
    clip = RandomText(WIDTH, TOKENIZERS[name]) if name in TOKENIZERS else family.clip
    layout = parse_layout("a dog: 0 0 0.5 0.5\na cat: 0.5 0.5 1 1", width=64, height=64, prompt=PROMPT)
    prompts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, NEGATIVE)]
    noise = torch.randn(family.latent(8, 8).shape, generator=torch.Generator().manual_seed(1))
    plain = sample(family.model, prompts, noise=noise)
    for energy in ENERGIES:
        log = GuidanceLog()
        ours = guide(family.model, clip, layout, energy=energy, strength=5.0, end_at=END, log=log)
        found = sample(ours, prompts, noise=noise)
        assert torch.isfinite(found).all() and not torch.equal(found, plain) and log.find(found)[0].measurements
    assert torch.equal(sample(family.model, prompts, noise=noise), plain)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("SD3", "paper"), ("Flux", "trajectories"), ("QwenImage", "trajectories"), ("WAN21_T2V", "paper")],
)
def test_transformers_beside_layered_rendering(name, mode):
    family = build_family(name)
    clip = RandomText(WIDTH, TOKENIZERS[name]) if name in TOKENIZERS else family.clip
    text = "a dog: 0 0 0.5 0.5 | colour=red\na cat: 0.5 0.5 1 1 | colour=blue"
    layout = parse_layout(text, width=64, height=64, prompt=PROMPT, background="on a meadow")
    both = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, NEGATIVE)]
    noise = torch.randn(family.latent(8, 8).shape, generator=torch.Generator().manual_seed(1))
    layered, *prompts = render_in_layers(family.model, clip, family.vae, layout, *both, Rendering(0.5, 1.0, mode=mode))
    plain, log = sample(layered, prompts, noise=noise), GuidanceLog()
    found = sample(guide(layered, clip, layout, log=log, strength=5.0, end_at=0.6), prompts, noise=noise)
    assert torch.isfinite(found).all() and not torch.equal(found, plain) and log.find(found)[0].measurements
    assert torch.equal(sample(layered, prompts, noise=noise), plain)


def test_sites_that_an_energy_cannot_read(model, clip):
    with pytest.raises(ValueError, match='"boxdiff" averages maps of one size, but "middle and first up" has several'):
        guided(model, clip, energy="boxdiff", sites="middle and first up")
    with pytest.raises(ValueError, match='no choice of attentions "all"'):
        guided(model, clip, sites="all")
    for sites in ("all blocks", "0-1"):
        with pytest.raises(ValueError, match=f'"refocusing" averages maps of one size, but "{sites}" has several'):
            guided(model, clip, energy="refocusing", sites=sites)


def test_a_network_that_nobody_knows_is_refused_by_its_name(clip):
    made = small("SD 3")
    unknown = model_of(replace(made, network=torch.nn.Sequential(made.network)))
    with pytest.raises(ValueError, match="this model, Sequential, .*does not know that class.*Use Layered Rendering"):
        guided(unknown, clip)


def test_weights_that_are_paged_and_cannot_be_loaded_otherwise(model, clip):
    class Paged(type(model)):
        def is_dynamic(self):
            return True

        def clone(self, disable_dynamic=False, **more):
            if disable_dynamic:
                raise RuntimeError("cached_patcher_init is not initialized.")
            return super().clone(**more)

    other = model.clone()
    other.__class__ = Paged
    with pytest.raises(ValueError, match="paged in and out.*start ComfyUI with --disable-dynamic-vram"):
        guided(other, clip)


def test_a_range_without_a_step_is_refused(model, clip):
    with pytest.raises(ValueError, match='start_at is 0.3, but the published end of "chen" is 0.196, so nothing'):
        guided(model, clip, start_at=0.3, end_at=None)
    with pytest.raises(ValueError, match="start_at is 0.4, but end_at is 0.4, so nothing"):
        guided(model, clip, start_at=0.4, end_at=0.4, strength=0.0)


def test_the_editor_shows_settings_that_do_not_go_together():
    def valid(energy="chen", settings=OWN, start_at=0.0, end_at=0.5, sites=HALF, **more):
        return StageAttentionGuidance.validate_inputs(energy, settings, start_at, end_at, sites, **more)

    assert valid() is True and valid(start_at=0.3) is True
    assert "start_at is 0.3, but end_at is 0.3" in valid(start_at=0.3, end_at=0.3)
    assert "averages maps of one size" in valid(energy="boxdiff", sites="middle and first up")
    assert valid(energy="boxdiff", sites="found") is True
    assert valid(energy="boxdiff", sites="middle and first up", blocks="8-12, 15") is True
    assert 'no choice of attentions "eight"' in valid(blocks="eight")
    for connected in ("energy", "settings", "start_at", "end_at", "sites", "blocks"):
        assert valid(**({"start_at": 0.9} | {connected: None})) is True, "connected, so known when it runs"
    assert valid(settings=PUBLISHED, start_at=0.9, blocks="eight") is True, "not used"


def test_the_report_finds_the_run_by_its_latent(model, clip, prompts):
    layout = parse_layout(TWO, width=128, height=128, prompt=PROMPT)
    given = ("chen", 1.0, PUBLISHED, *UNUSED)
    (ours,) = StageAttentionGuidance.execute(model, clip, layout, *given).args
    noises = [torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    latents = [sample(ours, prompts, noise=noise) for noise in noises]
    node = StageGuidanceReport.PREPARE_CLASS_CLONE({})
    reports = [node.execute({"samples": latent}).args for latent in latents]
    assert reports[0][1] != reports[1][1] and "call   1, sigma  14.6146" in reports[0][1]
    assert reports[0][0].shape == (1, 360, 640, 3)
    assert node.execute({"samples": latents[0]}).args[1] == reports[0][1], "the older one is still there"
    plot, text = node.execute({"samples": sample(model, prompts, noise=noises[0])}).args
    assert plot.shape == reports[0][0].shape and "nothing was guided" in text and "strength of 0" in text


def test_the_report_says_which_blocks_of_a_transformer_were_read():
    model, clip = small_model("Flux"), RandomText()
    layout = parse_layout(TWO, width=96, height=128, prompt=PROMPT)
    given = ("chen", 1.0, OWN, 5, 0.0, 0.5, 0.2, SIGMA_SQUARED, HALF)
    (ours,) = StageAttentionGuidance.execute(model, clip, layout, *given, blocks="1, 3").args
    prompts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, NEGATIVE)]
    found = sample(ours, prompts, noise=torch.randn(1, 4, 16, 12, generator=torch.Generator().manual_seed(1)))
    text = StageGuidanceReport.PREPARE_CLASS_CLONE({}).execute({"samples": found}).args[1]
    assert "attention was read in blocks 1, 3 of 0 to 3, 6 x 8" in text


def test_own_settings_begin_as_those_of_chen():
    defaults = {each.id: each.default for each in own_settings()}
    chen = ENERGIES[CHEN]
    assert defaults.pop("end_at") == pytest.approx(chen.end, abs=0.005)
    assert defaults == {
        "iterations": chen.schedule(0.0, 0.05)[1],
        "start_at": 0.0,
        "threshold": chen.threshold,
        "step_rule": chen.rule,
        "sites": chen.sites,
    }


def test_published_settings_are_those_of_the_core(model, clip, prompts):
    layout = parse_layout(TWO, width=128, height=128, prompt=PROMPT)
    for energy in ENERGIES:
        (node,) = StageAttentionGuidance.execute(model, clip, layout, energy, 2.0, PUBLISHED, *UNUSED).args
        assert torch.equal(
            sample(node, prompts), sample(guide(model, clip, layout, energy=energy, strength=2.0), prompts)
        )
    given = ("sali", 2.0, OWN, 3, 0.1, 0.7, -1.0, NORMALISED, HALF, 0.5, True, "the dog and the cat")
    node = StageAttentionGuidance.execute(model, clip, layout, *given).args[0]
    core = guide(
        model,
        clip,
        layout,
        energy="sali",
        strength=2.0,
        iterations=3,
        start_at=0.1,
        end_at=0.7,
        threshold=-torch.inf,
        step_rule=NORMALISED,
        sites=HALF,
        eta=0.5,
        checkpointing=True,
        prompt="the dog and the cat",
    )
    assert torch.equal(sample(node, prompts), sample(core, prompts))
