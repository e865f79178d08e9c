"""Columns of phrases in embedded prompts, by ComfyUI's own text encoders: what they drop, pad and join.

Their networks are replaced by one that embeds every token as its position, so that a column says where it comes from.
"""

import functools
import importlib
from dataclasses import dataclass

import comfy.sd
import pytest
import torch
from stagecraft.core.clip.comfy.columns import ADAPTED_T5, CLIPS_AND_T5, ONE, prompt_columns
from stagecraft.core.layout.region import LayoutError

PROMPT = "A small dog, and (a red) apple on the beach"
PHRASES = {"a small dog": "small dog", "a red apple": "red apple", "the beach": "beach"}


class Positions(torch.nn.Module):
    """Embeds every token as its position (1 t width), or (1 layers t width)."""

    def __init__(self, width=1, layers=0, is_llm=False):
        super().__init__()
        self.width, self.layers, self.is_llm = width, layers, is_llm

    def encode_token_weights(self, chunks):
        count = sum(map(len, chunks))
        shape = (1, *[self.layers] * bool(self.layers), count, self.width)
        out = torch.arange(count, dtype=torch.float32)[:, None].expand(shape).clone()
        return (out, torch.zeros(1, 8), *[{"attention_mask": torch.ones(1, count)}] * self.is_llm)


@dataclass(frozen=True)
class Encoder:
    """ComfyUI's classes of a tokenizer and a text encoder."""

    module: str
    tokenizer: str
    model: str
    parts: dict[str, Positions | None]
    how: str = ONE


ENCODERS = {
    "SD 3": Encoder(
        "sd3_clip",
        "SD3Tokenizer",
        "SD3ClipModel",
        {"clip_l": Positions(), "clip_g": Positions(), "t5xxl": Positions(4096)},
        CLIPS_AND_T5,
    ),
    "SD 3 without T5": Encoder(
        "sd3_clip",
        "SD3Tokenizer",
        "SD3ClipModel",
        {"clip_l": Positions(), "clip_g": Positions(), "t5xxl": None},
        CLIPS_AND_T5,
    ),
    "SD 3 with T5 alone": Encoder(
        "sd3_clip",
        "SD3Tokenizer",
        "SD3ClipModel",
        {"clip_l": None, "clip_g": None, "t5xxl": Positions(4096)},
        CLIPS_AND_T5,
    ),
    "Flux": Encoder("flux", "FluxTokenizer", "FluxClipModel", {"clip_l": Positions(), "t5xxl": Positions()}),
    "Klein": Encoder("flux", "KleinTokenizer", "Flux2TEModel", {"qwen3_4b": Positions(layers=3, is_llm=True)}),
    "Chroma": Encoder("pixart_t5", "PixArtTokenizer", "PixArtT5XXL", {"t5xxl": Positions()}),
    "Cosmos": Encoder("cosmos", "CosmosT5Tokenizer", "CosmosT5XXL", {"t5xxl": Positions()}),
    "Qwen-Image": Encoder(
        "qwen_image", "QwenImageTokenizer", "QwenImageTEModel", {"qwen25_7b": Positions(is_llm=True)}
    ),
    "HunyuanImage": Encoder(
        "hunyuan_image",
        "HunyuanImageTokenizer",
        "HunyuanImageTEModel",
        {"qwen25_7b": Positions(is_llm=True), "byt5_small": None},
    ),
    "HunyuanVideo 1.5": Encoder(
        "hunyuan_video",
        "HunyuanVideo15Tokenizer",
        "hunyuan_image.HunyuanImageTEModel",
        {"qwen25_7b": Positions(is_llm=True), "byt5_small": None},
    ),
    "Z-Image": Encoder("z_image", "ZImageTokenizer", "ZImageTEModel", {"qwen3_4b": Positions(is_llm=True)}),
    "HiDream": Encoder(
        "hidream",
        "HiDreamTokenizer",
        "HiDreamTEModel",
        {"clip_l": None, "clip_g": None, "t5xxl": Positions(), "llama": None},
    ),
    "LongCat": Encoder(
        "longcat_image", "LongCatImageTokenizer", "LongCatImageTEModel", {"qwen25_7b": Positions(is_llm=True)}
    ),
    "Ovis": Encoder("ovis", "OvisTokenizer", "OvisTEModel", {"qwen3_2b": Positions()}),
    "Anima": Encoder("anima", "AnimaTokenizer", "AnimaTEModel", {"qwen3_06b": Positions(is_llm=True)}, ADAPTED_T5),
    "Krea 2": Encoder("krea2", "Krea2Tokenizer", "Krea2TEModel", {"qwen3vl_4b": Positions(layers=12, is_llm=True)}),
    "Ideogram 4": Encoder(
        "ideogram4", "Ideogram4Tokenizer", "Ideogram4TEModel", {"qwen3vl_8b": Positions(layers=13, is_llm=True)}
    ),
}


