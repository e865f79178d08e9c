"""The training parts that can be checked without training for long."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from stagecraft.core.clip.vocabulary import END, END_ROW, START, UNKNOWN
from stagecraft.sticker_world import cli, pipeline
from stagecraft.sticker_world.checkpoint.autoencoder import Autoencoder, narrow, widen
from stagecraft.sticker_world.checkpoint.diffusion import (
    Latents,
    MapRecorder,
    StickerDiffusion,
    attention_loss,
    noun_positions,
    scaled_linear_alphas,
    train_diffusion,
)
from stagecraft.sticker_world.checkpoint.probe import pictures
from stagecraft.sticker_world.checkpoint.shipped_weights import load_encoder
from stagecraft.sticker_world.readers.clip import make_clip
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.training.fast_norm import use_fast_norms
from stagecraft.sticker_world.training.loop import learning_rate, train
from stagecraft.sticker_world.world.dataset import Scenes
from stagecraft.sticker_world.world.scene import make_scene
from stagecraft.sticker_world.world.vocabulary import caption_words, vocabulary
from torch import nn


def test_vocabulary_knows_every_caption_word():
    assert set(caption_words()) == set(vocabulary().words)
    for i in range(100):
        scene = make_scene(3, i)
        assert UNKNOWN not in [vocabulary().token_ids[row] for row in vocabulary().encode([scene.caption])[0]]


def test_encoding_pads_with_the_end_and_marks_strangers():
    ids = [vocabulary().token_ids[row] for row in vocabulary().encode(["a zebra"])[0].tolist()]
    assert ids[:4] == [START, vocabulary().words["a"], UNKNOWN, END]
    assert set(ids[3:]) == {END} and len(ids) == 77
    long = vocabulary().encode(["dog " * 200])[0]
    assert vocabulary().token_ids[long[-1]] == END


def test_clip_pools_a_text_at_its_end():
    """Every word counts for the embedding, wherever it stands; transformers' own rule for old files would miss some."""
    torch.manual_seed(0)
    clip = make_clip().eval()
    texts = ["a dog and a cat", "a bus and a cat", "a dog and a bus", "a dog in a cat", "a dog and a cat at night"]
    with torch.no_grad():
        vectors = clip.embed_texts(texts)
        alone = torch.cat([clip.embed_texts([text]) for text in texts])
        rows = vocabulary().encode(texts)
        hidden = clip.model.text_model(input_ids=rows.masked_fill(rows == END_ROW, len(vocabulary().token_ids)))
    torch.testing.assert_close(vectors, alone)
    assert ((vectors - vectors[0]).norm(dim=1)[1:] > 1e-3).all()
    ends = [1 + len(vocabulary().split(text)) for text in texts]
    torch.testing.assert_close(hidden.pooler_output, hidden.last_hidden_state[range(len(texts)), ends])


def test_widened_autoencoder_is_the_same_function():
    torch.manual_seed(0)
    narrow, wide = Autoencoder((8, 16, 24, 32)).eval(), Autoencoder((64, 64, 64, 64)).eval()
    for parameter in narrow.parameters():
        nn.init.normal_(parameter, 0, 0.1)
    wide.load_state_dict(widen(narrow.state_dict()))
    image = torch.rand(1, 3, 32, 40)
    with torch.no_grad():
        latent = torch.randn(1, 4, 4, 5)
        for ours, stock in ((narrow.encode(image), wide.encode(image)), (narrow.decode(latent), wide.decode(latent))):
            torch.testing.assert_close(stock, ours, rtol=0, atol=1e-5 * float(ours.abs().max()))


def test_narrowing_takes_widening_back():
    weights = Autoencoder().state_dict()
    for key, value in narrow(widen(weights)).items():
        torch.testing.assert_close(value, weights[key], rtol=0, atol=0)


@pytest.mark.parametrize(("part", "module"), [("autoencoder", Autoencoder), ("diffusion", StickerDiffusion)])
def test_later_models_can_be_trained_from_the_shipped_checkpoint(tmp_path, part, module, capsys):
    shop = pipeline.Workshop(tmp_path, 1, {})
    weights = shop.average(part)
    module().load_state_dict(weights)  # every weight is there, at its own shape
    assert "shipped" in capsys.readouterr().out
    shop.weights.mkdir()
    own = {key: value.contiguous() + 1 for key, value in weights.items() if value.is_floating_point()}
    save_file(own, shop.weights / f"{part}.safetensors")
    found = shop.average(part)
    assert all(torch.equal(found[key], own[key]) for key in own)
    with pytest.raises(SystemExit, match="stage.py train cnc_local"):
        shop.average("cnc_local")


def _train_small(folder, stop_at=None):
    """Train a small module; with `stop_at` it breaks off there, as a killed process does."""
    torch.manual_seed(1 if stop_at is None else 2)  # a resumed run must take everything from the file
    module = nn.Linear(3, 2)

    def loss_of_step(step):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.from_numpy(np.random.default_rng(step).standard_normal((8, 3)).astype(np.float32))
        loss = (module(x) - x[:, :2]).square().mean()
        return loss, {"loss": loss.item()}

    return train("part", module, loss_of_step, folder=folder, steps=40, peak_lr=0.1, save_every=0)


