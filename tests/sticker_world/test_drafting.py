"""What TCIG's small models are trained with: the code book, the labels of the specialists, and the shipped folders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import VQModel
from safetensors.torch import save_file
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.sticker_world import pipeline
from stagecraft.sticker_world.readers import segmenter as segmenters
from stagecraft.sticker_world.readers.export import export_segmenter
from stagecraft.sticker_world.readers.segmenter import (
    ANIMALS,
    CROP,
    GENERAL,
    PARTS,
    PLACES,
    make_segmenter,
    mix,
    places_of,
)
from stagecraft.sticker_world.tcig.vqgan import (
    CODES,
    TaughtVQGAN,
    export_vqgan,
    fill_code_book,
    make_vqgan,
    revive,
    train_vqgan,
    vqgan_psnr,
)
from stagecraft.sticker_world.world.concepts import BACKGROUND_NAMES, CONCEPT_NAMES
from stagecraft.sticker_world.world.dataset import Scenes
from stagecraft.sticker_world.world.scene import make_scene

LARGEST = {"vqgan": 4e6, "segmenters": 1.5e6}  # bytes of all files


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def scenes():
    drawn = [make_scene(3, i) for i in range(8)]
    return Scenes(
        images=np.stack([scene.image for scene in drawn]),
        labels=np.stack([scene.labels() for scene in drawn]),
        concepts=None,
        masks=None,
        captions=[scene.caption for scene in drawn],
    )


def test_code_book_finds_the_clusters():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    rows = (centres[:, None] + 0.1 * torch.randn(4, 50, 2, generator=torch.Generator().manual_seed(0))).reshape(-1, 2)
    codes = torch.zeros(4, 2)
    fill_code_book(codes, rows)
    nearest = torch.cdist(centres, codes)
    assert nearest.amin(1).max() < 0.1 and len(set(nearest.argmin(1).tolist())) == 4


def test_unused_codes_move_to_where_latents_are():
    codes, use = torch.zeros(4, 2), torch.tensor([100.0, 0.0, 100.0, 1.0])
    rows = torch.tensor([[0.0, 0.1], [5.0, 5.0], [9.0, 9.0]])
    revive(codes, use, rows)
    assert torch.equal(codes, torch.tensor([[0.0, 0.0], [9.0, 9.0], [0.0, 0.0], [5.0, 5.0]]))
    assert use.min() > 40
    kept = codes.clone()
    revive(codes, use, rows)
    assert torch.equal(codes, kept)  # nothing is dead any more


def test_training_quantises_after_it_has_settled_and_uses_the_code_book(scenes, tmp_path):
    weights = train_vqgan(scenes, tmp_path, 8)
    assert weights["use"].shape == (CODES,)
    book = weights["model.quantize.embedding.weight"]
    assert book.std() > 0.05  # k-means has filled it: at first its values are below a thousandth
    export_vqgan(weights, tmp_path / "out")
    folder = tmp_path / "out"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= LARGEST["vqgan"]
    assert json.loads((folder / "config.json").read_text())["_class_name"] == "VQModel"
    model = VQModel.from_pretrained(folder).float().eval()
    picture = random(1, 3, 64, 48)
    with torch.no_grad():
        shape = model.encode(picture * 2 - 1).latents.shape
    assert shape == (1, 8, 8, 6)
    whole = TaughtVQGAN()
    whole.load_state_dict(weights)
    assert vqgan_psnr(model, picture) == pytest.approx(vqgan_psnr(whole.model.eval(), picture), abs=0.1)


def test_psnr_is_that_of_the_model():
    model, images = make_vqgan().eval(), random(2, 3, 32, 32)
    with torch.no_grad():
        found = ((model(images * 2 - 1).sample + 1) / 2).clamp(0, 1)
    expected = -10 * torch.log10((found - images).square().mean((1, 2, 3)))
    assert vqgan_psnr(model, images) == pytest.approx(float(expected.mean()), abs=1e-3)


def test_specialists_share_the_world_out():
    animals, things = PARTS["segmenter_animals"], PARTS["segmenter_things"]
    assert set(animals.concepts) | set(things.concepts) == set(CONCEPT_NAMES)
    assert not set(animals.classes) & set(things.classes) - {"background"}
    assert things.classes[-len(PLACES) :] == tuple(PLACES.values())
    assert PARTS[GENERAL].classes == ("background", *CONCEPT_NAMES)


def test_labels_of_the_specialists_say_what_the_judges_say():
    labels = np.arange(1 + len(CONCEPT_NAMES), dtype=np.uint8).reshape(1, 5, 5)
    places = np.array([BACKGROUND_NAMES.index("snow")])
    names = ["snow", *CONCEPT_NAMES]
    for part, known in (
        ("segmenter_animals", set(ANIMALS)),
        ("segmenter_things", {"snow", *CONCEPT_NAMES} - set(ANIMALS)),
        (GENERAL, set(CONCEPT_NAMES)),
    ):
        seen = PARTS[part]
        own = seen.relabel(labels, places)
        expected = [name if name in known else "background" for name in names]
        assert [seen.classes[index] for index in own.ravel()] == expected


def test_places_are_read_from_captions():
    drawn = [make_scene(9, i) for i in range(300)]
    found = places_of([scene.caption for scene in drawn])
    told = found >= 0
    assert 0.7 < told.mean() < 1  # some captions leave the place open
    right = [
        BACKGROUND_NAMES[place] == scene.background for place, scene in zip(found, drawn, strict=True) if place >= 0
    ]
    assert all(right)


def test_mixed_pictures_keep_pixels_and_labels_together():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3, dtype=np.uint8), CROP * CROP).reshape(3, CROP, CROP)
    images = np.repeat(labels[..., None], 3, -1)
    mixed = 0
    for _ in range(8):
        pixels, own = mix(images, labels, rng)
        assert np.array_equal(pixels[..., 0], own)
        assert all(set(np.unique(own[i])) <= {i, (i - 1) % 3} for i in range(3))
        mixed += (own != labels).any()
    assert mixed >= 6 and np.array_equal(labels[1], np.ones((CROP, CROP)))


@pytest.mark.parametrize("part", ["segmenter_animals", "segmenter_things"])
def test_specialists_train_and_are_small_enough(scenes, tmp_path, part, monkeypatch):
    monkeypatch.setattr(segmenters, "BATCH", 2)
    weights = segmenters.train_segmenter(scenes, tmp_path, 2, part)
    export_segmenter(weights, tmp_path / "out", part)
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) < LARGEST["segmenters"] / 2
    segmenter = Segmenter.load(tmp_path / "out")
    assert segmenter.classes == PARTS[part].classes and segmenter.size == (256, 256)
    assert segmenter.knows("a red apple") == (part == "segmenter_things")
    assert segmenter.knows("a blue rabbit") == (part == "segmenter_animals")


def test_what_is_trained_is_exported_and_nothing_else(tmp_path, monkeypatch):
    folders = {part: tmp_path / "segmenters" / part for part in ("segmenter_animals", "segmenter_things")}
    monkeypatch.setattr(pipeline, "MODELS", tmp_path)
    monkeypatch.setattr(pipeline, "VQGAN_FOLDER", tmp_path / "vqgan")
    monkeypatch.setattr(pipeline, "SPECIALIST_FOLDERS", folders)
    shop = pipeline.Workshop(tmp_path / "training", 1, {})
    with pytest.raises(SystemExit, match="stage.py train vqgan"):
        pipeline.PARTS["tcig_export"](shop)
    shop.weights.mkdir(parents=True)
    animals = make_segmenter("segmenter_animals").state_dict()
    save_file(
        {name: each.contiguous() for name, each in animals.items()}, shop.weights / "segmenter_animals.safetensors"
    )
    pipeline.PARTS["tcig_export"](shop)
    assert Segmenter.load(folders["segmenter_animals"]).classes == PARTS["segmenter_animals"].classes
    assert not folders["segmenter_things"].exists() and not (tmp_path / "vqgan").exists()


def test_the_judges_form_has_not_changed():
    shipped = Segmenter.load(Path(__file__).parents[2] / "models" / "segmenters" / "sticker_world")
    assert make_segmenter().state_dict().keys() == shipped.network.state_dict().keys()
    for key, value in make_segmenter().state_dict().items():
        assert shipped.network.state_dict()[key].shape == value.shape
