"""Segmenter folders and phrases, on tiny real Segformers with random weights."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from stagecraft.core.segmentation.class_names import match_class
from stagecraft.core.segmentation.files import SegmenterError
from stagecraft.core.segmentation.segmenter import Segmenter
from transformers import SegformerConfig, SegformerForSemanticSegmentation

CLASSES = ("background", "dog", "apple", "traffic light", "light")


def write_segmenter(folder, classes=CLASSES):
    """Save a tiny random Segformer, in fp16 as the embedded one."""
    torch.manual_seed(0)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label=dict(enumerate(classes)),
        label2id={name: i for i, name in enumerate(classes)},
    )
    SegformerForSemanticSegmentation(config).half().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_segmenter(tmp_path_factory.mktemp("segmenter"))


def test_probabilities_are_those_of_the_network(folder):
    segmenter = Segmenter.load(folder)
    images = torch.rand(2, 256, 256, 3, generator=torch.Generator().manual_seed(0))
    found = segmenter.probabilities(images)
    network = SegformerForSemanticSegmentation.from_pretrained(folder).float().eval()
    with torch.no_grad():
        logits = network(images.movedim(-1, 1) * 2 - 1).logits
    assert logits.shape == (2, len(CLASSES), 64, 64)
    expected = torch.nn.functional.interpolate(logits, (256, 256), mode="bilinear").softmax(1)
    torch.testing.assert_close(found, expected)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(2, 256, 256))
    assert torch.equal(segmenter.labels(images), expected.argmax(1))


def test_loaded_for_use_only(folder):
    segmenter = Segmenter.load(folder)
    assert segmenter.classes == CLASSES
    assert not segmenter.network.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in segmenter.network.parameters())


def test_odd_sizes_and_batches(folder):
    segmenter = Segmenter.load(folder)
    images = torch.rand(18, 37, 61, 3, generator=torch.Generator().manual_seed(1))  # more than one pass
    together = segmenter.probabilities(images)
    assert together.shape == (18, len(CLASSES), 37, 61)
    for i in (0, 17):
        alone = segmenter.probabilities(images[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-4)
    with pytest.raises(SegmenterError, match="expected \\(batch, height, width, 3\\)"):
        segmenter.probabilities(images[0])


def test_gradients_reach_the_picture(folder):
    image = torch.rand(1, 64, 64, 3, requires_grad=True)
    Segmenter.load(folder).probabilities(image)[:, 1].mean().backward()
    assert image.grad.abs().sum() > 0


def test_preprocessing_of_the_folder_is_used(tmp_path):
    folder = write_segmenter(tmp_path / "other", ("wall", "sky"))
    plain = Segmenter.load(folder)
    settings = {"size": {"height": 64, "width": 96}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    segmenter = Segmenter.load(folder)
    assert (segmenter.size, segmenter.mean, segmenter.std) == ((64, 96), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    image = torch.rand(1, 64, 96, 3)
    normalised = (image - torch.tensor(segmenter.mean)) / torch.tensor(segmenter.std)
    with torch.no_grad():
        logits = plain.network(normalised.movedim(-1, 1)).logits
    expected = torch.nn.functional.interpolate(logits, (64, 96), mode="bilinear").softmax(1)
    torch.testing.assert_close(segmenter.probabilities(image), expected)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(SegmenterError, match="There is no segmenter folder"):
        Segmenter.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegmenterError, match="lacks config.json"):
        Segmenter.load(tmp_path / "empty")

    pickled = write_segmenter(tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(SegmenterError, match="pickled weights such as pytorch_model.bin are not opened"):
        Segmenter.load(pickled)

    nameless = write_segmenter(tmp_path / "nameless")
    config = json.loads((nameless / "config.json").read_text())
    del config["id2label"]
    (nameless / "config.json").write_text(json.dumps(config))
    with pytest.raises(SegmenterError, match="id2label"):
        Segmenter.load(nameless)

    truncated = write_segmenter(tmp_path / "truncated")
    weights = load_file(truncated / "model.safetensors")
    weights.pop("decode_head.classifier.weight")
    save_file(weights, truncated / "model.safetensors", {"format": "pt"})
    with pytest.raises(SegmenterError, match="decode_head.classifier.weight"):
        Segmenter.load(truncated)

    garbled = write_segmenter(tmp_path / "garbled")
    (garbled / "config.json").write_text("{")
    with pytest.raises(SegmenterError, match="cannot be read as JSON"):
        Segmenter.load(garbled)

    cut_off = write_segmenter(tmp_path / "cut_off")
    content = (cut_off / "model.safetensors").read_bytes()
    (cut_off / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(SegmenterError, match="cannot be opened"):
        Segmenter.load(cut_off)


@pytest.mark.parametrize(
    ("phrase", "name"),
    [
        ("a red apple", "apple"),
        ("Apples!", "apple"),
        ("two dogs", "dog"),
        ("an apple beside a dog", "dog"),
        ("a dog made of metal", "dog"),
        ("a traffic light", "traffic light"),
        ("the traffic lights", "traffic light"),
        ("a red light", "light"),
    ],
)
def test_phrases_name_classes(phrase, name):
    assert CLASSES[match_class(phrase, CLASSES)] == name


def test_other_label_names():
    classes = ("wall", "building;edifice", "door, double door", "bus", "potted_plant")
    assert match_class("an old edifice", classes) == 1
    assert match_class("a green double door", classes) == 2
    assert match_class("three buses", classes) == 3
    assert match_class("a potted plant", classes) == 4


def test_cocos_panoptic_names_are_plain_words():
    classes = ("tree-merged", "sky-other-merged", "wall-brick", "wall-other-merged", "door-stuff", "window-other")
    for phrase, index in {
        "a tree": 0,
        "the sky": 1,
        "a wall": 3,
        "a wall brick": 2,
        "a door": 4,
        "a window": 5,
    }.items():
        assert match_class(phrase, classes) == index
    assert match_class("a tree", ("tree-merged", "tree")) == 1  # a class of that very name wins
    with pytest.raises(SegmenterError, match="nearest of its 1 names: tree, tree merged."):
        match_class("a treetop", ("tree-merged",))


def test_blue_before_red_is_refused(tmp_path):
    (write_segmenter(tmp_path) / "preprocessor_config.json").write_text(json.dumps({"do_flip_channel_order": True}))
    with pytest.raises(SegmenterError, match="blue before red"):
        Segmenter.load(tmp_path)


def test_unknown_phrases_list_the_nearest_names():
    with pytest.raises(SegmenterError, match='no class for the phrase "a doggy".*nearest.*: dog, '):
        match_class("a doggy", CLASSES)
    with pytest.raises(SegmenterError) as error:
        match_class("the background", CLASSES)
    assert "background," not in str(error.value).split("names:")[1]
    with pytest.raises(SegmenterError, match="no class"):
        match_class("", CLASSES)
