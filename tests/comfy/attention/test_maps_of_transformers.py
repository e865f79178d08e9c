"""Attention Maps on transformers, from prompt to picture: tokens, blocks, frames, and what is refused."""

import comfy.sample
import comfy.sd
import comfy.supported_models_base
import comfy.text_encoders.cosmos
import pytest
import torch
from stagecraft.core.attention.comfy.families import FAMILIES
from stagecraft.core.attention.comfy.maps import Reading, attention_maps
from stagecraft.core.attention.comfy.recording import OVERRIDE
from stagecraft.nodes.attention_guidance.attention_maps import StageAttentionMaps
from stagecraft.tests.comfy.families import T5_TEXT, build_family, fill

pytestmark = pytest.mark.usefixtures("no_gradients")
PROMPT, PHRASES = "a dog and a red apple on the beach", ["a dog", "a red apple"]
T5_WORDS = ["\u2581dog", "\u2581red", "\u2581apple"]  # as its vocabulary writes them


@pytest.fixture(scope="module", params=["SD3", "Flux", "WAN21_T2V"])
def family(request):
    return build_family(request.param)


@pytest.fixture(scope="module")
def clip(family):
    if family.name != "WAN21_T2V":
        return family.clip
    # Wan's own tokenizer lies in its checkpoint; this T5 pads to 512 tokens too.
    target = comfy.supported_models_base.ClipTarget(
        comfy.text_encoders.cosmos.CosmosT5Tokenizer, comfy.text_encoders.cosmos.te()
    )
    small = {"model_name": "t5xxl", "t5xxl_model_config": T5_TEXT}
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32, **small})
    fill(clip.cond_stage_model, 2)
    return clip


def token_places(clip):
    """Columns of "dog", "red" and "apple", by the vocabulary's own names, and of all that is embedded."""
    found = {}
    key = next(key for key in ("t5xxl", "l") if key in clip.tokenize("") and has_part(clip, key))
    part = getattr(clip.tokenizer, key, None) or getattr(clip.tokenizer, f"clip_{key}")
    names = T5_WORDS if key == "t5xxl" else ["dog</w>", "red</w>", "apple</w>"]
    tokens = [token for chunk in clip.tokenize(PROMPT)[key] for token, *_ in chunk]
    for name in names:
        found[name.strip("\u2581").removesuffix("</w>")] = tokens.index(part.tokenizer.get_vocab()[name])
    return found


def has_part(clip, key):
    network = clip.cond_stage_model
    return getattr(network, f"clip_{key}", getattr(network, key, None)) is not None


def text_maps(family, clip, latent, noise, seed):
    """Of every block in order, its softmax over all keys: (heads' mean, picture's rows, the prompt's columns)."""
    model, found = family.model, []
    text = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT))[0]
    sampling = model.get_model_object("model_sampling")
    sigma = torch.tensor([float(sampling.percent_to_sigma(1 - noise))])
    drawn = comfy.sample.prepare_noise(latent, seed)
    x = sampling.noise_scaling(
        sigma.reshape(-1, *[1] * (latent.ndim - 1)), drawn, model.model.process_latent_in(latent)
    )

    def override(attend, q, k, v, heads, *args, **kwargs):
        queries, keys = q, k
        if q.ndim == 3:
            queries, keys = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k))
        words, n = text[0].shape[1], x[0, 0].numel() // 4
        if family.name == "WAN21_T2V":
            is_text, rows = keys.shape[2] == words, slice(0, n)
        else:
            is_text, rows = keys.shape[2] == words + n, slice(words, words + n)
        if is_text:
            logits = queries @ keys.mT * queries.shape[-1] ** -0.5
            found.append(logits.softmax(-1).mean(1)[:, rows, :words])
        return attend(q, k, v, heads, *args, **kwargs)

    given = {} if text[1].get("pooled_output") is None else {"y": text[1]["pooled_output"]}
    given |= {"guidance": torch.tensor([3.5])} if family.name == "Flux" else {}
    model.model.apply_model(x, sigma, c_crossattn=text[0], transformer_options={OVERRIDE: override}, **given)
    return found


