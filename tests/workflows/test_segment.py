"""Segmenters, layouts read out of pictures and TCIG's second stage on a real server, with tiny real models."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from stagecraft.commands.comfy_api import PromptFailed, PromptRejected
from stagecraft.commands.comfy_server import ComfyServer
from stagecraft.commands.environment import CLONE, current_environment
from stagecraft.core.segmentation.layout_from_picture import Reading, read_layout
from stagecraft.core.segmentation.segmenter import Segmenter
from transformers import SegformerConfig, SegformerForSemanticSegmentation

FOLDERS = {"tiny": ("background", "dog", "cat", "tree"), "second": ("background", "house", "dog")}


def write_segmenter(folder, classes):
    """A tiny random Segformer that sees several classes in a picture of blobs."""
    torch.manual_seed(len(classes))
    config = SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1] * 4,
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16,
        id2label=dict(enumerate(classes)),
        label2id={name: i for i, name in enumerate(classes)},
    )
    SegformerForSemanticSegmentation(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    for name, classes in FOLDERS.items():
        write_segmenter(base / "models" / "segmenters" / name, classes)
    with ComfyServer(current_environment(), CLONE, base=base) as running:
        yield running


@pytest.fixture(scope="module")
def picture(server, tmp_path_factory):
    noise = np.random.default_rng(0).uniform(0, 255, (8, 12, 3)).astype(np.uint8)
    path = tmp_path_factory.mktemp("pictures") / "blobs.png"
    Image.fromarray(noise).resize((192, 128), Image.Resampling.BICUBIC).save(path)
    return server.upload(path)


def reading(picture, classes="", least_area=0.01, folder="tiny"):
    settings = {"least_confidence": 0.0, "single_pieces": True, "prompt": "", "background": "on grass"}
    return {
        "picture": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "first": {"class_type": "StageSegmenterLoader", "inputs": {"folder": folder}},
        "segment": {
            "class_type": "StageSegment",
            "inputs": {
                "image": ["picture", 0],
                "segmenter": ["first", 0],
                "classes": classes,
                "least_area": least_area,
                **settings,
            },
        },
    }


def test_layouts_are_the_cores_and_go_on_in_the_graph(server, picture):
    graph = reading(picture)
    graph["shown"] = {"class_type": "StageLayoutPreview", "inputs": {"layout": ["segment", 1]}}
    graph["masks"] = {"class_type": "MaskToImage", "inputs": {"mask": ["segment", 0]}}
    graph["save"] = {"class_type": "PreviewImage", "inputs": {"images": ["masks", 0]}}
    result = server.run(graph)
    image = torch.from_numpy(np.asarray(Image.open(server.base / "input" / picture).convert("RGB"), np.float32) / 255)
    segmenter = Segmenter.load(server.base / "models" / "segmenters" / "tiny")
    layout = read_layout(image, segmenter, Reading(least_confidence=0.0, background="on grass"))
    phrases = [region.phrase for region in layout.sorted_regions()]
    assert result.outputs["segment"]["text"][0].splitlines() == phrases and len(set(phrases)) > 1
    found = [np.asarray(Image.open(io.BytesIO(data)).convert("L")) >= 128 for data in result.images["save"]]
    assert np.array_equal(np.stack(found), layout.visible_masks(128, 192)[1:].numpy() >= 0.5)


def test_chained_segmenters_know_more(server, picture):
    graph = reading(picture, "a house\na tree\na dog", least_area=0.0)
    with pytest.raises(PromptFailed, match='no class for the phrase "a house"'):
        server.run(graph)
    graph["both"] = {"class_type": "StageSegmenterLoader", "inputs": {"folder": "second", "others": ["first", 0]}}
    graph["segment"]["inputs"]["segmenter"] = ["both", 0]
    graph["score"] = {
        "class_type": "StageLayoutScore",
        "inputs": {
            "image": ["picture", 0],
            "layout": ["segment", 1],
            "segmenter": ["both", 0],
        },
    }
    graph["json"] = {"class_type": "PreviewAny", "inputs": {"source": ["score", 2]}}
    result = server.run(graph)
    scores = json.loads(result.outputs["json"]["text"][0])
    assert "a house" in {each["phrase"] for each in scores["regions"][0]}
    assert scores["mask_iou"] > 0.99  # the layout is what the same segmenters see


def test_a_draft_is_refined_and_judged_before_and_after(server, picture):
    graph = reading(picture, least_area=0.0)
    graph["checkpoint"] = {
        "class_type": "CheckpointLoaderSimple",
        "inputs": {"ckpt_name": "sticker_world.safetensors"},
    }
    for name, text in (("positive", "a dog"), ("negative", "")):
        graph[name] = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["checkpoint", 1], "text": text}}
    run = {"seed": 1, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal"}
    strengths = {"denoise_from": "mask fit", "denoise_if_fits": 0.5, "denoise_if_not": 1.0, "denoise": 0.0}
    graph["refine"] = {
        "class_type": "StageTCIGRefine",
        "inputs": {
            "image": ["picture", 0],
            "layout": ["segment", 1],
            "segmenter": ["first", 0],
            "model": ["checkpoint", 0],
            "vae": ["checkpoint", 2],
            "positive": ["positive", 0],
            "negative": ["negative", 0],
            "hold": 0.5,
            "upscale": 1.0,
            **run,
            **strengths,
        },
    }
    graph["json"] = {"class_type": "PreviewAny", "inputs": {"source": ["refine", 2]}}
    result = server.run(graph)
    (picture_report,) = (report := json.loads(result.outputs["json"]["text"][0]))["pictures"]
    assert picture_report["denoise"] == 0.5  # the layout was read from this very picture, so everything fits
    assert report["draft"] > 0.95 and 0 <= report["refined"] <= 1
    assert Image.open(io.BytesIO(result.images["refine"][0])).size == (192, 128)
    graph["refine"]["inputs"] |= {"denoise_if_fits": 0.9, "denoise_if_not": 0.2}
    with pytest.raises(PromptRejected, match="above denoise_if_not"):
        server.run(graph)


def test_a_replaced_segmenter_is_loaded_again(server, picture):
    folder = server.base / "models" / "segmenters" / "changing"
    write_segmenter(folder, ("background", "lamp", "chair"))
    first = server.run(reading(picture, folder="changing")).outputs["segment"]["text"][0]
    write_segmenter(folder, ("background", "rug", "sofa"))
    second = server.run(reading(picture, folder="changing")).outputs["segment"]["text"][0]
    assert set(first.splitlines()) <= {"a lamp", "a chair"} and set(second.splitlines()) <= {"a rug", "a sofa"}


def test_an_unknown_folder_is_refused_before_anything_runs(server, picture):
    with pytest.raises(PromptRejected, match='no segmenter "missing"'):
        server.run(reading(picture, folder="missing"))
