"""Bad layouts through the API of a real server: each gives an error to act on, and the server lives on."""

import io
import json

import pytest
from PIL import Image
from stagecraft.commands.comfy_api import PromptFailed, PromptRejected

GOOD = "a dog: 0.1 0.2 0.5 0.9\na cat: 0.5 0.2 0.9 0.9"


def graph(layout: str, **inputs) -> dict:
    given = {"layout": layout, "prompt": "", "background": "", "width": 256, "height": 192, **inputs}
    return {
        "mask": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 128, "height": 96}},
        "wrong shape": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 128, "height": 128}},
        "empty": {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 128, "height": 96}},
        "picture": {"class_type": "MaskToImage", "inputs": {"mask": ["mask", 0]}},
        "twice": {"class_type": "RepeatImageBatch", "inputs": {"image": ["picture", 0], "amount": 2}},
        "two": {"class_type": "ImageToMask", "inputs": {"image": ["twice", 0], "channel": "red"}},
        "layout": {"class_type": "StageLayout", "inputs": given},
        "preview": {"class_type": "StageLayoutPreview", "inputs": {"layout": ["layout", 0]}},
    }


def assert_still_works(server):
    result = server.run(graph(GOOD))
    (picture,) = result.images["preview"]
    assert Image.open(io.BytesIO(picture)).size == (768, 576)


BEFORE_THE_RUN = {
    "empty": ("", "The layout is empty"),
    "outside": ("a dog: 0.5 0.2 1.5 0.9", "leaves the canvas"),
    "pixels": ("a dog: 10 20 200 150", "shares of the canvas in 0..1, not pixels"),
    "nan": ("a dog: nan 0.2 0.5 0.9", "finite"),
    "infinite": (json.dumps([{"phrase": "a dog", "box": [0, 0, float("inf"), 1]}]), "finite"),
    "reversed corners": ("a dog: 0.9 0.2 0.5 0.9", "top left corner first: 0.5 0.2 0.9 0.9"),
    "no area": ("a dog: 0.5 0.2 0.5 0.9", "no area"),
    "unknown key": (json.dumps({"regions": [{"phrase": "a dog", "bax": [0, 0, 1, 1]}]}), 'Did you mean "box"'),
    "unknown option": ("a dog: 0 0 1 1 | colur=red", 'Did you mean "colour"'),
    "300 regions": ("\n".join(f"dog {i}: 0 0 1 1" for i in range(300)), "300 regions; at most 64"),
    "broken json": ('{"regions": [', "not valid JSON"),
    "no mask": ("a dog: mask 1", "0 masks are connected"),
    "a name alone": ("a dog", "No place of a thing was found"),
    "another language": ("ein Hund in einem Park", "Only English sentences"),
    "a contradiction": ("a dog left of a cat, the cat left of the dog", "cannot hold together"),
    "an answer that was cut off": ('Sure:\n```json\n{"regions": [{"phrase": "a dog", "box": [0.1,', "was cut off"),
}


@pytest.mark.parametrize("name", BEFORE_THE_RUN)
def test_refused_before_the_run(server, name):
    text, message = BEFORE_THE_RUN[name]
    with pytest.raises(PromptRejected) as caught:
        server.run(graph(text))
    (error,) = caught.value.node_errors["layout"]["errors"]
    assert message in error["details"]
    assert_still_works(server)


DURING_THE_RUN = {
    "mask of another size": ({"masks": ["wrong shape", 0]}, "a dog", "not the shape of the canvas (256 x 192)"),
    "empty mask": ({"masks": ["empty", 0]}, "a dog", "empty mask"),
    "too many masks": ({"masks": ["two", 0]}, "a dog", "2 masks are connected for 1 regions"),
    "mask that no line uses": (
        {"masks": ["two", 0]},
        "a dog: mask 1\na cat: 0 0 1 1",
        'no region says "mask 2"',
    ),
    "bad box beside a mask": ({"masks": ["mask", 0]}, "a dog: 0 0 2 1", "leaves the canvas"),
}


@pytest.mark.parametrize("name", DURING_THE_RUN)
def test_refused_when_masks_are_known(server, name):
    inputs, text, message = DURING_THE_RUN[name]
    with pytest.raises(PromptFailed) as caught:
        server.run(graph(text, **inputs))
    assert caught.value.node_id == "layout"
    assert message in caught.value.message
    assert_still_works(server)


def test_syntax_is_refused_before_the_run_even_with_masks(server):
    with pytest.raises(PromptRejected) as caught:
        server.run(graph("a dog: 0.1 0.2 0.3", masks=["mask", 0]))
    assert "four numbers" in caught.value.node_errors["layout"]["errors"][0]["details"]


def test_a_sentence_and_a_pasted_answer_run(server):
    texts = {
        "a dog left of a cat": "a dog left of a cat",
        'Sure!\n```json\n{"objects": [{"name": "a dog", "bbox": [0, 0, 1, 1],}]}\n```': "a dog",
    }
    for text, prompt in texts.items():
        shown = {"class_type": "PreviewAny", "inputs": {"source": ["layout", 1]}}
        assert server.run(graph(text) | {"prompt": shown}).outputs["prompt"]["text"][0] == prompt


def test_a_mask_gives_a_layout_with_all_outputs(server):
    prompt = graph("a dog: 0 0 1 1 | order=1\na cat: mask 1", masks=["mask", 0])
    for name, slot in {"prompt": 1, "boxes": 3, "width": 4, "height": 5}.items():
        prompt[name] = {"class_type": "PreviewAny", "inputs": {"source": ["layout", slot]}}
    prompt["masks"] = {"class_type": "MaskPreview", "inputs": {"mask": ["layout", 2]}}
    result = server.run(prompt)
    texts = {name: result.outputs[name]["text"][0] for name in ("prompt", "boxes", "width", "height")}
    assert texts["prompt"] == "a dog and a cat"
    assert (texts["width"], texts["height"]) == ("256", "192")
    ((cat, dog),) = json.loads(texts["boxes"])
    assert cat["metadata"]["name"] == "a cat" and (dog["x"], dog["y"], dog["width"], dog["height"]) == (0, 0, 256, 192)
    hidden, seen = (Image.open(io.BytesIO(picture)).convert("L").getextrema() for picture in result.images["masks"])
    assert hidden == (0, 0) and seen == (255, 255)