def test_a_phrases_map_is_that_of_its_tokens_in_every_frame(family, clip):
    latent = 0.5 * torch.randn(family.latent(8, 12).shape, generator=torch.Generator().manual_seed(8))
    reading = Reading(0.5, "all blocks", 3, smooth=False)
    found = attention_maps(family.model, clip, latent, PROMPT, PHRASES, reading)
    blocks, places = text_maps(family, clip, latent, 0.5, 3), token_places(clip)
    frames = latent.shape[2] if latent.ndim == 5 else 1
    assert found.maps.shape == (frames, 2, 8, 12)
    for i, words in enumerate((["dog"], ["red", "apple"])):
        columns = [places[word] for word in words]
        mean = torch.stack([each[0, :, columns].mean(-1) for each in blocks]).mean(0).reshape(frames, 1, 4, 6)
        expected = torch.nn.functional.interpolate(mean, (8, 12), mode="bilinear")[:, 0]
        torch.testing.assert_close(found.maps[:, i], expected, atol=1e-6, rtol=1e-3)
    assert found.text().startswith("Attention maps were read in blocks 0")
    if family.name == "WAN21_T2V":
        assert not torch.allclose(found.maps[0], found.maps[1]), "each frame has a map of its own"


def test_which_word_shares_out_every_place(family, clip):
    latent = family.latent(8, 12)
    words = PROMPT.split()
    reading = Reading(1.0, "all blocks", smooth=False, which_word=True)
    shares = attention_maps(family.model, clip, latent, "dog apple beach", ["dog", "apple", "beach"], reading).maps
    torch.testing.assert_close(shares.sum(1), torch.ones_like(shares[:, 0]), atol=1e-5, rtol=0)
    assert len(words) == 9


def test_blocks_by_number_and_a_u_nets_places(family, clip):
    latent = family.latent(8, 12)
    blocks = 2 if family.name == "Flux" else 1
    found = attention_maps(family.model, clip, latent, PROMPT, PHRASES, Reading(sites="0"))
    assert [site.number for site in found.sites] == [0]
    for which in ("quarter of the latent", "found"):
        found = attention_maps(family.model, clip, latent, PROMPT, PHRASES, Reading(sites=which))
        assert [site.number for site in found.sites] == list(range(blocks))
    with pytest.raises(ValueError, match="the model has no such blocks"):
        attention_maps(family.model, clip, latent, PROMPT, PHRASES, Reading(sites="8-12"))
    with pytest.raises(ValueError, match='no choice of attentions "eight"'):
        attention_maps(family.model, clip, latent, PROMPT, PHRASES, Reading(sites="eight"))


def test_the_node_draws_pictures_and_frames(family, clip):
    pictures = torch.rand(9, 64, 96, 3, generator=torch.Generator().manual_seed(9))
    pictures = pictures if family.frames else pictures[:2]
    given = pictures, PROMPT, "\n".join(PHRASES), 0.5, "quarter of the latent", 0
    drawn, masks, text = StageAttentionMaps.execute(family.model, clip, family.vae, *given).args
    assert drawn.shape[0] == masks.shape[0] == 2 * len(pictures)
    assert "of 0 to" in text
    plain = StageAttentionMaps.execute(family.model, clip, family.vae, *given, smoothing="off").args[1]
    assert not torch.equal(plain, masks)


def test_a_class_that_is_not_known_is_named(family, clip):
    network = family.model.model.diffusion_model
    kind = type(network)
    try:
        network.__class__ = type("SomebodysOwn", (kind,), {})
        with pytest.raises(
            ValueError, match=r"SomebodysOwn.*does not know that class.*Flux, Chroma.*Connect the model"
        ):
            attention_maps(family.model, clip, family.latent(8, 12), PROMPT, PHRASES, Reading())
    finally:
        network.__class__ = kind
    assert f"{kind.__module__}.{kind.__qualname__}".removeprefix("comfy.ldm.") in FAMILIES
