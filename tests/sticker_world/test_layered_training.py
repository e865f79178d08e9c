"""Layers of scenes and the training of Text2Layer on them, without training for long."""

import numpy as np
import pytest
import torch
from stagecraft.core.text2layer.autoencoder import LayeredAutoencoder, LayeredAutoencoderConfig
from stagecraft.core.text2layer.files import V, read_text2layer
from stagecraft.sticker_world import pipeline
from stagecraft.sticker_world.checkpoint.autoencoder import Autoencoder
from stagecraft.sticker_world.checkpoint.diffusion import LATENT_SIZE, StickerDiffusion, make_unet
from stagecraft.sticker_world.checkpoint.export import ldm_names
from stagecraft.sticker_world.text2layer import autoencoder as layered_autoencoder
from stagecraft.sticker_world.text2layer import diffusion as layered_diffusion
from stagecraft.sticker_world.text2layer import latents as layered_latents
from stagecraft.sticker_world.text2layer import samples as layered_data
from stagecraft.sticker_world.text2layer.autoencoder import EMBEDDED, SHIPPED, load_layered_autoencoder
from stagecraft.sticker_world.text2layer.diffusion import (
    ROWS,
    denoising_loss,
    draw_batch,
    make_layered_unet,
    read_latent_scale,
    train_layered_diffusion,
)
from stagecraft.sticker_world.text2layer.export import export_text2layer
from stagecraft.sticker_world.text2layer.latents import (
    LatentSet,
    LayeredLatents,
    encode_layers,
    layered_codec,
    single_codec,
    stacked_codec,
)
from stagecraft.sticker_world.text2layer.samples import (
    draw_crops,
    layer_sample,
    open_layers,
    split_scene,
    to_tensors,
    whole_sample,
)
from stagecraft.sticker_world.training.prepared import fingerprint
from stagecraft.sticker_world.world.scene import make_scene
from stagecraft.sticker_world.world.vocabulary import vocabulary

THREE = (0.0, 0.0, 0.0, 1.0)
TINY = LayeredAutoencoderConfig(
    block_out_channels=(8, 8, 8),
    layers_per_block=1,
    norm_num_groups=4,
    head_width=8,
    patch_size=2,
    mid_block_add_attention=False,
)


def compose(sample, below=None):
    alpha = sample.mask[..., None] / 255
    return sample.foreground * alpha + (sample.background if below is None else below) * (1 - alpha)


@pytest.mark.parametrize("index", range(4))
def test_every_split_of_a_scene_composes_to_its_picture(index):
    scene = make_scene(77, index, counts=THREE)
    whole = whole_sample(scene)
    assert np.abs(compose(whole) - scene.image).max() <= 2 and (whole.background == scene.backdrop).all()
    canvas = scene.backdrop
    for k in range(3):
        layer = split_scene(scene, k, k + 1, "")
        assert np.abs(layer.background - canvas.astype(float)).max() <= 2
        assert (layer.mask == scene.objects[k].layer[..., 3]).all()
        canvas = compose(layer)
    assert np.abs(canvas - scene.image).max() <= 3
    assert not whole.foreground[whole.mask == 0].any()


def test_a_layer_has_a_caption_of_its_own():
    scene = make_scene(77, 0, counts=THREE)
    seen = set()
    for seed in range(20):
        sample = layer_sample(scene, np.random.default_rng(seed))
        named = [thing.concept for thing in scene.objects if thing.concept in sample.caption]
        assert len(named) == 1
        number = [thing.concept for thing in scene.objects].index(named[0])
        assert (sample.mask == scene.objects[number].layer[..., 3]).all()
        seen.add(number)
    assert seen == {0, 1, 2}


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    return open_layers(tmp_path_factory.mktemp("layers"), 6)


