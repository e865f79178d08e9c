"""Soft masks of every kind of segmentation model, on tiny random weights of transformers' real classes."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from stagecraft.core.segmentation.files import SegmenterError
from stagecraft.core.segmentation.joint import join_segmenters
from stagecraft.core.segmentation.layout_from_picture import Reading, find_regions
from stagecraft.core.segmentation.segmenter import OpenSegmenter, Segmenter

NAMES = ("dog", "apple", "traffic light")
PHRASES = ("a red apple", "a dog")
SIDE = 64


def labels(names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def write_preprocessor(folder, side=SIDE):
    settings = {"size": {"height": side, "width": side}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def write_semantic(folder):
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        **labels(("background", *NAMES)),
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)


def swin():
    return {
        "model_type": "swin",
        "image_size": SIDE,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [1] * 4,
        "num_heads": [1, 1, 2, 2],
        "window_size": 2,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }


def write_mask2former(folder):
    config = transformers.Mask2FormerConfig(
        backbone_config=transformers.SwinConfig(**swin()),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=5,
        **labels(NAMES),
    )
    transformers.Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)


def write_maskformer(folder):
    decoder = transformers.DetrConfig(
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
    )
    config = transformers.MaskFormerConfig(
        fpn_feature_size=32,
        mask_feature_size=32,
        backbone_config=transformers.SwinConfig(**swin()),
        decoder_config=decoder,
        **labels(NAMES),
    )
    transformers.MaskFormerForInstanceSegmentation(config).save_pretrained(folder)


def write_clipseg(folder):
    words = ["a", "red", "apple", "dog", "zebra"]
    letters = sorted(set("".join(words)))
    # Every word is spelled from its letters: small tables, and different tokens for different words.
    vocabulary = {token: i for i, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], unk_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "bos_token_id": len(vocabulary) - 2,
        "eos_token_id": len(vocabulary) - 1,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = transformers.CLIPSegConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=16,
        reduce_dim=8,
        extract_layers=[0, 1, 2],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    transformers.CLIPSegForImageSegmentation(config).save_pretrained(folder)


WRITERS = {
    "semantic": write_semantic,
    "mask2former": write_mask2former,
    "maskformer": write_maskformer,
    "clipseg": write_clipseg,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, write in WRITERS.items():
        torch.manual_seed(0)
        made[name] = tmp_path_factory.mktemp(name)
        write(made[name])
        write_preprocessor(made[name])
    return made


@pytest.fixture(scope="module")
def segmenters(folders):
    return {name: Segmenter.load(folder) for name, folder in folders.items()}


def images(seed=0, height=SIDE, width=SIDE):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def normalised(pictures):
    return (pictures - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]


@pytest.mark.parametrize("kind", WRITERS)
def test_soft_masks_follow_the_phrases(segmenters, kind):
    segmenter = segmenters[kind]
    masks = segmenter.soft_masks(images(), PHRASES)
    assert masks.shape[:2] == (2, len(PHRASES)) and masks.dtype == torch.float32
    assert masks.min() >= 0 and masks.max() <= 1 and masks.std() > 0
    # The masks of phrases depend neither on their order, nor on the other phrases, nor on the other pictures.
    torch.testing.assert_close(segmenter.soft_masks(images(), PHRASES[::-1]), masks.flip(1), atol=1e-5, rtol=1e-4)
    alone = segmenter.soft_masks(images()[1:], PHRASES[:1])
    torch.testing.assert_close(alone, masks[1:, :1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(masks[:, 0], masks[:, 1], atol=1e-4)


@pytest.mark.parametrize("kind", WRITERS)
def test_gradients_reach_the_picture_even_after_loading_in_inference_mode(folders, kind):
    with torch.inference_mode():
        segmenter = Segmenter.load(folders[kind])
        segmenter.soft_masks(images(), PHRASES)
    pictures = images(height=48, width=80).requires_grad_()
    segmenter.soft_masks(pictures, PHRASES)[:, 0].mean().backward()
    assert torch.isfinite(pictures.grad).all() and pictures.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in segmenter.network.parameters())


def test_semantic_masks_are_the_softmax_on_the_networks_grid(segmenters):
    segmenter = segmenters["semantic"]
    with torch.no_grad():
        expected = segmenter.network(pixel_values=normalised(images())).logits.softmax(1)[:, [2, 1]]
    torch.testing.assert_close(segmenter.soft_masks(images(), PHRASES), expected)


@pytest.mark.parametrize("kind", ["mask2former", "maskformer"])
def test_query_masks_are_the_models_own_semantic_scores(segmenters, kind):
    segmenter = segmenters[kind]
    assert segmenter.classes == (*NAMES, "background")
    with torch.no_grad():
        found = segmenter.network(pixel_values=normalised(images()))
    classes, shapes = found.class_queries_logits.softmax(-1), found.masks_queries_logits.sigmoid()
    scores = sum(classes[:, q, :-1, None, None] * shapes[:, q, None] for q in range(classes.shape[1]))
    # What is over one is shared out, what is missing to one is the background's.
    expected = scores / scores.sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(segmenter.soft_masks(images(), NAMES), expected, atol=1e-4, rtol=1e-3)
    whole = segmenter.probabilities(images().movedim(1, -1))
    torch.testing.assert_close(whole.sum(1), torch.ones(2, SIDE, SIDE))


def test_open_masks_are_the_models_own(segmenters, folders):
    segmenter = segmenters["clipseg"]
    assert isinstance(segmenter, OpenSegmenter)
    network = transformers.CLIPSegForImageSegmentation.from_pretrained(folders["clipseg"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["clipseg"])
    masks = segmenter.soft_masks(images(), PHRASES)
    for i, phrase in enumerate(PHRASES):
        tokens = tokenizer([phrase] * 2, return_tensors="pt")
        with torch.no_grad():
            logits = network(pixel_values=normalised(images()), **tokens).logits
        torch.testing.assert_close(masks[:, i], logits.sigmoid(), atol=1e-5, rtol=1e-4)


def test_open_segmenter_with_phrases_has_classes(segmenters):
    segmenter = segmenters["clipseg"]
    closed = segmenter.for_phrases(["A red  apple", "a dog", "a dog"])
    assert closed.classes == ("background", "a red apple", "a dog")
    probabilities = closed.probabilities(images().movedim(1, -1))
    assert probabilities.shape == (2, 3, SIDE, SIDE)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, SIDE, SIDE))
    # The background has it exactly where no phrase is likelier than not.
    own = segmenter.soft_masks(images(), ["a red apple", "a dog"])
    assert own.shape[-2:] == (SIDE, SIDE)
    assert torch.equal(probabilities.argmax(1) == 0, (own <= 0.5).all(1))
    with pytest.raises(SegmenterError, match="takes phrases"):
        segmenter.probabilities(images().movedim(1, -1))
    long = "a dog " * 30 + "a zebra"
    with pytest.raises(SegmenterError, match='is too long; "a dog a.*a zebra" would not be read. Write a shorter name'):
        segmenter.for_phrases([long])
    assert segmenter.for_phrases(["a dog " * 18]).classes[1] == " ".join(["a dog"] * 18)


def test_open_segmenters_beside_closed_ones_and_without_phrases(segmenters):
    closed, open_one = segmenters["semantic"], segmenters["clipseg"]
    picture = images().movedim(1, -1)
    both = join_segmenters([closed, open_one])
    known = both.for_phrases(["a dog"])  # nothing is left for the open one to look for
    torch.testing.assert_close(known.probabilities(picture)[:, 1], closed.probabilities(picture)[:, 1])
    more = both.for_phrases(["a dog", "a zebra"])
    assert more.classes[1:3] == ("dog", "a zebra") and more.probabilities(picture).shape[1] == len(more.classes)
    assert find_regions(picture[0], both, Reading(least_area=0.0, least_confidence=0.0))
    for judge in (open_one, join_segmenters([open_one, open_one])):
        with pytest.raises(SegmenterError, match="no classes of its own"):
            find_regions(picture[0], judge, Reading())


def test_what_segmenters_know(segmenters):
    for kind in ("semantic", "mask2former", "maskformer"):
        segmenter = segmenters[kind]
        assert segmenter.knows("two dogs") and not segmenter.knows("a zebra") and not segmenter.knows("the background")
        assert segmenter.name_of("two dogs") == "dog"
        assert segmenter.for_phrases(PHRASES) is segmenter
        with pytest.raises(SegmenterError, match='no class for the phrase "a zebra".*nearest'):
            segmenter.soft_masks(images(), ["a dog", "a zebra"])
    open_one = segmenters["clipseg"]
    assert open_one.knows("a zebra") and not open_one.knows(" !")
    assert open_one.name_of(" A  Dog ") == "a dog"
    # A comma parts synonyms in a class, so that one in a phrase would make "a cat" of "a cat, a dog".
    commas = open_one.for_phrases(["a cat, sleeping", "a dog, sleeping", "a dog"])
    assert [commas.class_of(phrase) for phrase in ("a cat, sleeping", "a dog, sleeping", "a dog")] == [1, 2, 3]
    assert not open_one.knows("background")
    with pytest.raises(SegmenterError, match="names nothing"):
        open_one.soft_masks(images(), [" "])


def test_pictures_of_another_shape_are_refused(segmenters):
    for segmenter in segmenters.values():
        with pytest.raises(SegmenterError, match="expected \\(batch, 3, height, width\\)"):
            segmenter.soft_masks(images().movedim(1, -1), PHRASES)


def test_settings_of_newer_processors_are_read(folders, tmp_path):
    write_semantic(tmp_path)
    settings = {"image_processor": {"size": {"height": 32, "width": 64}, "image_mean": [0.1] * 3, "image_std": [1] * 3}}
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))
    segmenter = Segmenter.load(tmp_path)
    assert (segmenter.size, segmenter.mean, segmenter.std) == ((32, 64), (0.1,) * 3, (1.0,) * 3)


def test_missing_tokenizer_and_weights(tmp_path):
    write_clipseg(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(SegmenterError, match="lacks its tokenizer"):
        Segmenter.load(tmp_path)
    other = tmp_path / "queries"
    write_mask2former(other)
    weights = load_file(other / "model.safetensors")
    weights.pop("class_predictor.weight")
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(SegmenterError, match="class_predictor.weight"):
        Segmenter.load(other)
