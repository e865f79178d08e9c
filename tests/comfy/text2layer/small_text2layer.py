"""A small Text2Layer file with random weights, and the embedded text encoder, for tests in a real sampler."""

import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.ops
import comfy.sample
import comfy.sd
import pytest
import torch
from stagecraft.core.comfy.sampling import Sampling
from stagecraft.core.text2layer.autoencoder import LayeredAutoencoder, LayeredAutoencoderConfig
from stagecraft.core.text2layer.comfy.layer_by_layer import paint_layers
from stagecraft.core.text2layer.comfy.model import TEXT2LAYER, load_text2layer
from stagecraft.core.text2layer.files import (
    EPS,
    FIRST,
    V,
    write_text2layer,
)
from stagecraft.core.text2layer.prompts import layout_of_prompt
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.tests.comfy.families import fill
from stagecraft.tests.comfy.model_folder import model_folder

STEPS, SIDE = 3, 64
CONFIG = LayeredAutoencoderConfig(
    block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, head_width=8, mid_block_add_attention=False
)
UNET = {
    "image_size": 32,
    "out_channels": 4,
    "model_channels": 64,  # with this context the embedded checkpoint's class
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [0, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [0, 0, 1, 1],
    "num_head_channels": 32,
    "use_spatial_transformer": True,
    "context_dim": 128,
    "legacy": False,
    "dtype": torch.float32,
}
SCALE, SHIFT = 1.7, 0.2
ROUNDING = 1e-5  # float32, with sums in another order


def random_unet(channels):
    network = openaimodel.UNetModel(**UNET, in_channels=channels, operations=comfy.ops.disable_weight_init)
    fill(network, 11)
    return network.state_dict()


@pytest.fixture(scope="module")
def text2layer_folder(tmp_path_factory):
    """Files with random weights: with what lies below, without, and as training starts, where nothing comes of it."""
    folder = tmp_path_factory.mktemp("text2layer")
    autoencoder = LayeredAutoencoder(CONFIG)
    fill(autoencoder, 12)
    settings = {"autoencoder": autoencoder.state_dict(), "config": CONFIG, "scale": SCALE, "shift": SHIFT}
    given, alone = random_unet(8), random_unet(4)
    fresh = alone | {FIRST: torch.cat([alone[FIRST], torch.zeros_like(alone[FIRST])], 1)}
    write_text2layer(folder / "layers.safetensors", given, prediction=V, **settings)
    write_text2layer(folder / "alone.safetensors", alone, prediction=V, **settings)
    write_text2layer(folder / "fresh.safetensors", fresh, prediction=V, **settings)
    write_text2layer(folder / "packed.safetensors", given, prediction=EPS, bits=6, **settings)
    with model_folder(TEXT2LAYER, folder, first=True):
        yield folder


@pytest.fixture(scope="module")
def text2layer(text2layer_folder):
    return load_text2layer("layers.safetensors")


@pytest.fixture(scope="module")
def sticker_clip():
    return comfy.sd.load_checkpoint_guess_config(str(CHECKPOINT_FILE), output_vae=False)[1]


@pytest.fixture(scope="module")
def sticker_prompts(sticker_clip):
    return [sticker_clip.encode_from_tokens_scheduled(sticker_clip.tokenize(text)) for text in ("a dog", "")]


def sample(model, prompts, batch=1, rows=8, columns=8, **options):
    positive, negative = ([[text, {**given, **options}] for text, given in entries] for entries in prompts)
    latent = torch.zeros(batch, 4, rows, columns)
    noise = comfy.sample.prepare_noise(latent, 7)
    return comfy.sample.sample(
        model, noise, STEPS, 4.0, "euler", "normal", positive, negative, latent, seed=7, disable_pbar=True
    )


def painted(loaded, clip, layout, seed=3, **options):
    options.setdefault("sampling", Sampling(seed, STEPS))
    sampling = options.pop("sampling")
    layout = layout_of_prompt(layout, "", SIDE, SIDE) if isinstance(layout, str) else layout
    return paint_layers(loaded[0], loaded[1], clip, layout, sampling, **options)


def same(first, second):
    return torch.equal(first.colour, second.colour) and torch.equal(first.alpha, second.alpha)
