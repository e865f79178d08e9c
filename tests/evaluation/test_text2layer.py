"""The numbers of `evaluate text2layer`: against closed forms, perfect layers, and networks with random weights."""

import json
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import save_file
from stagecraft.commands.messages import SetupProblem
from stagecraft.core.text2layer.autoencoder import LayeredAutoencoder
from stagecraft.core.text2layer.files import V, write_text2layer
from stagecraft.evaluation.graphs.builder import PICTURES
from stagecraft.evaluation.judging.yardsticks import Yardsticks
from stagecraft.evaluation.sets import sets
from stagecraft.evaluation.text2layer import evaluate as text2layer
from stagecraft.evaluation.text2layer import layer_by_layer as text2layer_layers
from stagecraft.evaluation.text2layer import rows as text2layer_rows
from stagecraft.evaluation.text2layer import scores as text2layer_scores
from stagecraft.evaluation.text2layer import sets as text2layer_sets
from stagecraft.evaluation.text2layer.scores import Likeness
from stagecraft.sticker_world.checkpoint.export import ldm_names
from stagecraft.sticker_world.checkpoint.shipped_weights import load_encoder
from stagecraft.sticker_world.shipped import CHECKPOINT_FILE
from stagecraft.sticker_world.text2layer.autoencoder import PARTS
from stagecraft.sticker_world.text2layer.diffusion import ROWS, make_layered_unet
from stagecraft.sticker_world.training.loop import train
from stagecraft.sticker_world.world.concepts import CANVAS, is_held_out
from stagecraft.sticker_world.world.scene import make_scene

SCALE, SHIFT = 2.0, 0.5


@pytest.fixture(scope="module")
def yardsticks():
    return Yardsticks.load()


def test_frechet_distance_of_normals_in_closed_form():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 3)) * [1, 2, 3]
    y = generator.normal(size=(300, 3)) @ generator.normal(size=(3, 3)) + 1
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second).real
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(first + second - 2 * root)
    assert text2layer_scores.frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert text2layer_scores.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    moved = text2layer_scores.frechet_distance(torch.from_numpy(x), torch.from_numpy(x + [3, 0, 4]))
    assert moved == pytest.approx(25, rel=1e-6)
    assert text2layer_scores.frechet_distance(x[:1], y) is None


def test_psnr_in_closed_form():
    black, grey = np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.1)
    assert text2layer_scores.psnr(grey, black) == pytest.approx(20)
    weight = np.zeros((4, 4))
    assert text2layer_scores.psnr(grey, black, weight) is None
    weight[0] = 1
    half = np.where(weight[..., None] > 0, 0.01, grey)
    assert text2layer_scores.psnr(half, black, weight) == pytest.approx(40)
    assert text2layer_scores.psnr(black, black) == pytest.approx(120)


def test_scenes_are_layers_of_what_they_show():
    for tuning in (False, True):
        scenes = text2layer_sets.layered_scenes(3, tuning=tuning)
        seed = text2layer_sets.SCENES_TUNING_SEED if tuning else text2layer_sets.SCENES_SEED
        for index, layers in enumerate(scenes):
            scene = make_scene(seed, index, held_out=True, counts=sets.exactly(1 + index))
            assert np.abs(layers.composite() - scene.image / 255).max() < 3 / 255
            perfect = text2layer_scores.likeness(layers, layers)
            assert perfect == Likeness(120.0, 120.0, 120.0, 1.0)


def test_prompts_are_held_out_and_their_noise_is_used_once():
    assert [len(prompt.concepts) for prompt in text2layer_sets.table_prompts(5, tuning=False)] == [1, 1, 2, 2, 3]
    assert len(text2layer_sets.table_prompts(text2layer.TABLE_WANTED, tuning=False)) == 1000
    found = text2layer_sets.table_prompts(240, tuning=False) + text2layer_sets.table_prompts(30, tuning=True)
    assert len(found) == 270
    assert all(is_held_out(prompt.concepts, prompt.background) for prompt in found)
    assert len({prompt.seed for prompt in found}) == len(found)
    committed = {prompt.seed for things in text2layer_sets.COUNTS for prompt in sets.load_presence(things)}
    assert {prompt.seed for prompt in found[:240]} <= committed
    assert not {prompt.seed for prompt in found[240:]} & committed