def test_layers_are_drawn_once_two_of_every_scene(layers, tmp_path, monkeypatch):
    scene = make_scene(layered_data.TRAINING_SEED, 4)
    assert layers.shape == (12, 256, 256, 7) and (layers[8] == whole_sample(scene).stack()).all()
    open_layers(tmp_path, 1)
    monkeypatch.setattr(layered_data, "ProcessPoolExecutor", None)
    assert len(open_layers(tmp_path, 1)) == 2


def test_crops_are_pieces_of_the_layers_mostly_with_foreground(layers):
    crops = draw_crops(layers, np.random.default_rng(0), 60, 64)
    assert crops.shape == (60, 64, 64, 7)
    assert (crops == draw_crops(layers, np.random.default_rng(0), 60, 64)).all()
    covered = (crops[..., -1] > 127).any((1, 2))
    assert 0.5 < covered.mean() < 1
    windows = np.lib.stride_tricks.sliding_window_view(layers[:, :, :, 3:6], (64, 64), (1, 2))
    for crop in crops[:4, ..., 3:6]:
        corner = [(windows[:, :, :, :, 0, 0] == turned[0, 0]).all(-1) for turned in (crop, crop[:, ::-1])]
        places = [np.argwhere(found) for found in corner]
        assert any(
            (windows[n, y, x].transpose(1, 2, 0) == turned).all()
            for turned, found in zip((crop, crop[:, ::-1]), places, strict=True)
            for n, y, x in found
        )


def test_the_embedded_autoencoder_is_small():
    with torch.device("meta"):
        model = LayeredAutoencoder(EMBEDDED)
    assert EMBEDDED.downscale == 8 and sum(p.numel() for p in model.parameters()) < 2e6


@pytest.fixture(scope="module")
def trained(layers, tmp_path_factory):
    """A tiny autoencoder after a few steps on small crops, and the numbers that it printed."""
    folder, patch = tmp_path_factory.mktemp("weights"), pytest.MonkeyPatch()
    printed = []
    step = layered_autoencoder.autoencoder_step

    def note(*arguments):
        loss, numbers = step(*arguments)
        printed.append(numbers)
        return loss, numbers

    for name, value in (("CROP", 64), ("BATCH", 2), ("PEAK_LR", 0.2), ("autoencoder_step", note)):
        patch.setattr(layered_autoencoder, name, value)
    patch.setitem(layered_autoencoder.PARTS, SHIPPED, TINY)
    weights = layered_autoencoder.train_layered_autoencoder(SHIPPED, layers, folder, 25)
    yield weights, printed
    patch.undo()


def test_the_autoencoder_learns_what_all_its_heads_are_to_show(trained):
    weights, printed = trained
    assert set(printed[0]) == {
        "foreground",
        "background",
        "image",
        "mask",
        "perceptual",
        "std",
        "noise",
        "psnr",
    }
    for name in ("background", "mask", "image", "perceptual"):
        early, late = (np.mean([numbers[name] for numbers in some]) for some in (printed[:5], printed[-5:]))
        assert late < early, name
    model = load_layered_autoencoder(SHIPPED, weights)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert (model.heads["mask"][1].running_var != 1).any()


