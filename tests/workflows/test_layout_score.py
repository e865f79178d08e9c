"""The score node on a real server with a tiny real Segformer: the core's numbers, and errors a user can act on."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from stagecraft.commands.comfy_api import PromptFailed, PromptRejected
from stagecraft.commands.comfy_server import ComfyServer
from stagecraft.commands.environment import CLONE, current_environment
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.scores.layout_score import report, score_pictures
from stagecraft.core.segmentation.segmenter import Segmenter
from transformers import SegformerConfig, SegformerForSemanticSegmentation

CLASSES = ("background", "dog", "cat", "tree")
LAYOUT = "a dog: 0.1 0.2 0.5 0.9\na big tree: 0.5 0.1 0.95 0.6"


def write_segmenter(folder):
    """A tiny random Segformer that sees several classes in a picture of noise."""
    torch.manual_seed(3)
    config = SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: i for i, name in enumerate(CLASSES)},
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    write_segmenter(base / "models" / "segmenters" / "tiny")
    (base / "models" / "segmenters" / "broken").mkdir()
    (base / "models" / "segmenters" / "broken" / "config.json").write_text("{}")
    with ComfyServer(current_environment(), CLONE, base=base) as running:
        yield running


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Coloured blobs, so that a random network finds more than one class."""
    noise = np.random.default_rng(0).uniform(0, 255, (8, 12, 3)).astype(np.uint8)
    path = tmp_path_factory.mktemp("pictures") / "blobs.png"
    Image.fromarray(noise).resize((192, 128), Image.Resampling.BICUBIC).save(path)
    return path


def graph(image: str, layout: str = LAYOUT, segmenter: str = "tiny", width: int = 192, height: int = 128) -> dict:
    return {
        "picture": {"class_type": "LoadImage", "inputs": {"image": image}},
        "batch": {"class_type": "RepeatImageBatch", "inputs": {"image": ["picture", 0], "amount": 2}},
        "layout": {
            "class_type": "StageLayout",
            "inputs": {"layout": layout, "prompt": "", "background": "", "width": width, "height": height},
        },
        "score": {
            "class_type": "StageLayoutScore",
            "inputs": {"image": ["batch", 0], "layout": ["layout", 0], "segmenter": ["segmenter", 0]},
        },
        "segmenter": {"class_type": "StageSegmenterLoader", "inputs": {"folder": segmenter}},
        "json": {"class_type": "PreviewAny", "inputs": {"source": ["score", 2]}},
        "iou": {"class_type": "PreviewAny", "inputs": {"source": ["score", 1]}},
    }


def test_numbers_are_those_of_the_core(server, picture):
    result = server.run(graph(server.upload(picture)))
    layout = parse_layout(LAYOUT, width=192, height=128)
    image = torch.from_numpy(np.asarray(Image.open(picture), np.float32) / 255)
    segmenter = Segmenter.load(server.base / "models" / "segmenters" / "tiny")
    expected = report(score_pictures(torch.stack([image, image]), [layout, layout], segmenter))
    assert any(score["found_box"] for score in expected["regions"][0]), "the test's network finds nothing at all"

    found = json.loads(result.outputs["json"]["text"][0])
    assert found.keys() == expected.keys()
    assert found["pictures"] == 2
    for name in ("box_iou", "ap50", "mask_iou", "bleed", "presence"):
        assert found[name] == pytest.approx(expected[name], abs=1e-3), name
    assert float(result.outputs["iou"]["text"][0]) == pytest.approx(expected["box_iou"], abs=1e-3)
    assert "a big tree:" in result.outputs["score"]["text"][0]


def test_every_picture_gets_an_overlay(server, picture):
    result = server.run(graph(server.upload(picture)))
    overlays = [Image.open(io.BytesIO(data)) for data in result.images["score"]]
    assert [overlay.size for overlay in overlays] == [(768, 512)] * 2
    pixels = np.asarray(overlays[0].convert("RGB")).astype(int)
    original = np.asarray(Image.open(picture).resize((768, 512), Image.Resampling.BILINEAR)).astype(int)
    changed = (np.abs(pixels - original).sum(-1) > 120).mean()
    assert 0.01 < changed < 0.9


@pytest.mark.parametrize(
    ("changes", "node", "message"),
    [
        ({"layout": "a unicorn: 0.1 0.1 0.9 0.9"}, "score", 'no class for the phrase "a unicorn"'),
        ({"layout": "a doggy: 0.1 0.1 0.9 0.9"}, "score", "nearest of its 4 names: dog"),
        ({"width": 128}, "score", "not the shape of the layout's canvas"),
        ({"segmenter": "broken"}, "segmenter", "lacks model.safetensors"),
    ],
)
def test_errors_say_what_to_do_and_the_server_lives_on(server, picture, changes, node, message):
    name = server.upload(picture)
    with pytest.raises(PromptFailed) as failure:
        server.run(graph(name, **changes))
    assert failure.value.node_id == node
    assert message in failure.value.message
    assert server.run(graph(name)).images["score"]


def test_an_unknown_segmenter_is_refused_before_anything_runs(server, picture):
    with pytest.raises(PromptRejected, match="there is no segmenter.*found: broken, tiny"):
        server.run(graph(server.upload(picture), segmenter="nothing of this name"))
