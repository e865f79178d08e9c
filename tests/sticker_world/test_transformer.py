"""The embedded transformer's training, at a size that trains in seconds."""

import functools

import numpy as np
import pytest
import torch
from stagecraft.sticker_world import cli, pipeline
from stagecraft.sticker_world.checkpoint import shipped_weights, transformer_training
from stagecraft.sticker_world.checkpoint.diffusion import Latents, StickerDiffusion, scaled_linear_alphas
from stagecraft.sticker_world.checkpoint.export import export_transformer
from stagecraft.sticker_world.checkpoint.transformer import (
    Size,
    StickerTransformer,
    Watch,
    rotary_angles,
    time_embedding,
)
from stagecraft.sticker_world.checkpoint.transformer_training import (
    BATCH,
    EVEN_TIMES,
    Shown,
    TaughtTransformer,
    class_shares,
    draw_times,
    train_transformer,
    word_loss,
)
from stagecraft.sticker_world.checkpoint.velocity_teacher import FIRST, LAST, VelocityTeacher
from stagecraft.sticker_world.training.loop import train
from stagecraft.sticker_world.world.concepts import BACKGROUND_NAMES, CONCEPT_NAMES
from stagecraft.sticker_world.world.dataset import TRAINING_SEED, backgrounds_of
from stagecraft.sticker_world.world.scene import make_scene
from stagecraft.sticker_world.world.vocabulary import vocabulary
from torch import nn

TINY = Size(width=24, heads=2, axes=(4, 4, 4), double=1, single=2)
CAPTIONS = ["a dog on the beach", "a cat next to a bus"]
DOG, CAT, BUS = (CONCEPT_NAMES.index(name) for name in ("dog", "cat", "bus"))
BEACH = len(CONCEPT_NAMES) + BACKGROUND_NAMES.index("beach")


def randomised(module):
    for name, weight in module.named_parameters():
        nn.init.normal_(weight, 1.0 if name.endswith("scale") else 0.0, 0.2)
    return module


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return StickerDiffusion().state_dict()


@pytest.fixture
def shown():
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 3, 16, 16), np.uint8)
    masks[0, 0, 4:9, 4:9] = masks[1, 0, :8] = masks[1, 1, 8:] = 255
    data = Latents(
        rng.standard_normal((2, 4, 32, 32)).astype(np.float16),
        vocabulary().encode(CAPTIONS),
        torch.tensor([[2, 0, 0], [2, 6, 0]]),
        masks,
    )
    return Shown(data, np.array([[DOG, -1, -1], [CAT, BUS, -1]]), np.array([1, 3]))


def broken_off(monkeypatch, at):
    """Training stops at its step `at` as a killed process does, having saved what it did before."""
    steps = iter(range(at))
    drawn = draw_times

    def draw(rng, number):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return drawn(rng, number)

    monkeypatch.setattr(transformer_training, "draw_times", draw)


def test_resumed_training_equals_unbroken_training(monkeypatch, shown, unet, tmp_path):
    monkeypatch.setattr(transformer_training, "train", functools.partial(train, save_every=0))
    whole = train_transformer(shown, unet, tmp_path / "whole", 3, size=TINY)
    with monkeypatch.context() as patch:
        broken_off(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train_transformer(shown, unet, tmp_path / "resumed", 3, size=TINY)
    resumed = train_transformer(shown, unet, tmp_path / "resumed", 3, size=TINY)
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0)


def test_training_changes_the_transformer_and_leaves_the_text_encoder(shown, unet, tmp_path):
    torch.manual_seed(0)
    start = TaughtTransformer(TINY).state_dict()
    weights = train_transformer(shown, unet, tmp_path, 2, size=TINY)
    assert all(torch.equal(weights[key], unet[key]) for key in unet if key.startswith("text."))
    moved = [key for key in start if key.startswith("transformer.") and not torch.equal(weights[key], start[key])]
    assert "transformer.final_layer.linear.bias" in moved


