"""The node Layout: out of lines, JSON of any program, masks, boxes, and in front of another layout."""

import json

import pytest
import torch
from stagecraft.core.layout.region import LayoutError
from stagecraft.core.layout.writing import write_bounding_boxes
from stagecraft.nodes.layout.layout import StageLayout

COCO = {
    "images": [
        {"id": 1, "file_name": "one.jpg", "width": 64, "height": 32},
        {"id": 2, "file_name": "two.jpg", "width": 48, "height": 48},
    ],
    "annotations": [
        {"image_id": 1, "category_id": 3, "bbox": [0, 0, 16, 16], "segmentation": [[0, 0, 16, 0, 16, 16]]},
        {"image_id": 1, "category_id": 4, "bbox": [0, 0, 64, 32]},
        {"image_id": 2, "category_id": 4, "bbox": [0, 0, 48, 24]},
    ],
    "categories": [{"id": 3, "name": "dog"}, {"id": 4, "name": "sky"}],
}
CHECK = StageLayout.validate_inputs


def outputs(text, prompt="", background="", size=(64, 64), **given):
    return StageLayout.execute(text, prompt, background, *size, **given).args


def made(text, **given):
    return outputs(text, **given)[0]


@pytest.fixture
def masks():
    masks = torch.zeros(2, 32, 48)
    masks[0, :16], masks[1, 16:] = 1, 1
    return masks


def test_masks_become_regions_on_a_canvas_of_their_size(masks):
    layout = made("a dog\na cat | a white cat | order=-1", background="on grass", size=(0, 0), masks=masks)
    assert (layout.width, layout.height, layout.background) == (48, 32, "on grass")
    assert torch.equal(layout.regions[0].mask, masks[0]) and layout.regions[1].prompt == "a white cat"
    larger = made("a dog\na cat", size=(96, 64), masks=masks)
    assert (larger.width, larger.height) == (96, 64)
    assert made("a dog", size=(0, 64), masks=torch.ones(1, 64, 96)).width == 96
    numbered = made("a dog: mask 2\na fox: 0 0 1 1\na cat: mask 1", size=(0, 0), masks=masks)
    assert [torch.equal(numbered.regions[i].mask, masks[j]) for i, j in ((0, 1), (2, 0))] == [True, True]
    with pytest.raises(LayoutError, match="2 masks are connected for 1 regions"):
        made("a dog", size=(0, 0), masks=masks)
    with pytest.raises(LayoutError, match="width is 0; expected whole pixels from 16"):
        made("a dog: 0 0 1 1", size=(0, 64))
    with pytest.raises(LayoutError, match="not the shape of the canvas"):
        made("a dog\na cat", masks=masks)


def test_names_of_masks_may_hold_colons(masks):
    odd = "\ufeff(a dog:1.2)\na sign: exit | a green sign"
    assert CHECK(odd, masks=None) is True
    named = made(odd, size=(0, 0), masks=masks)
    assert [region.phrase for region in named.regions] == ["(a dog:1.2)", "a sign: exit"]
    for text in ("a dog: 0.1 0.2", "a sign: exit\na dog: mask 1"):  # a place that lacks something, or beside one
        assert "four numbers" in CHECK(text, masks=None)
    for given in ({}, {"boxes": None}):
        assert "four numbers" in CHECK("a sign: exit", **given)


def test_one_layout_goes_in_front_of_another(masks):
    behind = made("a dog\na cat | order=-1", background="on grass", size=(0, 0), masks=masks)
    (front, prompt, seen, *_) = outputs("a hat", "mine", size=(512, 512), masks=masks[:1, ::2, ::2], before=behind)
    assert [region.phrase for region in front.sorted_regions()] == ["a cat", "a dog", "a hat"]
    assert (front.width, front.height, prompt, front.background, len(seen)) == (48, 32, "mine", "on grass", 3)
    boxed = made("a hat: 0 0 0.5 0.5", background="at night", before=behind)
    assert (boxed.prompt, boxed.background) == (behind.prompt, "at night") and boxed.regions[:2] == behind.regions
    own = made(json.dumps({"prompt": "a hat", "regions": [{"phrase": "a hat", "box": [0, 0, 1, 1]}]}), before=behind)
    assert (own.prompt, own.background) == ("a hat", "on grass")
    pixels = {"x": 0, "y": 0, "width": 24, "height": 16, "metadata": {"name": "a hat"}}
    assert made("", boxes=pixels, before=behind).regions[-1].box == (0, 0, 0.5, 0.5)
    with pytest.raises(LayoutError, match="different canvases: 48 x 32 and 64 x 32"):
        made(json.dumps(COCO), before=behind)
    with pytest.raises(LayoutError, match="2 layouts are connected to before"):
        made("a hat: 0 0 1 1", before=(behind, behind))


def test_coco_has_inputs_of_its_own():
    text = json.dumps(COCO)
    assert CHECK(text) is True
    layout = made(text, picture="", largest_behind=True, outlines=True)
    assert (layout.width, layout.height) == (64, 32) and layout == made(text)  # as from the API without them
    assert [region.phrase for region in layout.sorted_regions()] == ["sky", "dog"]
    assert layout.sorted_regions()[1].mask is not None
    other = made(text, largest_behind=False, outlines=False)
    assert [region.phrase for region in other.sorted_regions()] == ["dog", "sky"]
    assert all(region.mask is None for region in other.regions)
    (region,) = made(text, picture="two.jpg").regions
    assert region.phrase == "sky" and region.box == (0, 0, 1, 0.5)
    with pytest.raises(LayoutError, match="no picture 'three.jpg'"):
        made(text, picture="three.jpg")


