"""CLIP as a guide: folders in the Hugging Face layout, embeddings against transformers', and weighted prompts."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stagecraft.core.clip.clip_guide import load_clip
from stagecraft.core.clip.small_clip import CLIPFileError, SmallCLIP
from stagecraft.core.tcig.prompts import PromptError, WeightedPrompt, distances, prompt_loss, read_prompts
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

EMBEDDED = Path(__file__).resolve().parents[3] / "models" / "hf_clip" / "sticker_world"
LETTERS = "adogct"
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = len(LETTERS) * 2 + 3
    text = CLIPTextConfig(**small, vocab_size=words, eos_token_id=words - 1, bos_token_id=words - 2)
    vision = CLIPVisionConfig(**small, image_size=16, patch_size=8)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)).eval()


@pytest.fixture
def folder(model, tmp_path):
    folder = tmp_path / "clip"
    model.save_pretrained(folder)
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "!</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPImageProcessor(image_mean=MEAN, image_std=STD).save_pretrained(folder)
    return folder


def test_a_folder_gives_what_transformers_gives(model, folder):
    guide = load_clip(folder)
    assert guide.size == 16 and guide.name == "clip"
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    texts = ["a dog", "cat"]
    pictures = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
        both = model(**tokens, pixel_values=(pictures - mean) / std)
    torch.testing.assert_close(guide.embed_texts(texts), both.text_embeds)
    torch.testing.assert_close(guide.embed_pictures(pictures), both.image_embeds)
    assert not torch.allclose(both.text_embeds[0], both.text_embeds[1])
    torch.testing.assert_close(guide.embed_texts(texts[1:]), both.text_embeds[1:])


def test_the_embedded_clip_is_the_small_one():
    guide, small = load_clip(EMBEDDED), SmallCLIP.load(EMBEDDED)
    texts = ["a dog on a green meadow", "an apple"]
    torch.testing.assert_close(guide.embed_texts(texts), small.embed_texts(texts))
    pictures = torch.rand(2, guide.size, guide.size, 3)
    torch.testing.assert_close(guide.embed_pictures(pictures.movedim(-1, 1)), small.embed_images(pictures))


def test_pictures_get_a_gradient_even_when_loaded_in_inference_mode(folder):
    with torch.inference_mode():
        guide = load_clip(folder)
    pictures = torch.rand(1, 3, 16, 16, requires_grad=True)
    guide.embed_pictures(pictures)[0, 0].backward()
    assert pictures.grad.abs().sum() > 0


def test_a_folder_that_is_no_clip_is_refused_in_a_sentence(folder, tmp_path):
    def refusal(path=folder):
        with pytest.raises(CLIPFileError) as error:
            load_clip(path)
        return str(error.value)

    assert "missing" in refusal(tmp_path / "nowhere")
    merges = (folder / "merges.txt").read_text()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    assert "tokenizer" in refusal() and "vocab.json" in refusal()
    (folder / "merges.txt").write_text(merges)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "cannot be opened" in refusal()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "clip_vision_model"}))
    assert "no CLIP with both towers" in refusal()
    (folder / "config.json").write_text("[")
    assert "cannot be read" in refusal()
    (folder / "config.json").unlink()
    assert "lacks config.json" in refusal()


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_the_distance_is_half_the_squared_angle(values):
    u, v = torch.tensor(values, dtype=torch.float64).view(2, 3) + torch.tensor([[1.5, 0, 0], [0, 1.5, 0]])
    u, v = u / u.norm(), v / v.norm()
    angle = math.acos(max(-1.0, min(1.0, float(u @ v))))
    assert float(distances(u[None], v)[0]) == pytest.approx(angle**2 / 2, abs=1e-6)


def test_the_same_and_the_opposite_have_finite_gradients():
    text = torch.tensor([1.0, 0, 0])
    pictures = torch.stack([text, -text]).requires_grad_()
    found = distances(pictures, text)
    found.sum().backward()
    assert pictures.grad.isfinite().all()
    torch.testing.assert_close(found.detach(), torch.tensor([0.0, math.pi**2 / 2]), atol=2e-2, rtol=0)


def test_weights_and_stops_act_as_in_the_canonical_loop():
    text = torch.tensor([1.0, 0])
    angles = torch.tensor([0.2, 0.6, 1.0], requires_grad=True)

    def loss(*prompts):
        angles.grad = None
        found = prompt_loss(torch.stack([angles.cos(), angles.sin()], -1), text.expand(len(prompts), 2), prompts)
        found.backward()
        return float(found.detach()), angles.grad.clone()

    half_squares = angles.detach().square() / 2
    value, gradient = loss(WeightedPrompt("a", 2.0))
    assert value == pytest.approx(2 * float(half_squares.mean()), rel=1e-5)
    torch.testing.assert_close(gradient, 2 * angles.detach() / 3)
    value, gradient = loss(WeightedPrompt("a", -2.0))
    assert value == pytest.approx(-2 * float(half_squares.mean()), rel=1e-5)
    torch.testing.assert_close(gradient, -2 * angles.detach() / 3)
    value, gradient = loss(WeightedPrompt("a", 1.0, 0.1))  # 0.02 is near enough, 0.18 and 0.5 are not
    assert value == pytest.approx(float(half_squares.mean()), rel=1e-5) and gradient.tolist()[0] == 0
    torch.testing.assert_close(gradient[1:], angles.detach()[1:] / 3)
    _, gradient = loss(WeightedPrompt("a", -1.0, -0.3))  # 0.5 is far enough
    assert gradient[2] == 0 and (gradient[:2] < 0).all()
    both, _ = loss(WeightedPrompt("a"), WeightedPrompt("b", 0.5))
    assert both == pytest.approx(1.5 * float(half_squares.mean()), rel=1e-5)


def test_prompts_are_read():
    assert read_prompts("a dog and a cat | blurry:-0.5| sharp : 1 :0.25 |") == (
        WeightedPrompt("a dog and a cat"),
        WeightedPrompt("blurry", -0.5),
        WeightedPrompt("sharp", 1.0, 0.25),
    )
    assert read_prompts("a:1:-inf")[0].stop == -math.inf
    for text, message in (
        ("", "no prompt"),
        (" | ", "no prompt"),
        ("a dog: a cat", "no number"),
        ("a:1:2:3", "form"),
        (":1", "form"),
        ("a:nan", "not finite"),
        ("a:inf", "not finite"),
        ("a:1:nan", "not finite"),
    ):
        with pytest.raises(PromptError, match=message):
            read_prompts(text)
