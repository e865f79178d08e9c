"""Layouts of other programs: COCO, GLIGEN, Ideogram 4, and our own."""

import json

import pytest
from stagecraft.core.layout.masks import outer_box
from stagecraft.core.layout.other_programs import import_layout
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError, Region, colour_to_rgb
from stagecraft.core.layout.writing import write_bounding_boxes, write_elements, write_json_prompt

COCO = {
    "images": [
        {"id": 7, "file_name": "one.jpg", "width": 100, "height": 50},
        {"id": 8, "file_name": "two.jpg", "width": 64, "height": 64},
    ],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"image_id": 7, "category_id": 1, "bbox": [10, 10, 20, 20], "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]},
        {"image_id": 7, "category_id": 2, "bbox": [0, 0, 100.6, 50]},
        {"image_id": 8, "category_id": 1, "segmentation": {"size": [64, 64], "counts": [0, 640, 3456]}},
        {"image_id": 7, "caption": "a dog before a cat "},
    ],
}


ZEROS = {"size": [64, 64], "counts": "PP4"}  # nothing but outside


def test_coco():
    layout = import_layout(json.dumps(COCO))
    assert (layout.width, layout.height, layout.prompt) == (100, 50, "a dog before a cat")
    cat, dog = layout.sorted_regions()  # the larger lies behind
    assert (cat.phrase, cat.box, cat.mask) == ("cat", (0, 0, 1, 1), None)
    assert dog.box == outer_box((dog.mask >= 0.5).float()) == (0.1, 0.2, 0.3, 0.6)
    assert [r.phrase for r in import_layout(json.dumps(COCO), largest_behind=False).sorted_regions()] == ["dog", "cat"]
    assert all(region.mask is None for region in import_layout(json.dumps(COCO), outlines=False).regions)
    for name in ("8", "two.jpg"):
        (region,) = import_layout(json.dumps(COCO), picture=name).regions
        assert outer_box(region.mask) == (0, 0, 10 / 64, 1)


def test_coco_annotations_without_an_outline_take_their_box():
    dog, nothing = {"image_id": 8, "category_id": 1}, {"size": [64, 64], "counts": [4096]}
    box = {"bbox": [0, 0, 32, 64]}
    for empty in ({"segmentation": []}, {"segmentation": None}, {"segmentation": nothing}, {"segmentation": ZEROS}):
        (region,) = import_layout(json.dumps(COCO | {"annotations": [dog, dog | box | empty]}), picture="8").regions
        assert region == Region("dog", (0, 0, 0.5, 1))
        with pytest.raises(LayoutError, match='"dog" has neither a box nor an outline with an inside'):
            import_layout(json.dumps(COCO | {"annotations": [dog | {"bbox": None} | empty]}), picture="8")
    whole = {"segmentation": {"size": [64, 64], "counts": [0, 4096]}, "bbox": None}
    assert import_layout(json.dumps(COCO | {"annotations": [dog | whole]}), picture="8").regions[0].mask.all()


@pytest.mark.parametrize("names", [("phrases", "boxes"), ("phrases", "locations"), ("gligen_phrases", "gligen_boxes")])
def test_gligen(names):
    data = dict(zip(names, [["a dog", "a sky"], [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]]], strict=True))
    layout = import_layout(json.dumps(data | {"prompt": "a dog below a sky"}), width=64, height=32)
    assert (layout.width, layout.height, layout.prompt) == (64, 32, "a dog below a sky")
    assert [region.phrase for region in layout.sorted_regions()] == ["a sky", "a dog"]
    assert layout.regions[0].box == (0.1, 0.2, 0.3, 0.4)


def test_our_own_json_and_comfyuis_boxes_come_in_too():
    layout = parse_layout("a dog: 0.25 0 1 1 | colour=red | order=3\na cat: 0 0 1 1", width=64, height=64)
    assert import_layout(json.dumps(layout.to_dict())) == layout
    for text in (json.dumps(write_bounding_boxes(layout)), json.dumps(write_elements(layout))):
        read = import_layout(text, width=64, height=64)
        assert [region.phrase for region in read.sorted_regions()] == ["a cat", "a dog"]
        assert read.sorted_regions()[1].box == (0.25, 0, 1, 1) and read.sorted_regions()[1].colour == "#ff0000"


BAD_IMPORTS = {
    "": "The layout is empty",
    "[]": "The layout is empty",
    "{}": "The JSON is empty",
    "[1": "not valid JSON",
    '{"annotations": []}': 'the "images" None',
    json.dumps(COCO | {"images": [{"id": 7}]}): "expected width and height in pixels",
    json.dumps(COCO | {"annotations": 3}): "expected a list of objects",
    json.dumps(COCO | {"annotations": []}): "no annotation",
    json.dumps(COCO | {"categories": []}): '"categories" does not name',
    json.dumps(COCO | {"annotations": [COCO["annotations"][0] | {"bbox": [1, 2]}]}): "x, y, width and height",
    json.dumps(COCO | {"annotations": [COCO["annotations"][0] | {"bbox": [1, 2, 300, 4]}]}): "leaves the canvas",
    json.dumps(COCO | {"annotations": [COCO["annotations"][0] | {"segmentation": [3]}]}): "list of polygons",
    json.dumps(COCO | {"annotations": [COCO["annotations"][0] | {"segmentation": [["a"]]}]}): "polygons of numbers",
    json.dumps(COCO | {"annotations": COCO["annotations"][:1] * 200}): "200 regions; at most 64",
    '{"phrases": ["a"], "boxes": []}': "1 phrases for 0 boxes",
    '{"phrases": ["a"]}': "boxes None",
    '{"phrases": ["a"], "boxes": [[0, 0, 5, 5]]}': "not pixels",
}


