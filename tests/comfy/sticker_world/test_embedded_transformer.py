"""A transformer's file with random weights, in ComfyUI's loader and sampler, gives what the trained module gives."""

import comfy.model_detection
import comfy.sample
import comfy.sd
import comfy.supported_models
import pytest
import torch
from comfy.ldm.flux.model import Flux, FluxParams
from safetensors.torch import load_file
from stagecraft.core.comfy.sticker_world import StickerJoint, StickerWorld, register_model_class
from stagecraft.sticker_world.checkpoint.export import export_transformer
from stagecraft.sticker_world.checkpoint.shipped_weights import load_encoder
from stagecraft.sticker_world.checkpoint.transformer_training import TaughtTransformer
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.world.vocabulary import vocabulary
from torch import nn

PROMPT = "a dog and a red apple on a green meadow"
PREFIX = "model.diffusion_model."
# FLUX.1's own sizes, as its files have them.
REAL = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [16, 56, 56],
    "theta": 10_000,
    "patch_size": 2,
    "qkv_bias": True,
    "txt_ids_dims": [],
}


@pytest.fixture(scope="module")
def taught():
    """Random weights, as half precision keeps them."""
    torch.manual_seed(0)
    model = TaughtTransformer()
    for name, weight in model.named_parameters():
        mean, deviation = (1.0, 0.1) if name.endswith("scale") else (0.0, 0.05)
        nn.init.normal_(weight, mean, deviation)
    return model.half().float().requires_grad_(False)


@pytest.fixture(scope="module")
def path(taught, tmp_path_factory):
    path = tmp_path_factory.mktemp("joint") / "joint.safetensors"
    export_transformer(taught.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def loaded(path):
    register_model_class()
    return comfy.sd.load_checkpoint_guess_config(str(path), embedding_directory=[])


def conditioning(clip, text):
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def test_registered_once_and_before_the_cores(loaded):
    register_model_class()
    models = comfy.supported_models.models
    assert [m for m in models if m is StickerJoint] == [StickerJoint]
    assert models.index(StickerJoint) < models.index(comfy.supported_models.FluxSchnell)
    assert isinstance(loaded[0].model.model_config, StickerJoint)


@pytest.mark.parametrize(("guidance", "name"), [(True, "Flux"), (False, "FluxSchnell")])
def test_real_flux_files_stay_the_cores(loaded, guidance, name):
    sizes = {key: value for key, value in REAL.items() if key in FluxParams.__dataclass_fields__}
    with torch.device("meta"):
        real = Flux(dtype=torch.bfloat16, device="meta", operations=nn, guidance_embed=guidance, **sizes)
    weights = {PREFIX + key: value for key, value in real.state_dict().items()}
    assert type(comfy.model_detection.model_config_from_unet(weights, PREFIX)).__name__ == name


def test_the_unets_file_stays_the_unets(loaded):
    config = comfy.model_detection.model_config_from_unet(load_file(CHECKPOINT_FILE), PREFIX)
    assert isinstance(config, StickerWorld)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_model_equals_the_trained_one(loaded, taught, size):
    x, context, pooled = torch.randn(2, 4, *size), torch.randn(2, 77, 128), torch.randn(2, 128)
    t = torch.tensor([0.05, 0.9])
    with torch.no_grad():
        found = loaded[0].model.diffusion_model.float()(x, t, context=context, y=pooled)
        torch.testing.assert_close(found, taught.transformer(x, t, context, pooled), rtol=1e-4, atol=1e-4)
    assert found.std() > 0.1


def test_text_encoder_equals_the_trained_one(loaded, taught):
    for text in (PROMPT, "", "a zebra, and a dog"):  # a stranger word has its own row
        (found, more), *_ = conditioning(loaded[1], text)
        tokens, pooled = taught.embed(vocabulary().encode([text]))
        torch.testing.assert_close(found, tokens, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(more["pooled_output"], pooled, rtol=1e-4, atol=1e-4)


def test_the_stock_sampler_follows_the_velocity(loaded, taught):
    model, clip = loaded[:2]
    noise, latent = torch.randn(1, 4, 16, 16), torch.zeros(1, 4, 16, 16)
    prompts = [conditioning(clip, text) for text in (PROMPT, "")]
    found = comfy.sample.sample(model, noise, 3, 4.0, "euler", "simple", *prompts, latent, seed=1, disable_pbar=True)
    rows, x = vocabulary().encode([PROMPT, ""]), noise
    sigmas = [1.0, *comfy_sigmas(model, 3)[1:]]
    for now, after in zip(sigmas, sigmas[1:], strict=False):
        with torch.no_grad():
            for_prompt, for_nothing = taught(x.repeat(2, 1, 1, 1), torch.full((2,), now), rows).chunk(2)
        x = x + (after - now) * (for_nothing + 4 * (for_prompt - for_nothing))
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3)


def comfy_sigmas(model, steps):
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "simple", steps).tolist()


def test_it_shares_the_unets_vae(loaded, path):
    assert not [key for key in load_file(path) if key.startswith("first_stage_model.")]
    image = torch.rand(1, 64, 48, 3)
    expected = load_encoder(CHECKPOINT_FILE)(image.movedim(-1, 1))
    torch.testing.assert_close(loaded[2].encode(image), expected, rtol=1e-3, atol=1e-3)


def test_a_saved_checkpoint_opens_again(loaded, tmp_path):
    saved = tmp_path / "saved.safetensors"
    model, clip, vae, _ = loaded
    comfy.sd.save_checkpoint(str(saved), model, clip, vae)
    again = comfy.sd.load_checkpoint_guess_config(str(saved), embedding_directory=[])
    assert isinstance(again[0].model.model_config, StickerJoint)
    before, after = (conditioning(each, PROMPT)[0][0] for each in (clip, again[1]))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)
    x, t, pooled = torch.randn(1, 4, 8, 8), torch.tensor([0.5]), torch.randn(1, 128)
    with torch.no_grad():
        first, second = (
            each.model.diffusion_model.float()(x, t, context=before, y=pooled) for each in (model, again[0])
        )
    torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-3)


def test_file_is_fp16_and_small(path):
    weights = load_file(path)
    assert {w.dtype for name, w in weights.items() if not name.endswith("token_ids")} == {torch.float16}
    assert path.stat().st_size < 17e6