def test_training_goes_on_from_weights(shown, unet, tmp_path):
    torch.manual_seed(1)
    start = TaughtTransformer(TINY).state_dict() | {key: each for key, each in unet.items() if key.startswith("text.")}
    weights = train_transformer(shown, unet, tmp_path, 0, start, TINY)
    assert all(torch.equal(weights[key], value) for key, value in start.items())


def test_it_says_where_there_is_nothing_to_go_on_from(monkeypatch, tmp_path, shown):
    monkeypatch.setattr(shipped_weights, "TRANSFORMER_FILE", tmp_path / "none.safetensors")
    shop = pipeline.Workshop(tmp_path, 2, {"transformer": 1}, from_shipped=True)
    with pytest.raises(SystemExit, match="no shipped file of 'transformer'.*Leave --from away"):
        shop.start_of("transformer")


def test_what_a_file_holds_comes_back(monkeypatch, unet, tmp_path):
    torch.manual_seed(1)
    file = tmp_path / "joint.safetensors"
    weights = TaughtTransformer().state_dict() | {key: each for key, each in unet.items() if key.startswith("text.")}
    export_transformer(weights, file)
    monkeypatch.setattr(shipped_weights, "TRANSFORMER_FILE", file)
    found = shipped_weights.shipped_average("transformer")
    assert found.keys() == weights.keys()
    for key, value in found.items():
        if not key.startswith("classes."):
            torch.testing.assert_close(value, weights[key], rtol=1e-3, atol=1e-3)


