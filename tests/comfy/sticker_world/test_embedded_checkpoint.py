"""The shipped checkpoint through ComfyUI's stock loader gives what it was trained to give."""

import comfy.sd
import pytest
import torch
from safetensors.torch import load_file
from stagecraft.core.clip.vocabulary import UNKNOWN
from stagecraft.core.comfy.sticker_world import StickerWorld, register_model_class
from stagecraft.sticker_world.checkpoint.shipped_weights import load_autoencoder, load_diffusion, load_encoder
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.world.vocabulary import vocabulary

PROMPT = "a dog and a red apple on a green meadow"


@pytest.fixture(scope="module")
def loaded():
    register_model_class()
    register_model_class()  # a second copy of the pack, or a reload, must do no harm
    return comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), embedding_directory=[])


def test_registered_once_and_last():
    register_model_class()
    models = comfy.supported_models.models
    assert [m for m in models if m is StickerWorld] == [StickerWorld]
    assert models[-1] is StickerWorld or models.index(StickerWorld) > models.index(comfy.supported_models.SD15)


def test_real_sd15_is_not_taken_for_ours():
    config = {**StickerWorld.unet_config, "model_channels": 320, "context_dim": 768}
    assert not StickerWorld.matches(config)
    assert StickerWorld.matches(dict(StickerWorld.unet_config), {}, unet_key_prefix="model.diffusion_model.")


def test_model_equals_the_trained_one(loaded):
    reference = load_diffusion(CHECKPOINT_FILE)
    x, context = torch.randn(2, 4, 32, 24), torch.randn(2, 77, 128)
    t = torch.tensor([20.0, 900.0])
    with torch.no_grad():
        ours = loaded[0].model.diffusion_model.float()(x, t, context=context)
        torch.testing.assert_close(ours, reference.unet(x, t, context).sample, rtol=1e-4, atol=1e-4)


def test_text_encoder_equals_the_trained_one(loaded):
    reference, clip = load_diffusion(CHECKPOINT_FILE), loaded[1]
    for text in (PROMPT, "", "a zebra, and a dog"):  # a stranger word has its own row
        hidden = clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0]
        with torch.no_grad():
            expected = reference.text(input_ids=vocabulary().encode([text])).last_hidden_state
        torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-4)


def test_bpe_tokenizer_gives_the_vocabularys_ids(loaded):
    tokens = [token for token, *_ in loaded[1].tokenize(PROMPT)["l"][0]]
    expected = [vocabulary().token_ids[row] for row in vocabulary().encode([PROMPT])[0].tolist()]
    assert UNKNOWN not in expected
    assert tokens == expected


def test_vae_equals_the_trained_one(loaded):
    autoencoder, encode = load_autoencoder(CHECKPOINT_FILE), load_encoder(CHECKPOINT_FILE)
    image = torch.rand(1, 64, 48, 3)
    latent = loaded[2].encode(image)
    expected = encode(image.movedim(-1, 1))
    torch.testing.assert_close(latent, expected, rtol=1e-3, atol=1e-3)
    raw = autoencoder.encode(image.movedim(-1, 1))
    decoded = autoencoder.decode(raw).clamp(0, 1).movedim(1, -1)
    torch.testing.assert_close(loaded[2].decode(latent), decoded, rtol=1e-3, atol=1e-3)


def test_a_saved_checkpoint_opens_again(loaded, tmp_path):
    path = tmp_path / "saved.safetensors"
    model, clip, vae, _ = loaded
    comfy.sd.save_checkpoint(str(path), model, clip, vae)
    again = comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=[])
    before = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT))[0][0]
    after = again[1].encode_from_tokens_scheduled(again[1].tokenize(PROMPT))[0][0]
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_file_is_fp16_and_small():
    weights = load_file(CHECKPOINT_FILE)
    assert {w.dtype for name, w in weights.items() if not name.endswith("token_ids")} == {torch.float16}
    assert CHECKPOINT_FILE.stat().st_size < 30e6
    assert all(torch.isfinite(w.float()).all() for w in weights.values())
