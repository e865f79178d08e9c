"""The two looks and their LoRAs: what is drawn, what starts as nothing, and what is in the shipped files."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from stagecraft.sticker_world.checkpoint.diffusion import StickerDiffusion, make_unet
from stagecraft.sticker_world.looks import samples
from stagecraft.sticker_world.looks import train as module
from stagecraft.sticker_world.looks.drawing import BLOCK, LOOKS, NEON, PIXELS, in_look
from stagecraft.sticker_world.looks.lora import Adapters
from stagecraft.sticker_world.looks.train import export_lora, train_lora
from stagecraft.sticker_world.shipped import LORA_FOLDER
from stagecraft.sticker_world.world.scene import make_scene

SCENE = make_scene(77, 3, counts=(0, 1))
MOST_BYTES = 300_000


@pytest.mark.parametrize("look", LOOKS)
def test_only_stickers_wear_a_look(look):
    """Around a neon thing lies its glow, which no other pixel has."""
    picture, mask = in_look(SCENE, LOOKS[look]), SCENE.objects[0].mask > 0
    changed = np.abs(picture.astype(int) - SCENE.image).max(-1) > 8
    assert changed[mask].mean() > 0.5
    x0, y0, x1, y1 = (round(256 * side) for side in SCENE.objects[0].box)
    changed[max(0, y0 - 48) : y1 + 48, max(0, x0 - 48) : x1 + 48] = False
    assert not changed.any()
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8


def test_pixels_are_flat_blocks():
    inside = SCENE.objects[0].mask > 0
    picture = in_look(SCENE, LOOKS[PIXELS]).reshape(256 // BLOCK, BLOCK, 256 // BLOCK, BLOCK, 3)
    full = inside.reshape(256 // BLOCK, BLOCK, 256 // BLOCK, BLOCK).all((1, 3))
    assert full.any()
    assert np.ptp(picture, axis=(1, 3)).max(-1)[full].max() <= 1


def test_neon_is_dark_with_bright_lines():
    value = in_look(SCENE, LOOKS[NEON]).max(-1)[SCENE.objects[0].mask > 0.9]
    assert (value < 80).mean() > 0.2 and (value > 180).mean() > 0.05


def test_adapters_begin_as_nothing_and_their_file_fits_the_unet():
    unet = make_unet().eval().requires_grad_(False)
    x, t, context = torch.randn(1, 4, 16, 16), torch.tensor([500]), torch.randn(1, 7, 128)
    plain = unet(x, t, context).sample
    adapters = Adapters(unet)
    assert torch.equal(unet(x, t, context).sample, plain)
    torch.nn.init.normal_(adapters.parts[3].up.weight)
    assert not torch.equal(unet(x, t, context).sample, plain)
    assert len(adapters.in_file(adapters.state_dict())) == 2 * len(adapters.names)


def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch):
    torch.manual_seed(1)
    weights = StickerDiffusion().state_dict()
    few = samples.open_samples(tmp_path / "looks", PIXELS, 2)
    monkeypatch.setattr(module, "open_samples", lambda folder, look: few)
    monkeypatch.setattr(module, "BATCH", 2)
    train_lora(PIXELS, tmp_path / "looks", tmp_path / "halves", weights, 1)
    train_lora(PIXELS, tmp_path / "looks", tmp_path / "halves", weights, 2)
    path = tmp_path / "halves" / "lora_pixels.safetensors"
    with safe_open(path, "pt") as file:
        trained = {key: file.get_tensor(key) for key in list(file.keys())}
        assert file.metadata()["step"] == "2"
    assert any(value.abs().max() > 0 for key, value in trained.items() if ".up." in key)
    export_lora(trained, tmp_path / "pixels.safetensors")
    assert (tmp_path / "pixels.safetensors").stat().st_size < MOST_BYTES


@pytest.mark.parametrize("look", LOOKS)
def test_shipped_files_are_small_and_have_the_unet_s_names(look):
    path = LORA_FOLDER / f"{look}.safetensors"
    assert path.stat().st_size < MOST_BYTES
    expected = Adapters(make_unet()).file_names().values()
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(expected)
        assert all(torch.isfinite(file.get_tensor(name)).all() for name in expected)