def test_perfect_layers_are_found_and_exchanged_ones_are_not(yardsticks):
    own, wrong = [], []
    for index in range(6):
        scene = make_scene(text2layer_sets.SCENES_TUNING_SEED, 100 + index, held_out=True, counts=sets.exactly(3))
        layers = [text2layer_layers.over_grey(thing.layer) for thing in scene.objects]
        labels = [yardsticks.labels(layer) for layer in layers]
        classes = [yardsticks.segmenter.class_of(thing.concept) for thing in scene.objects]
        areas = [sets.expected_areas(3)[thing.concept] for thing in scene.objects]
        own += text2layer_scores.own_layers(labels, classes, areas)
        wrong += text2layer_scores.own_layers(labels[1:] + labels[:1], classes, areas)
    assert np.mean(own) > 0.9 and not any(wrong)


def test_saved_layers_are_the_picture():
    scene = make_scene(text2layer_sets.SCENES_TUNING_SEED, 0, held_out=True, counts=sets.exactly(3))
    names = [thing.concept for thing in scene.objects]
    image = text2layer_layers.layered_image(scene.backdrop, [thing.layer for thing in scene.objects], names)
    assert [layer.name for layer in image.layers] == names
    shown = np.round(255 * image.composite()[0].numpy()).astype(np.uint8)
    assert text2layer_layers.largest_difference(shown, scene.image) <= 3 / 255
    for suffix in text2layer_layers.SUFFIXES:
        assert text2layer_layers.saved_difference(image, suffix) <= 1 / 255 + 1e-6


def test_the_graph_asks_for_what_is_judged():
    prompt = sets.load_presence(3)[0]
    graph = text2layer_layers.graph(prompt)
    kinds = {node["class_type"]: node["inputs"] for node in graph.values()}
    assert kinds["StageLayerByLayer"]["prompt"] == prompt.prompt and kinds["StageLayerByLayer"]["seed"] == prompt.seed
    shown = ("COLOURS", "ALPHAS", "BACKGROUND", "AGAIN")
    assert {PICTURES, *(getattr(text2layer_layers, name) for name in shown)} <= graph.keys()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training folder and a shipped file with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("cache")
    weights = folder / "training" / "weights"
    weights.mkdir(parents=True)
    for name, config in PARTS.items():
        save_file(LayeredAutoencoder(config).state_dict(), weights / f"{name}.safetensors")
    unet = make_layered_unet(ROWS["t2l_stacked"])
    save_file(unet.state_dict(), weights / "t2l_stacked.safetensors")
    (weights / "t2l_stacked.latents.json").write_text(json.dumps({"scale": SCALE, "shift": SHIFT}))
    shipped = make_layered_unet(ROWS["t2l_layers"])
    names = ldm_names(shipped.state_dict())
    autoencoder = LayeredAutoencoder(PARTS["t2l_autoencoder"])
    write_text2layer(
        folder / "file.safetensors",
        {names[key]: value for key, value in shipped.state_dict().items()},
        autoencoder.state_dict(),
        autoencoder.config,
        scale=SCALE,
        shift=SHIFT,
        prediction=V,
        bits=6,
    )
    return folder


def test_rows_are_opened_and_paint(trained, monkeypatch):
    monkeypatch.setenv("STAGECRAFT_CACHE_FOLDER", str(trained))
    monkeypatch.setattr(text2layer_rows, "TEXT2LAYER_FILE", trained / "file.safetensors")
    stacked = text2layer_rows.open_painter("t2l_stacked")
    assert (stacked.scale, stacked.shift) == (SCALE, SHIFT)
    shipped = text2layer_rows.open_painter("t2l_layers")
    assert (shipped.scale, shipped.shift) == (SCALE, SHIFT) and shipped.takes_below
    one, two = shipped.paint(["a dog", "a cat"], [1, 2], steps=1)
    assert one.picture.shape == (CANVAS, CANVAS, 3) and one.layers.mask.shape == (CANVAS, CANVAS)
    assert np.abs(one.layers.composite() - one.picture / 255).max() <= 0.5 / 255 + 1e-6
    (again,) = shipped.paint(["a cat"], [2], steps=1)
    assert np.abs(again.picture.astype(int) - two.picture).max() <= 1
    (other,) = stacked.paint(["a dog"], [1], steps=1)
    assert other.layers.mask.shape == (CANVAS, CANVAS)
    for name in ("t2l_two", "t2l_single"):
        assert text2layer_rows.open_painter(name) is None and text2layer_rows.missing_parts(name) == [name]
    assert text2layer_rows.missing_parts("t2l_stacked") == []


