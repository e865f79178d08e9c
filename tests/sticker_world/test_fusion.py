"""Triplets and the training of CnC's fusers, without training for long."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from stagecraft.core.compose_and_conquer.depth_pair import GROUND
from stagecraft.core.compose_and_conquer.files import read_fusers
from stagecraft.sticker_world import pipeline
from stagecraft.sticker_world.checkpoint.diffusion import LATENT_SIZE, StickerDiffusion
from stagecraft.sticker_world.compose_and_conquer import train
from stagecraft.sticker_world.compose_and_conquer.frozen_denoiser import FrozenDenoiser
from stagecraft.sticker_world.compose_and_conquer.train import (
    STAGES,
    Fusers,
    export_fusers,
    make_fusers,
    noise_triplets,
    predict,
    train_fusers,
)
from stagecraft.sticker_world.compose_and_conquer.triplets import (
    LEAST_HIDDEN,
    OVERLAPPING_COUNTS,
    OVERLAPPING_SEED,
    Triplets,
    _draw_chunk,
    without_nearest,
)
from stagecraft.sticker_world.readers.clip import WIDTH
from stagecraft.sticker_world.world.concepts import CANVAS
from stagecraft.sticker_world.world.dataset import MOST_OBJECTS, TRAINING_SEED
from stagecraft.sticker_world.world.scene import make_scene
from stagecraft.sticker_world.world.vocabulary import vocabulary

ORDINARY, OVERLAPPING = 8, 8


@pytest.fixture(scope="module")
def triplets():
    """Real triplets with made-up latents and embeddings."""
    parts = [
        _draw_chunk(seed, 0, number) for seed, number in ((TRAINING_SEED, ORDINARY), (OVERLAPPING_SEED, OVERLAPPING))
    ]
    silhouettes, disparities, covered = (np.concatenate([part[i] for part in parts]) for i in range(3))
    rng, number = np.random.default_rng(0), ORDINARY + OVERLAPPING
    return Triplets(
        latents=rng.standard_normal((number, 4, LATENT_SIZE, LATENT_SIZE)).astype(np.float16),
        rows=vocabulary().encode([caption for part in parts for caption in part[-1]]),
        silhouettes=silhouettes,
        disparities=disparities,
        covered=covered,
        embeddings=rng.standard_normal((number, 1 + MOST_OBJECTS, WIDTH)).astype(np.float16),
        ordinary=ORDINARY,
    )


@pytest.fixture(scope="module")
def weights():
    """A fresh denoiser whose output layer is not zero."""
    torch.manual_seed(0)
    return StickerDiffusion().state_dict()


def overlapping_scene(index):
    return make_scene(OVERLAPPING_SEED, index, counts=OVERLAPPING_COUNTS, least_hidden=LEAST_HIDDEN)


def test_overlapping_scenes_hide_enough_and_never_too_much():
    for index in range(6):
        objects = overlapping_scene(index).objects
        hidden = [1 - thing.visible.sum() / thing.mask.sum() for thing in objects]
        assert LEAST_HIDDEN - 0.01 <= max(hidden) <= 0.51
    with pytest.raises(ValueError, match="two or more"):
        make_scene(1, 0, counts=(0.0, 1.0), least_hidden=0.1)


def test_triplets_are_the_scenes_own(triplets):
    index = next(i for i in range(OVERLAPPING) if np.count_nonzero(triplets.disparities[ORDINARY + i]) == 2)
    scene = overlapping_scene(index)
    far, near = scene.objects
    batch = triplets.take([ORDINARY + index] * 2, [1, 2], np.array([True, False]))
    far_mask, near_mask = (torch.from_numpy(thing.mask >= 0.5).float() for thing in (far, near))
    assert torch.equal(batch.foreground[0, 0], near_mask) and torch.equal(batch.mask[0, 0], near_mask)
    assert (batch.background[0, 0][far_mask > 0] == 1).all()  # also where the foreground hides it
    assert batch.background[0, 0, -1][far_mask[-1] == 0].max() == pytest.approx(GROUND / far.disparity)
    assert torch.equal(batch.covered[0, 0], far_mask * near_mask) and batch.covered[0].any()
    lowest, highest = 0.0, near.disparity
    whole = torch.from_numpy(scene.disparity())
    torch.testing.assert_close(batch.whole[0, 0], (whole - lowest) / (highest - lowest), atol=1e-5, rtol=0)
    # Both in front: two planes, and of the background only the ground is left.
    assert batch.foreground[1].unique().tolist() == pytest.approx([0, far.disparity / near.disparity, 1])
    torch.testing.assert_close(batch.background[1, 0, :, 0], torch.linspace(0, 1, CANVAS))


def test_a_scene_without_its_nearest_objects_is_the_picture_behind_them():
    scene = overlapping_scene(0)
    pictures = without_nearest(scene)
    assert len(pictures) == 1 + len(scene.objects)
    assert np.array_equal(pictures[0], scene.image) and np.array_equal(pictures[-1], scene.backdrop)
    for k in range(1, len(pictures)):
        changed = np.abs(pictures[k].astype(int) - pictures[k - 1]).max(-1) > 2
        assert changed.any() and not (changed & (scene.objects[-k].mask == 0)).any()


def test_draws_show_occlusions_more_often_than_not(triplets):
    batch = triplets.draw(np.random.default_rng(0), 100)
    share = (batch.covered.sum((1, 2, 3)) > 0).float().mean()
    assert 0.55 < share < 0.9
    assert (batch.mask.sum((1, 2, 3)) > 0).all()


def test_fresh_fusers_leave_the_denoiser_as_it_is_and_learn_within_three_steps(triplets, weights):
    stage, denoiser = STAGES["cnc_local"], FrozenDenoiser(weights)
    fusers = make_fusers(stage, denoiser, {})
    noised = noise_triplets(
        triplets.take([0, 9], [1, 1], np.ones(2)), np.random.default_rng(1), torch.Generator(), denoiser.device, stage
    )
    optimizer = torch.optim.AdamW(fusers.parameters(), lr=1e-3)
    autocast = partial(torch.autocast, "cpu", torch.bfloat16)  # it remembers weights, so every step has its own
    with autocast():
        alone = denoiser(noised.x, noised.t, denoiser.read(noised.batch.rows), None, None)
    for step in range(3):
        with autocast():
            output = predict(denoiser, fusers, noised)
        assert torch.equal(output, alone) == (step == 0)
        optimizer.zero_grad()
        (output.float() - noised.target).square().mean().backward()
        optimizer.step()
    extractor = fusers.local_adapter.feature_extractor
    for stream in (extractor.fg_extractor, extractor.bg_extractor):
        assert stream[0].weight.grad.abs().max() > 0
    assert all(p.grad is None for p in denoiser.model.parameters())


def test_conditions_are_dropped_each_by_itself_and_rarely(triplets, weights):
    device, stage = torch.device("cpu"), STAGES["cnc_local"]
    batch = triplets.take([ORDINARY] * 200, [1] * 200, np.ones(200))
    noised = noise_triplets(batch, np.random.default_rng(0), torch.Generator(), device, stage)
    seen = noised.batch
    gone = [(part == 0).flatten(1).all(1) for part in (seen.foreground, seen.background, seen.foreground_look)]
    gone.append((seen.rows == vocabulary().encode([""])).all(1))
    for each in gone:
        assert 0.03 < each.float().mean() < 0.18
    assert not torch.equal(gone[0], gone[1]) and 0.66 < (noised.t >= 500).float().mean() < 0.84
    # Without the foreground's depth no place may count more.
    assert (
        noised.weight[gone[0]].flatten(1).std(1).max()
        < 1e-6
        < noised.weight[~gone[0] & ~gone[1]].flatten(1).std(1).min()
    )
    single = noise_triplets(batch, np.random.default_rng(0), torch.Generator(), device, STAGES["cnc_single"]).batch
    assert (single.background == 0).all() and torch.equal(single.foreground[~gone[0]], batch.whole[~gone[0]])


def test_stages_resume_exactly_and_the_file_reads_back(triplets, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "BATCH", 2)
    unbroken = train_fusers("cnc_local", triplets, weights, tmp_path / "unbroken", 2)
    original = train.train

    def break_off(name, module, loss_of_step, **options):
        def loss(step):
            if step == 1:
                raise KeyboardInterrupt
            return loss_of_step(step)

        return original(name, module, loss, save_every=0.0, **options)

    monkeypatch.setattr(train, "train", break_off)
    with pytest.raises(KeyboardInterrupt):
        train_fusers("cnc_local", triplets, weights, tmp_path / "broken", 2)
    monkeypatch.setattr(train, "train", original)
    resumed = train_fusers("cnc_local", triplets, weights, tmp_path / "broken", 2)
    assert unbroken.keys() == resumed.keys() and all(torch.equal(unbroken[key], resumed[key]) for key in resumed)

    looks = train_fusers("cnc_global", triplets, weights, tmp_path, 1)
    both = train_fusers("cnc_joint", triplets, weights, tmp_path, 1, resumed | looks)
    export_fusers(both, tmp_path / "cnc.safetensors")
    read = read_fusers(tmp_path / "cnc.safetensors")
    assert read.config == train.LOCAL and read.tokens == train.LOOKS
    assert load_file(tmp_path / "cnc.safetensors").keys() == both.keys()


def test_export_takes_the_latest_stage_that_there_is_or_the_one_that_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "MODELS", tmp_path)
    monkeypatch.setattr(pipeline, "CNC_FILE", tmp_path / "cnc" / "cnc.safetensors")
    shop = pipeline.Workshop(tmp_path, 1, {})
    with pytest.raises(SystemExit, match="stage.py train cnc_joint"):
        pipeline.PARTS["cnc_export"](shop)
    shop.weights.mkdir()
    expected = {"cnc_global": (False, True), "cnc_local": (True, True), "cnc_joint": (True, True)}
    for number, (stage, there) in enumerate(expected.items(), 1):
        fusers = Fusers(depths=STAGES[stage].depths, looks=STAGES[stage].looks)
        weights = {name: torch.full_like(weight, number) for name, weight in fusers.state_dict().items()}
        save_file(weights, shop.weights / f"{stage}.safetensors")
        pipeline.PARTS["cnc_export"](shop)
        read = read_fusers(pipeline.CNC_FILE)
        assert (read.local is not None, read.global_ is not None) == there
        newest = read.local or read.global_
        assert all((weight - number).abs().max() < 0.01 for weight in newest.values())
    packed = pipeline.CNC_FILE.stat().st_size
    pipeline.PARTS["cnc_export"](replace(shop, fusers=("cnc_local",), bits=None))
    read = read_fusers(pipeline.CNC_FILE)
    assert read.global_ is None and (read.local["input_blocks.0.0.weight"] == 2).all()
    assert capsys.readouterr().out.splitlines()[-1].endswith("from cnc_local") and packed < 7.4e6