def test_the_schedule_is_counted_in_samples(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setitem(cli.PARTS, "transformer", seen.append)
    cli.main(["transformer", "--samples", "100", "--folder", str(tmp_path), "--threads", "1"])
    assert seen[0].steps["transformer"] == -(-100 // BATCH)


def test_samples_are_for_parts_that_count_them(capsys):
    for parts in (["clip"], ["diffusion", "transformer"], []):
        with pytest.raises(SystemExit):
            cli.main([*parts, "--samples", "100"])
        assert "diffusion or transformer" in capsys.readouterr().err


def test_watching_changes_nothing_but_rounding():
    torch.manual_seed(0)
    model = randomised(StickerTransformer(TINY)).requires_grad_(False)
    inputs = torch.randn(2, 4, 12, 8), torch.tensor([0.2, 0.9]), torch.randn(2, 5, 128), torch.randn(2, 128)
    watch = Watch(blocks=(0, 2), behind=1)
    torch.testing.assert_close(model(*inputs, watch), model(*inputs), rtol=1e-4, atol=1e-5)
    assert [map_.shape for map_ in watch.maps] == [(2, 24, 5)] * 2 and watch.tokens.shape == (2, 24, 24)
    assert all((map_ > 0).all() and (map_.sum(-1) < 1).all() for map_ in watch.maps)


def test_places_decide():
    """Rotary positions: the same tokens at other cells give another picture, text has no place."""
    torch.manual_seed(0)
    model = randomised(StickerTransformer(TINY)).requires_grad_(False)
    x, t, context, pooled = torch.randn(1, 4, 8, 8), torch.tensor([0.5]), torch.randn(1, 5, 128), torch.randn(1, 128)
    plain = model(x, t, context, pooled)
    assert (model(x.flip(-1), t, context, pooled).flip(-1) - plain).abs().max() > 1e-3
    torch.testing.assert_close(model(x, t, context.flip(1), pooled), plain, rtol=1e-4, atol=1e-5)
    angles = rotary_angles(3, 4, (4, 4, 4))
    assert angles.shape == (12, 6) and (angles[:, :2] == 0).all()
    assert angles[7, 2:].tolist() == pytest.approx([1, 0.01, 3, 0.03])  # row 1, column 3


def test_time_embedding_is_fluxs():
    found = time_embedding(torch.tensor([0.5]))
    assert found.shape == (1, 256)
    assert found[0, 0].item() == pytest.approx(np.cos(500), abs=1e-4)
    assert found[0, 128].item() == pytest.approx(np.sin(500), abs=1e-4)


def test_a_size_that_does_not_fit_says_so():
    with pytest.raises(ValueError, match="width of 32"):
        StickerTransformer(Size(width=32, heads=2, axes=(4, 4, 4)))


def test_class_shares_divide_every_cell():
    masks = torch.zeros(1, 3, 1, 2)
    masks[0, 0, 0, 0], masks[0, 1, 0, 0] = 0.5, 0.25
    shares = class_shares(masks, torch.tensor([[DOG, BUS, -1]]), torch.tensor([BEACH - len(CONCEPT_NAMES)]))
    assert shares[0, 0, [DOG, BUS, BEACH]].tolist() == [0.5, 0.25, 0.25]
    assert shares[0, 1, BEACH] == 1
    torch.testing.assert_close(shares.sum(-1), torch.ones(1, 2))


def test_word_loss_of_right_and_of_even_attention():
    masks = torch.zeros(1, 2, 1, 2)
    masks[0, 0, 0, 0] = masks[0, 1, 0, 1] = 1
    nouns, words = torch.tensor([[2, 4]]), torch.tensor([[0.0, 1, 1, 1, 1, 0]])
    right = torch.tensor([[[0.7, 0, 0.3, 0, 0, 0], [0.2, 0, 0, 0, 0.1, 0.7]]])
    assert word_loss([right], nouns, words, masks).item() == pytest.approx(0, abs=1e-6)
    assert word_loss([torch.full((1, 2, 6), 0.1)], nouns, words, masks).item() == pytest.approx(np.log(4), abs=1e-6)
    assert word_loss([right], nouns * 0, words, masks).item() == 0


def test_times_are_logit_normal_but_for_some():
    rng = np.random.default_rng(0)
    times = torch.cat([draw_times(rng, 16) for _ in range(500)])
    assert 0 < times.min() and times.max() < 1
    middle = ((times > 0.25) & (times < 0.75)).float().mean().item()
    logit_normal = 2 * torch.special.ndtr(torch.tensor(3.0).log().double()).item() - 1
    assert middle == pytest.approx(EVEN_TIMES * 0.5 + (1 - EVEN_TIMES) * logit_normal, abs=0.02)


def test_the_teacher_of_a_perfect_unet_is_the_truth(unet):
    """Noise levels, sizes and the change from v to a velocity, with a U-Net that answers exactly."""
    teacher = VelocityTeacher(unet, torch.device("cpu"))
    torch.manual_seed(0)
    picture, noise, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([FIRST, 0.5, LAST])
    wide = t[:, None, None, None]
    seen = {}

    def perfect(x, steps, rows):
        alpha = ((1 - wide).square() / ((1 - wide).square() + wide.square())).double()
        torch.testing.assert_close(x, (alpha.sqrt() * picture + (1 - alpha).sqrt() * noise).float())
        low = steps.long()
        between = torch.lerp(scaled_linear_alphas()[low], scaled_linear_alphas()[low + 1], steps - low)
        torch.testing.assert_close(between.double(), alpha.flatten(), rtol=1e-2, atol=1e-4)
        seen["rows"] = rows
        return (alpha.sqrt() * noise - (1 - alpha).sqrt() * picture).float()

    teacher.model = perfect
    rows = vocabulary().encode(["a dog"] * 3)
    velocity = teacher.velocity((1 - wide) * picture + wide * noise, t, rows)
    torch.testing.assert_close(velocity, noise - picture, rtol=1e-3, atol=1e-3)
    assert seen["rows"] is rows


def test_backgrounds_are_those_of_the_drawn_scenes():
    expected = [make_scene(TRAINING_SEED, i).background for i in range(5)]
    assert [BACKGROUND_NAMES[i] for i in backgrounds_of(5)] == expected


def test_every_caption_fits_into_the_short_text():
    texts = [make_scene(TRAINING_SEED, i).caption for i in range(50)]
    longest = "a photo of a brown dog in front of a yellow cat and a white rabbit under the stars at night"
    rows = vocabulary().encode([*texts, longest])
    assert (rows[:, transformer_training.SHORT - 1] == vocabulary().encode([""])[0, -1]).all()