def test_the_checkpoint_paints_a_picture_of_its_own():
    """Its latents are those of the stock autoencoder at unit scale, so that a real picture comes back."""
    checkpoint = text2layer_rows.open_painter(text2layer_rows.CHECKPOINT)
    scene = text2layer_sets.layered_scenes(1, tuning=True)[0].composite()
    picture = torch.from_numpy(scene).movedim(-1, 0)[None]
    latent = load_encoder(CHECKPOINT_FILE)(picture)
    (found,) = checkpoint.codec.decode(latent / checkpoint.scale + checkpoint.shift)
    assert text2layer_scores.psnr(found.picture / 255, scene) > 25 and found.layers is None


def test_what_is_not_trained_is_named_with_what_it_needs(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("STAGECRAFT_CACHE_FOLDER", str(tmp_path))
    assert text2layer_rows.open_codec("t2l_autoencoder_plain") is None
    text2layer._left_out("CaT2I-AE-SD (no-sup)", "t2l_two_plain")
    assert "stage.py train t2l_autoencoder_plain t2l_two_plain" in caplog.text
    weights = tmp_path / "training" / "weights"

    def loss_of_step(step):
        if step == stop:
            raise KeyboardInterrupt
        return module(torch.ones(1, 2)).sum(), {}

    module, options = torch.nn.Linear(2, 1), {"folder": weights, "steps": 3, "peak_lr": 1e-3, "save_every": 0.0}
    stop = 2
    with pytest.raises(KeyboardInterrupt):
        train("t2l_autoencoder_plain", module, loss_of_step, **options)
    assert text2layer_rows.missing_parts("t2l_two_plain") == ["t2l_autoencoder_plain", "t2l_two_plain"]
    stop = 3
    train("t2l_autoencoder_plain", module, loss_of_step, **options)
    assert text2layer_rows.missing_parts("t2l_two_plain") == ["t2l_two_plain"]
    monkeypatch.setattr(text2layer, "TEXT2LAYER_FILE", tmp_path / "none.safetensors")
    with pytest.raises(SetupProblem, match="stage.py train text2layer"):
        text2layer.evaluate(text2layer.Run(None, text2layer.Asked(list(text2layer.PARTS), 1), None, None))


def test_codecs_give_back_layers(trained, monkeypatch):
    monkeypatch.setenv("STAGECRAFT_CACHE_FOLDER", str(trained))
    (true,) = scenes = text2layer_sets.layered_scenes(1, tuning=True)
    (found,) = text2layer_rows.open_codec(text2layer_rows.STACKED).through(scenes)
    near = text2layer_scores.likeness(found.layers, true)
    assert near.background > 25 and near.composite > 22 and near.mask > 0.9
    (plain,) = text2layer_rows.open_codec("t2l_autoencoder_plain").through(scenes)
    assert math.isfinite(text2layer_scores.likeness(plain.layers, true).composite)
    (picture,) = text2layer_rows.open_codec(text2layer_rows.SINGLE).through(scenes)
    assert picture.layers is None
    assert text2layer_scores.psnr(picture.picture / 255, true.composite()) > 25


def test_only_a_whole_run_replaces_the_committed_results():
    rows = [{"set": text2layer.TABLE, "method": name} for name in text2layer_rows.NAMES.values()]
    rows += [{"set": text2layer.AUTOENCODER, "method": name} for name in text2layer_rows.CODEC_NAMES.values()]
    rows += [{"set": text2layer.LAYERS, "method": text2layer_layers.METHOD}]
    assert text2layer.is_whole({"rows": rows})
    assert not any(text2layer.is_whole({"rows": rows[:i] + rows[i + 1 :]}) for i in range(len(rows)))
    assert not text2layer.is_whole(None)