@functools.cache
def build(name):
    """ComfyUI's CLIP without the networks."""
    encoder = ENCODERS[name]
    try:
        tokenizer, kind = (
            getattr(importlib.import_module(f"comfy.text_encoders.{module or encoder.module}"), kind)
            for module, _, kind in (each.rpartition(".") for each in (encoder.tokenizer, encoder.model))
        )
    except (ModuleNotFoundError, AttributeError) as error:
        pytest.skip(f"this ComfyUI has no text encoder of {name}: {error}")
    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer, clip.tokenizer_options = tokenizer(), {}
    clip.cond_stage_model = model = kind.__new__(kind)
    torch.nn.Module.__init__(model)
    for part, network in encoder.parts.items():
        setattr(model, part, network)
    only = list(encoder.parts)[0]
    model.clip = only
    model.clip_name = only.removeprefix("clip_")
    model.t5_attention_mask = False
    return clip, encoder.how


def embed(clip, text):
    """The embedding (t width) as ComfyUI's class makes it of its parts'."""
    out = clip.cond_stage_model.encode_token_weights(clip.tokenize(text))
    return out[0][0], out[2] if len(out) > 2 else {}


def letters(text):
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def flat(clip, key, text):
    return [token for chunk in clip.tokenize(text)[key] for token, *_ in chunk]


def tokenizer_of(clip, key):
    names = (f"clip_{key}", key, clip.tokenizer.__dict__.get("clip", ""))
    return next(getattr(clip.tokenizer, name) for name in names if hasattr(clip.tokenizer, name)).tokenizer


@pytest.mark.parametrize("name", ENCODERS)
def test_a_column_holds_the_token_that_says_the_phrase(name):
    clip, how = build(name)
    embedded, extra = embed(clip, PROMPT)
    found = prompt_columns(clip, PROMPT, list(PHRASES), len(embedded), how)
    if how == ADAPTED_T5:  # columns are those of what the adapter fills, from its start
        ids = extra["t5xxl_ids"].tolist()
        assert found.length == 512 and max(found.words) < len(ids)
        said = {phrase: [ids[column] for column in each] for phrase, each in zip(PHRASES, found.phrases, strict=True)}
        of_parts = [("t5xxl", said, [ids[column] for column in found.words])]
    else:
        assert found.length == len(embedded) and all(column < 0 for column in found.words)
        parts = parts_of(clip, embedded, how)
        of_parts = []
        for key, columns in parts.items():
            tokens = flat(clip, key, PROMPT)
            at = [tokens[int(embedded[column].max())] for column in range(len(embedded))]
            said = {
                phrase: [at[column] for column in each if column + len(embedded) in columns]
                for phrase, each in zip(PHRASES, found.phrases, strict=True)
            }
            of_parts.append((key, said, [at[c] for c in found.words if c + len(embedded) in columns]))
    for key, said, words in of_parts:
        decoder = tokenizer_of(clip, key)
        for phrase, text in PHRASES.items():
            assert letters(decoder.decode(said[phrase])) == letters(text), (key, phrase)
        assert letters(decoder.decode(words)) == letters(PROMPT), key


def parts_of(clip, embedded, how):
    """Columns of each text encoder that stands in the embedding."""
    keys = list(clip.tokenize(PROMPT))
    if how != CLIPS_AND_T5:
        return {next((key for key in keys if key not in ("l", "g", "byt5")), "l"): range(len(embedded))}
    counts = [
        (key, len(flat(clip, key, PROMPT)))
        for key in ("l", "t5xxl")
        if getattr(clip.cond_stage_model, f"clip_{key}", getattr(clip.cond_stage_model, key, None)) is not None
    ]
    starts = [sum(count for _, count in counts[:i]) for i in range(len(counts))]
    return {key: range(start, start + count) for (key, count), start in zip(counts, starts, strict=True)}


@pytest.mark.parametrize("name", [name for name, each in ENCODERS.items() if each.how != ADAPTED_T5])
def test_an_embedding_of_another_length_is_refused(name):
    clip, how = build(name)
    length = len(embed(clip, PROMPT)[0])
    for wrong in (length + 1, length + 6, length - 2):
        with pytest.raises(LayoutError, match=r"has dropped or added tokens.*Connect the CLIP"):
            prompt_columns(clip, PROMPT, list(PHRASES), wrong, how)


def test_a_persons_own_template_is_refused_and_not_guessed():
    clip, how = build("Qwen-Image")
    text = "<|im_start|>system\nPaint.<|im_end|>\n<|im_start|>user\na dog<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(LayoutError, match="has dropped or added tokens"):
        prompt_columns(clip, text, ["a dog"], len(embed(clip, text)[0]), how)
