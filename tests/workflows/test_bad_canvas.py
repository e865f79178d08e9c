"""Layout canvases through the API of a real server: bad ones give an error to act on, good ones reach other nodes."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from stagecraft.commands.comfy_api import PromptFailed, PromptRejected

DOG = {"phrase": "a dog", "box": [0.1, 0.2, 0.5, 0.9], "editor": {"locked": True}}
CAT = {"phrase": "a cat", "mask": {"size": [48, 64], "counts": [0, 48 * 32, 48 * 32]}, "order": -1}


def drawing(*regions, **canvas):
    return json.dumps({"width": 256, "height": 192, "regions": regions, "editor": {"grid": 8}} | canvas)


def graph(layout, **inputs):
    return {
        "picture": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 255}},
        "no boxes": {"class_type": "PrimitiveString", "inputs": {"value": "[[]]"}},
        "start": {
            "class_type": "StageLayout",
            "inputs": {"layout": "a tree: 0 0 1 1", "prompt": "", "background": "", "width": 64, "height": 48},
        },
        "canvas": {"class_type": "StageLayoutCanvas", "inputs": {"layout": layout, **inputs}},
        "preview": {"class_type": "PreviewImage", "inputs": {"images": ["canvas", 4]}},
    }


def assert_still_works(server):
    (picture,) = server.run(graph(drawing(DOG, CAT))).images["preview"]
    assert Image.open(io.BytesIO(picture)).size == (768, 576)


BEFORE_THE_RUN = {
    "no text": ("", "The layout is empty"),
    "nothing drawn": (drawing(), "The layout is empty"),
    "all hidden": (drawing(DOG | {"hidden": True}), "All 1 regions of the layout are hidden"),
    "broken json": ('{"regions": [', "not valid JSON"),
    "deep json": ('{"regions": ' + "[" * 20_000, "nested too deeply"),
    "not a layout": ('{"nodes": []}', 'unknown key "nodes"'),
    "unknown key": (drawing(DOG | {"colr": "red"}), 'Did you mean "colour"'),
    "outside": (drawing(DOG | {"box": [0.5, 0.2, 1.5, 0.9]}), "leaves the canvas"),
    "reversed": (drawing(DOG | {"box": [0.9, 0.2, 0.5, 0.9]}), "top left corner first: 0.5 0.2 0.9 0.9"),
    "no area": (drawing(DOG | {"box": [0.5, 0.2, 0.5, 0.9]}), "no area"),
    "no place": (drawing({"phrase": "a dog"}), "neither a box nor a mask"),
    "no name": (drawing(DOG | {"phrase": " "}), "has no phrase"),
    "empty mask": (drawing({"phrase": "a dog", "mask": {"size": [48, 64], "counts": [48 * 64]}}), "empty mask"),
    "foreign mask": (drawing({"phrase": "a dog", "mask": {"size": [4, 4], "counts": "?"}}), "cannot be read"),
    "mask of another shape": (
        drawing({"phrase": "a dog", "mask": {"size": [8, 8], "counts": [0, 64]}}),
        "not the shape of the canvas (256 x 192)",
    ),
    "200 regions": (drawing(*[DOG] * 200), "200 regions; at most 64"),
    "1 x 1 canvas": (drawing(DOG, width=1, height=1), "expected whole pixels from 16 to 16384"),
    "no such reference": (drawing(DOG | {"reference": "no.png"}), "not in ComfyUI's input folder"),
    "reference elsewhere": (drawing(DOG | {"reference": "../../main.py"}), "not in ComfyUI's input folder"),
}


@pytest.mark.parametrize("name", BEFORE_THE_RUN)
def test_refused_before_the_run(server, name):
    text, message = BEFORE_THE_RUN[name]
    with pytest.raises(PromptRejected) as caught:
        server.run(graph(text))
    errors = caught.value.node_errors["canvas"]["errors"]
    assert all(message in error["details"] for error in errors) and errors


def test_refused_when_the_connected_boxes_are_known(server):
    assert_still_works(server)
    with pytest.raises(PromptFailed) as caught:
        server.run(graph(drawing(), boxes=["no boxes", 0]))
    assert caught.value.node_id == "canvas" and "Nothing is drawn" in caught.value.message
    assert_still_works(server)


def test_everything_that_is_drawn_comes_out(server):
    words = "<b>a dog</b> \N{DOG FACE}"
    prompt = graph(
        drawing(DOG | {"phrase": words}, CAT), image=["picture", 0], start=["start", 0], boxes=["no boxes", 0]
    )
    for name, slot in {"prompt": 1, "width": 2, "height": 3, "boxes": 6, "elements": 7}.items():
        prompt[name] = {"class_type": "PreviewAny", "inputs": {"source": ["canvas", slot]}}
    prompt["masks"] = {"class_type": "MaskPreview", "inputs": {"mask": ["canvas", 5]}}
    result = server.run(prompt)
    texts = {name: result.outputs[name]["text"][0] for name in ("prompt", "width", "height", "boxes", "elements")}
    assert (texts["prompt"], texts["width"], texts["height"]) == (f"{words} and a cat", "256", "192")
    ((cat, dog),) = json.loads(texts["boxes"])
    assert (cat["width"], cat["height"], dog["metadata"]["name"]) == (128, 192, words)
    assert json.loads(texts["elements"])[0]["bbox"] == [0, 0, 1000, 500]
    cat, dog = (np.asarray(Image.open(io.BytesIO(each)).convert("L")) for each in result.images["masks"])
    assert cat[100, 10] == 255 and cat[100, 100] == 0 and dog[100, 100] == 255
    sent = result.outputs["canvas"]
    assert [region["phrase"] for region in json.loads(sent["stage_start"][0])["regions"]] == ["a tree"]
    assert sent["stage_image"][0]["type"] == "temp" and sent["stage_warnings"] == []


def test_the_nodes_around_it_join(server):
    prompt = {
        "json": {
            "class_type": "StageLayout",
            "inputs": {
                "layout": json.dumps({"phrases": ["a dog"], "boxes": [[0, 0, 0.5, 1]]}),
                "prompt": "",
                "background": "",
                "width": 64,
                "height": 64,
                "picture": "",
                "largest_behind": True,
                "outlines": True,
            },
        },
        "mask": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}},
        "masks": {
            "class_type": "StageLayout",
            "inputs": {
                "layout": "a cat | order=-9",
                "prompt": "",
                "background": "",
                "width": 0,
                "height": 0,
                "masks": ["mask", 0],
                "before": ["json", 0],
            },
        },
        "edit": {
            "class_type": "StageLayoutEdit",
            "inputs": {
                "layout": ["masks", 0],
                "region": "a dog",
                "right": 0.5,
                "down": 0.0,
                "scale": 1.0,
                "mirror": "no",
                "nearer": 9,
                "stronger": 1.0,
                "phrase": "a fox",
                "prompt": "",
                "colour": "",
            },
        },
        "canvas": {"class_type": "StageLayoutCanvas", "inputs": {"layout": drawing(), "start": ["edit", 0]}},
        "boxes": {"class_type": "PreviewAny", "inputs": {"source": ["canvas", 6]}},
    }
    ((cat, fox),) = json.loads(server.run(prompt).outputs["boxes"]["text"][0])
    assert [box["metadata"]["name"] for box in (cat, fox)] == ["a cat", "a fox"]
    assert (fox["x"], fox["width"], cat["width"]) == (32, 32, 64)
    bad = {**prompt["json"], "inputs": {**prompt["json"]["inputs"], "layout": '{"phrases": ["a"], "boxes": []}'}}
    with pytest.raises(PromptRejected) as caught:
        server.run(prompt | {"json": bad})
    assert "1 phrases for 0 boxes" in caught.value.node_errors["json"]["errors"][0]["details"]