DAMAGED_RUNS = {
    "cut off or hold foreign characters": [[64, 64], ZEROS["counts"][:-1]],
    "foreign characters": [[64, 64], "é"],
    "do not fill 64 x 64": [[64, 64], [0, 640]],
    "not whole numbers": [[64, 64], [0, -640, 4736]],
    "not whole numbers ": [[64, 64], None],
    "not [height, width]": [[64], [0, 4096]],
    "more than 67108864": [[2**20, 2**20], [2**40]],
}


@pytest.mark.parametrize("problem", DAMAGED_RUNS)
@pytest.mark.parametrize("box", [{}, {"bbox": [0, 0, 32, 64]}])
def test_damaged_coco_runs_say_what_is_wrong(problem, box):
    size, counts = DAMAGED_RUNS[problem]
    thing = {"image_id": 8, "category_id": 1, "segmentation": {"size": size, "counts": counts}} | box
    with pytest.raises(LayoutError, match='The COCO outline of "dog" cannot be read') as caught:
        import_layout(json.dumps(COCO | {"annotations": [thing]}), picture="8")
    assert problem.strip() in str(caught.value)


@pytest.mark.parametrize("text", BAD_IMPORTS, ids=lambda text: text[-50:])
def test_bad_imports_say_what_is_wrong(text):
    with pytest.raises(LayoutError) as caught:
        import_layout(text)
    assert BAD_IMPORTS[text] in str(caught.value) and len(str(caught.value)) < 400


def test_a_picture_that_is_not_there():
    with pytest.raises(LayoutError, match="no picture 'three.jpg'; it has 2, such as one.jpg, two.jpg"):
        import_layout(json.dumps(COCO), picture="three.jpg")


CAPTION = {
    "high_level_description": "A poster of a red fox over a sleeping village.",
    "style_description": {
        "aesthetics": "calm, hand-made",
        "lighting": "moonlight",
        "medium": "gouache",
        "art_style": "folk art",
        "color_palette": ["#101840", "#C03020"],
    },
    "compositional_deconstruction": {
        "background": "a night sky over snowy roofs",
        "elements": [
            {"type": "obj", "bbox": [550, 0, 1000, 1000], "desc": "a village of small houses"},
            {"type": "obj", "bbox": [120, 250, 620, 750], "desc": "a red fox", "color_palette": ["#C03020", "#FFFFFF"]},
            {"type": "text", "bbox": [20, 100, 110, 900], "text": "GOOD NIGHT", "desc": "large white letters"},
        ],
    },
}


def test_ideograms_json_prompt():
    layout = import_layout(json.dumps(CAPTION, ensure_ascii=False), width=768, height=1024)
    assert (layout.width, layout.height) == (768, 1024)
    assert layout.prompt == (
        "A poster of a red fox over a sleeping village, calm, hand-made, moonlight, gouache, folk art"
    )
    assert layout.background == "a night sky over snowy roofs"
    assert [(region.phrase, region.box, region.colour) for region in layout.sorted_regions()] == [
        ("a village of small houses", (0.0, 0.55, 1.0, 1.0), ""),
        ("a red fox", (0.25, 0.12, 0.75, 0.62), "#C03020"),
        ("GOOD NIGHT", (0.1, 0.02, 0.9, 0.11), ""),
    ]


def test_a_layout_comes_back_from_the_json_prompt_it_is_written_as():
    layout = import_layout(
        "a dög: 0.1 0.3 0.5 0.8 | colour=brown | order=1\na cat: 0.4 0.2 0.9 0.7", background="a meadow"
    )
    text = write_json_prompt(layout)
    assert text.startswith('{"high_level_description":"a dög and a cat a meadow","compositional_deconstruction":')
    assert "\n" not in text and ": " not in text
    elements = json.loads(text)["compositional_deconstruction"]["elements"]
    assert [each["desc"] for each in elements] == ["a cat", "a dög"], "farthest first"
    assert elements[0]["bbox"] == [199, 400, 699, 900], "whole pixels of the canvas on a grid of 0..1000"
    back = import_layout(text)
    assert (back.prompt, back.background) == (layout.prompt, layout.background)
    for found, asked in zip(back.sorted_regions(), layout.sorted_regions(), strict=True):
        assert (found.phrase, colour_to_rgb(found.colour)) == (asked.phrase, colour_to_rgb(asked.colour))
        assert found.box == pytest.approx(asked.box, abs=1 / 512 + 1 / 1000)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ([{"type": "obj", "desc": "a fox"}], "a fox.* has no place.*bbox"),
        ("a fox", "elements.*a fox.*expected a list"),
        ([{"type": "obj", "bbox": [0, 0, 10], "desc": "a fox"}], "connected box"),
        ([{"type": "obj", "bbox": [0, 0, 1500, 10], "desc": "a fox"}], "leaves the canvas"),
        ([], "layout is empty"),
    ],
)
def test_json_prompts_without_places_say_so(elements, message):
    with pytest.raises(LayoutError, match=message):
        import_layout(json.dumps({"compositional_deconstruction": {"background": "", "elements": elements}}))