@pytest.fixture(scope="module")
def encoded(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    codec = layered_codec(SHIPPED, trained[0], one_by_one=True)
    return folder, codec, encode_layers("tiny", codec, folder, 3)


def test_latents_are_those_of_the_samples_and_of_what_lies_below(encoded, trained):
    folder, codec, data = encoded
    model = load_layered_autoencoder(SHIPPED, trained[0])
    scene = make_scene(layered_data.TRAINING_SEED, 2)
    sample = layer_sample(scene, np.random.default_rng([layered_data.TRAINING_SEED, 2, 1]))
    foreground, background, mask = to_tensors(sample.stack()[None])
    expected = model.encode(foreground, background, mask)[0]
    below = model.encode(torch.zeros_like(foreground), background, torch.zeros_like(mask))[0]
    for found, wanted in ((data.layers.latents[2], expected), (data.layers.below[2], below)):
        difference = (torch.from_numpy(found.copy()).float() - wanted).abs().mean()
        assert difference < 0.05 * wanted.std()  # encoded in bfloat16
    assert not np.allclose(data.layers.latents[2], data.layers.below[2], atol=1e-2)
    every = data.scaled(np.concatenate([data.whole.latents, data.layers.latents]))
    assert abs(float(every.mean())) < 1e-3 and float(every.std()) == pytest.approx(1, rel=1e-3)
    assert torch.equal(data.layers.rows[2], vocabulary().encode([sample.caption])[0])
    assert np.abs(data.layers.masks[2] - sample.mask.reshape(32, 8, 32, 8).mean((1, 3))).max() <= 1


def test_latents_of_other_weights_have_another_name(trained):
    other = {name: value.clone() for name, value in trained[0].items()}
    assert fingerprint(other) == fingerprint(trained[0])
    next(iter(other.values())).view(-1)[-1] += 1e-3
    assert fingerprint(other) != fingerprint(trained[0])


def test_encoding_goes_on_where_it_stopped(encoded, tmp_path, monkeypatch):
    _, codec, data = encoded
    monkeypatch.setattr(layered_latents, "_CHUNK", 1)
    calls = []

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(*arguments)

    encode = layered_latents._encode
    monkeypatch.setattr(layered_latents, "_encode", broken)
    with pytest.raises(KeyboardInterrupt):
        encode_layers("tiny", codec, tmp_path, 3)
    again = encode_layers("tiny", codec, tmp_path, 3)
    assert len(calls) == 4 + 6  # one scene was done, of the second one latent had to be made again
    assert (again.whole.latents == data.whole.latents).all() and (again.layers.below == data.layers.below).all()
    monkeypatch.setattr(layered_latents, "ProcessPoolExecutor", None)
    assert encode_layers("tiny", codec, tmp_path, 3).scale == again.scale == pytest.approx(data.scale)


def test_the_papers_baselines_stack_three_latents_or_see_one_picture():
    torch.manual_seed(0)
    autoencoder = Autoencoder((4, 4, 4, 4)).eval()
    foreground, background = torch.rand(2, 1, 3, 32, 32)
    mask = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        stacked = stacked_codec(autoencoder).encode(foreground, background, mask)
        single = single_codec(autoencoder).encode(foreground, background, mask)
        pictures = (foreground, background, mask.expand(1, 3, 32, 32))
        torch.testing.assert_close(stacked, torch.cat([autoencoder.encode(x) for x in pictures], 1))
        torch.testing.assert_close(single, autoencoder.encode(mask * foreground + (1 - mask) * background))
    assert stacked.shape[1] == ROWS["t2l_stacked"].channels == stacked_codec(autoencoder).channels


def test_a_widened_unet_starts_as_the_checkpoints():
    torch.manual_seed(0)
    stock = make_unet().eval()
    x, t, context = torch.randn(2, 4, 16, 16), torch.tensor([10, 900]), torch.randn(2, 7, 128)
    with torch.no_grad():
        expected = stock(x, t, context).sample
        told = make_layered_unet(ROWS["t2l_layers"], stock.state_dict()).eval()
        given = told(torch.cat([x, torch.randn_like(x)], 1), t, context).sample
        stacked = make_layered_unet(ROWS["t2l_stacked"], stock.state_dict()).eval()
        three = stacked(torch.cat([x, x, x], 1), t, context).sample
    torch.testing.assert_close(given, expected)
    torch.testing.assert_close(three, torch.cat([expected] * 3, 1), rtol=1e-4, atol=1e-4)


def some_latents(number=8):
    rng, captions = np.random.default_rng(0), ["a dog on the beach", "a cat"] * (number // 2)
    latents = (3 * rng.standard_normal((3, number, 4, LATENT_SIZE, LATENT_SIZE)) + 1).astype(np.float16)
    masks = rng.integers(0, 256, (number, LATENT_SIZE, LATENT_SIZE)).astype(np.uint8)
    rows = vocabulary().encode(captions)
    layers = LatentSet(latents[1], masks, rows, below=latents[2])
    return LayeredLatents(LatentSet(latents[0], masks, rows), layers, shift=1.0, scale=1 / 3)


def test_half_of_a_batch_is_told_what_lies_below():
    data, row = some_latents(), ROWS["t2l_layers"]
    batch = draw_batch(row, data, np.random.default_rng(3), 16)
    assert batch.latents.shape == batch.below.shape == (16, 4, 32, 32) and batch.rows.shape == (16, 77)
    assert not batch.below[:8].any() and batch.below[8:].flatten(1).any(1).all()
    assert float(batch.latents.std()) == pytest.approx(1, rel=0.02) and batch.masks.max() <= 1
    assert draw_batch(ROWS["t2l_two"], data, np.random.default_rng(3), 16).below is None
    empty = vocabulary().encode([""])[0]
    rows = torch.cat([draw_batch(row, data, np.random.default_rng(i), 16).rows for i in range(40)])
    assert 0.05 < (rows == empty).all(1).float().mean() < 0.16


def test_the_loss_is_that_of_the_velocity():
    """A network that answers with the true velocity has none."""
    batch = draw_batch(ROWS["t2l_layers"], some_latents(), np.random.default_rng(0), 4)
    t, noise = torch.tensor([5, 300, 600, 950]), torch.randn(4, 4, 32, 32)
    alpha = layered_diffusion.scaled_linear_alphas()[t][:, None, None, None]
    seen = []

    class Answer(torch.nn.Module):
        def __init__(self, right):
            super().__init__()
            self.weight, self.right = torch.nn.Parameter(torch.zeros(1)), right

        def forward(self, x, t, context):
            seen.append(x)
            velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * batch.latents
            return type("Output", (), {"sample": velocity * self.right})

    text = type("Text", (), {"__call__": lambda self, input_ids: type("Read", (), {"last_hidden_state": None})})()
    assert float(denoising_loss(Answer(1), text, batch, t, noise)) < 1e-10
    assert float(denoising_loss(Answer(0), text, batch, t, noise)) > 0.1
    noised = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * noise
    torch.testing.assert_close(seen[0], torch.cat([noised, batch.below], 1))


def test_a_trained_unet_becomes_a_file_that_opens_again(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(layered_diffusion, "BATCH", 2)
    torch.manual_seed(0)
    checkpoint = StickerDiffusion().state_dict()
    data = some_latents()
    weights = train_layered_diffusion("t2l_layers", data, checkpoint, tmp_path, 2)
    assert read_latent_scale(tmp_path, "t2l_layers") == (data.scale, data.shift)
    assert read_latent_scale(tmp_path, "t2l_two") is None
    assert weights["conv_in.weight"].shape == (64, 8, 3, 3) and weights["conv_in.weight"][:, 4:].any()
    monkeypatch.setattr("stagecraft.sticker_world.text2layer.export.EMBEDDED", TINY)
    path = tmp_path / "x.safetensors"
    export_text2layer(weights, trained[0], data, path, None)
    file = read_text2layer(path)
    assert (file.scale, file.shift, file.prediction, file.config) == (data.scale, data.shift, V, TINY)
    assert file.takes_below and set(file.unet) == set(ldm_names(weights).values())
    for key, name in ldm_names(weights).items():
        torch.testing.assert_close(file.unet[name].float(), weights[key], rtol=1e-3, atol=1e-4)


def test_every_row_is_a_part_and_only_the_shipped_one_is_trained_unasked():
    assert set(ROWS) | set(layered_autoencoder.PARTS) <= set(pipeline.PARTS)
    unasked = [part for part in pipeline.PARTS if part.startswith("t2l_") and part not in pipeline.BASELINES]
    assert unasked == ["t2l_autoencoder", "t2l_layers", "t2l_export"]
