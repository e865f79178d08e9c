"""One search for the tokenizers of all text encoders that need no checkpoint: phrases' tokens say what was asked."""

import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.text_encoders.flux
import comfy.text_encoders.pixart_t5
import comfy.text_encoders.qwen_image
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.z_image
import pytest
import torch
from safetensors.torch import save_file
from stagecraft.core.clip.comfy.words import phrase_positions, positions_of_phrases
from stagecraft.core.layout.region import LayoutError
from stagecraft.tests.comfy.conftest import CONTEXT, SmallTokenizer

TOKENIZERS = {
    "SD 1.x": (comfy.sd1_clip.SD1Tokenizer, ["l"]),
    "SDXL": (comfy.sdxl_clip.SDXLTokenizer, ["g", "l"]),
    "SD3": (comfy.text_encoders.sd3_clip.SD3Tokenizer, ["l", "g", "t5xxl"]),
    "Flux": (comfy.text_encoders.flux.FluxTokenizer, ["l", "t5xxl"]),
    "PixArt": (comfy.text_encoders.pixart_t5.PixArtTokenizer, ["t5xxl"]),
    "Qwen-Image": (comfy.text_encoders.qwen_image.QwenImageTokenizer, ["qwen25_7b"]),
    "Z-Image": (comfy.text_encoders.z_image.ZImageTokenizer, ["qwen3_4b"]),
}


def clip_of(tokenizer):
    """ComfyUI's CLIP as far as it tokenizes, which needs no weights."""
    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer, clip.tokenizer_options = tokenizer, {}
    return clip


@pytest.fixture(scope="module", params=TOKENIZERS)
def encoders(request):
    tokenizer, keys = TOKENIZERS[request.param]
    clip = clip_of(tokenizer())
    return [(clip, key) for key in keys]


def said(clip, key, caption, positions):
    """What tokens at some positions say, by the tokenizer's own decoder."""
    part = next(
        part
        for part in (
            getattr(clip.tokenizer, name, None)
            for name in (f"clip_{key}", key, clip.tokenizer.__dict__.get("clip", ""))
        )
        if part is not None
    )
    tokens = [token for chunk in clip.tokenize(caption)[key] for token, *_ in chunk]
    return part.tokenizer.decode([tokens[position] for position in positions]).strip().casefold()


CASES = [
    ("a fire truck and a fire", {"a fire truck": "fire truck", "a fire": "fire"}),
    ("a photo of (a house:1.2) and a dog", {"a house": "house", "a dog": "dog"}),
    ("A photo of A HOUSE, and (a Dog)", {"A house": "house", "a dog": "dog"}),
    ("a photo of a house and a dog", {"(a house:1.2)": "house", "((a Dog))": "dog", "a photo!": "photo"}),
    ("a Traffic light\nnext to a car", {"a traffic light": "traffic light", "the car": "car"}),
    ("a house \\(small\\) by the sea", {"a house": "house", "sea": "sea"}),
    ("dog,cat,dog", {"cat": "cat"}),
]


@pytest.mark.parametrize(("caption", "phrases"), CASES)
def test_every_text_encoder_finds_the_same_words(encoders, caption, phrases):
    for clip, key in encoders:
        found = positions_of_phrases(clip, caption, list(phrases), encoder=key)
        texts = [said(clip, key, caption, positions).strip(", ") for positions in found]
        assert texts == list(phrases.values()), key


def test_what_a_tokenizer_puts_around_a_text_is_no_part_of_it(encoders):
    for clip, key in encoders:
        for phrase in ("image", "user", "assistant", "detailing the color"):
            with pytest.raises(LayoutError, match="does not say its name"):
                phrase_positions(clip, "a dog", phrase, encoder=key)


def test_positions_are_those_of_the_plain_prompt_in_clip():
    clip = clip_of(comfy.sd1_clip.SD1Tokenizer())
    for caption in (
        "a dog and (a house:1.2)",
        "A Dog and ((a house))",
        "a dog and a (house:0.8)",
        "a dog and A HOUSE!",
    ):
        for phrase in ("a house", "(a house:1.2)", "A House.", "(a) (house)"):
            assert phrase_positions(clip, caption, phrase) == [5], (caption, phrase)
    assert positions_of_phrases(clip, "a fire truck and a fire", ["a fire", "a fire truck"]) == [[6], [2, 3]]
    assert phrase_positions(clip, "a house \\(big\\) here", "a house \\(big\\)") == [2, 4]


def test_embeddings_in_a_prompt_change_nothing_and_can_be_named(tmp_path):
    for name in ("one", "other"):
        vectors = torch.randn(2, CONTEXT, generator=torch.Generator().manual_seed(len(name)))
        save_file({"emb_params": vectors}, str(tmp_path / f"{name}.safetensors"))
    clip = clip_of(SmallTokenizer(str(tmp_path)))
    caption = "a red embedding:one dog and a embedding:other cat, embedding:missing"
    assert phrase_positions(clip, caption, "a red dog") == [2, 5]
    assert phrase_positions(clip, caption, "a embedding:other cat") == [8, 9, 10]
    assert phrase_positions(clip, caption, "embedding:one") == [3, 4]


def test_a_name_within_others_is_said_to_be():
    clip = clip_of(comfy.sd1_clip.SD1Tokenizer())
    with pytest.raises(
        LayoutError, match=r'region "a fire" says its name only within.*Write it once more.*, or else\.'
    ):
        positions_of_phrases(clip, "a fire truck", ["a fire truck", "a fire"], ", or else")
    with pytest.raises(LayoutError, match='region "a small dog"'):
        positions_of_phrases(clip, "a red dog and a cat", ["a red dog", "a small dog"])
    assert phrase_positions(clip, "a fire beside a fire truck", "a fire", beside=["a fire truck"]) == [2]
    assert phrase_positions(clip, "a red dog", "a dog", beside=["red dog"]) == [3], (
        "a layer's caption is about its thing"
    )


def test_a_tokenizer_without_a_vocabulary_is_refused_in_a_sentence():
    class Hidden:
        def tokenize_with_weights(self, text, return_word_ids=False, **_):
            return {"x": [[(1, 1.0)]]}

    with pytest.raises(LayoutError, match="does not show its vocabulary"):
        phrase_positions(clip_of(Hidden()), "a dog", "a dog")