def test_resumed_training_equals_unbroken_training(tmp_path):
    whole = _train_small(tmp_path / "whole", stop_at=99)
    with pytest.raises(KeyboardInterrupt):
        _train_small(tmp_path / "resumed", stop_at=17)
    resumed = _train_small(tmp_path / "resumed")
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0)


def test_learning_rate_rises_then_falls():
    rates = [learning_rate(step, 1000, 1.0) for step in range(1001)]
    assert rates[0] < 0.01 and max(rates) > 0.9 and rates[-1] == pytest.approx(0.02)
    assert all(a >= b for a, b in zip(rates[300:], rates[301:], strict=False))


def test_fast_norms_give_the_same_numbers_and_gradients():
    torch.manual_seed(0)
    slow = nn.Sequential(nn.Conv2d(4, 32, 3), nn.GroupNorm(8, 32)).to(memory_format=torch.channels_last)
    fast = nn.Sequential(nn.Conv2d(4, 32, 3), nn.GroupNorm(8, 32)).to(memory_format=torch.channels_last)
    fast.load_state_dict(slow.state_dict())
    use_fast_norms(fast)
    x = torch.randn(2, 4, 9, 7).contiguous(memory_format=torch.channels_last)
    for net in (slow, fast):
        with torch.autocast("cpu", torch.bfloat16):
            net(x).float().square().mul(torch.linspace(0, 1, 5)).sum().backward()
    for a, b in zip(slow.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0.02, atol=0.02 * float(b.grad.abs().max()))


def test_attention_loss_is_zero_inside_and_one_outside():
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, :2], masks[0, 1, 2:] = 1, 1
    inside = torch.zeros(1, 16, 5)
    inside[0, :8, 2] = 0.3  # token 2 belongs to object 0
    nouns = torch.tensor([[2, 0]])  # object 1 has no noun and must not count
    assert attention_loss([inside], nouns, masks).item() == pytest.approx(0)
    outside = inside.flip(1)
    assert attention_loss([outside], nouns, masks).item() == pytest.approx(1)
    assert attention_loss([inside, outside], nouns, masks).item() == pytest.approx(0.5)
    even = torch.full((1, 16, 5), 0.2)
    assert attention_loss([even], nouns, masks).item() == pytest.approx(0.25)


def test_noun_positions_find_the_words():
    dog, bus = 0, 14
    assert noun_positions("a bus in front of a brown dog", np.array([dog, bus, -1])) == [8, 2, 0]


def test_recorder_gives_what_plain_attention_gives():
    torch.manual_seed(0)
    model = StickerDiffusion().eval()
    x, t, rows = torch.randn(2, 4, 32, 32), torch.tensor([5, 700]), vocabulary().encode(["a dog", "a cat at night"])
    with torch.no_grad():
        plain = model(x, t, rows)
        recorder = MapRecorder(16)
        model.unet.set_attn_processor(recorder)
        torch.testing.assert_close(model(x, t, rows), plain, rtol=1e-4, atol=1e-5)
    assert [map_.shape for map_ in recorder.maps] == [(2, 256, 77)] * 3
    for map_ in recorder.maps:
        torch.testing.assert_close(map_.sum(-1), torch.ones(2, 256))


def test_noise_schedule_is_sd1():
    alphas = scaled_linear_alphas()
    sigma = ((1 - alphas) / alphas).sqrt()
    assert sigma[-1].item() == pytest.approx(14.6146, abs=1e-3)
    assert sigma[0].item() == pytest.approx(0.0292, abs=1e-3)


def test_the_denoiser_can_be_trained_on(tmp_path):
    """Its first average is the start itself, its learning rate lower than from nothing."""
    torch.manual_seed(1)
    start = StickerDiffusion().state_dict()
    data = Latents(np.zeros((1, 4, 32, 32), np.float16), torch.zeros(1, 77, dtype=torch.long), None, None)
    weights = train_diffusion(data, tmp_path, 0, start)
    assert all(torch.equal(weights[key], value) for key, value in start.items())


def test_latents_keep_the_scale_of_the_shipped_checkpoint(tmp_path):
    """What is trained from the shipped autoencoder must fit what is shipped beside it."""
    images = np.stack([make_scene(5, i).image for i in range(2)])
    scenes = Scenes(images, None, None, None, ["a", "b"])
    shop = pipeline.Workshop(tmp_path, 2, {})
    object.__setattr__(shop, "open", lambda: scenes)
    latents, _ = shop.latents()
    expected = load_encoder(CHECKPOINT_FILE)(pictures([make_scene(5, i) for i in range(2)]))
    torch.testing.assert_close(torch.from_numpy(latents).float(), expected, rtol=0, atol=0.1)  # encoded in bfloat16


def test_only_the_denoiser_goes_on_from_shipped_weights(capsys):
    with pytest.raises(SystemExit):
        cli.main(["clip", "--from", "shipped"])
    assert "diffusion" in capsys.readouterr().err