def test_json_of_other_programs_is_pasted_into_the_same_text():
    gligen = json.dumps({"phrases": ["a dog", "a sky"], "boxes": [[0, 0, 0.5, 1], [0, 0, 1, 1]]})
    layout = made(gligen)
    assert [region.phrase for region in layout.sorted_regions()] == ["a sky", "a dog"] and CHECK(gligen) is True
    assert [region.phrase for region in made(gligen, largest_behind=False).sorted_regions()] == ["a dog", "a sky"]
    boxes = write_bounding_boxes(made("a dog: 0.25 0 1 1", size=(1024, 64)))
    assert CHECK(json.dumps(boxes)) is True  # whether they fit depends on the canvas
    assert made(json.dumps(boxes), size=(1024, 64)).regions[0].box == (0.25, 0, 1, 1)
    with pytest.raises(LayoutError, match="leaves the canvas of 64 x 64"):
        made(json.dumps(boxes))
    with pytest.raises(LayoutError, match="boxes in the JSON, and others are connected"):
        made(json.dumps(boxes), boxes=boxes, size=(1024, 64))
    wide = {"phrase": "a dog", "mask": {"size": [2, 4], "counts": [0, 8]}}
    assert CHECK(json.dumps([wide])) is True and made(json.dumps([wide]), size=(64, 32)).regions[0].mask.shape == (2, 4)
    assert "not the shape" in CHECK(json.dumps({"width": 64, "height": 64, "regions": [wide]}))


def test_connected_masks_are_taken_by_any_text_or_refused(masks):
    """None of them is left out in silence."""
    gligen = json.dumps({"phrases": ["a dog", "a sky"], "boxes": [[0, 0, 0.5, 1], [0, 0, 1, 1]]})
    found = made(gligen, size=(48, 32), masks=masks, largest_behind=False)
    assert all(torch.equal(region.mask, mask) for region, mask in zip(found.regions, masks, strict=True))
    own = json.dumps([{"phrase": "a dog", "mask": 2}, {"phrase": "a cat", "mask": 1}])
    assert torch.equal(made(own, size=(0, 0), masks=masks).regions[0].mask, masks[1])
    named = {"x": 0, "y": 0, "width": 24, "height": 16, "metadata": {"name": "a hat"}}
    for text, given in (("", {"boxes": named}), (json.dumps([named]), {}), (json.dumps(COCO), {"picture": "2"})):
        with pytest.raises(LayoutError, match="2 masks are connected for 1 regions"):
            made(text, size=(48, 32), masks=masks, **given)
        one = made(text, size=(48, 48), masks=torch.ones(1, 48, 48), **given)
        assert one.regions[0].mask is not None and len(one.regions) == 1


def test_a_sentence_is_a_layout():
    text = "a dog left of a cat, under a tree in a park"
    assert CHECK(text) is True
    layout, prompt, seen, boxes, width, height = outputs(text, size=(96, 64))
    assert ([r.phrase for r in layout.regions], prompt, layout.background) == (
        ["a dog", "a cat", "a tree"],
        text,
        "in a park",
    )
    assert seen.shape == (3, 64, 96) and (width, height) == (96, 64) and len(boxes[0]) == 3
    dog, cat, tree = (region.box for region in layout.regions)
    assert dog[2] < cat[0] and tree[3] < dog[1]
    assert outputs(text, "mine", "at night")[0].background == "at night"
    front = made("a hat on a cat", before=layout)
    assert (len(front.regions), front.width, front.prompt, front.background) == (5, 96, text, "in a park")
    assert "cannot hold together" in CHECK("a dog left of a cat, the cat left of the dog")
    assert CHECK(text, masks=None) is True and CHECK(text, boxes=None) is True, "then it is a name"


def test_a_language_models_answer_is_pasted_as_it_is():
    answer = "Here:\n```json\n{'objects': [{'name': 'a dog', 'bbox': [32, 0, 64, 24]},]} // pixels\n```\nAnything else?"
    assert CHECK(answer) is True
    assert made(answer, size=(64, 48)).regions[0].box == (0.32, 0, 0.64, 0.24), "hundredths, where nobody says a size"
    assert made(answer.replace("{'objects'", "{'width': 64, 'height': 48, 'objects'")).regions[0].box == (
        0.5,
        0,
        1,
        0.5,
    )
    assert "was cut off" in CHECK(answer[:60])
    reference = 'So: {"regions": [{"phrase": "a dog", "box": [0, 0, 1, 1], "reference": "nowhere.png"}]}'
    assert CHECK(reference) is True and StageLayout.fingerprint_inputs(layout=reference) == ()


def test_what_is_refused_before_the_run():
    assert CHECK(None) is True and CHECK("a dog\na cat", masks=None) is True
    assert "The layout is empty" in CHECK(" \n")
    assert "JSON is empty" in CHECK("{}") and "not valid JSON" in CHECK("{")
    for given in ({}, {"masks": None}, {"boxes": None}):
        assert 'Did you mean "colour"' in CHECK("a dog | colur=red", **given)
    assert "1 phrases for 0 boxes" in CHECK('{"phrases": ["a"], "boxes": []}')
