"""Layouts out of lines, JSON, masks and boxes, and errors that say what to change."""

import base64
import json
import math
import zlib

import pytest
import torch
from stagecraft.core.layout.boxes import read_bounding_boxes
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError, Region


def test_lines():
    text = """
    # a comment
    a dog: 0.1, 0.2 0.5 0.8 | a fluffy brown dog, 3=4 | colour=#ff8800 | strength = 1.5
    12:30 on a clock: 0 0 1 1|order=-2
    """
    layout = parse_layout(text, width=640, height=480, background="in a room")
    dog, clock = layout.regions
    assert dog == Region("a dog", (0.1, 0.2, 0.5, 0.8), None, "a fluffy brown dog, 3=4", 1.5, 0, "#ff8800")
    assert clock == Region("12:30 on a clock", (0, 0, 1, 1), order=-2)
    assert (layout.width, layout.height) == (640, 480)
    assert layout.prompt == "a dog and 12:30 on a clock in a room"


ONES = [torch.ones(4, 4)]


@pytest.mark.parametrize(
    "name",
    [
        "(a dog:1.2)",
        "((a dog:1.2) on a mat:0.8)",
        "[a dog:1.2]",
        "a (red:1.3) dog",
        "[red] dog",
        "（狗：1.2）",
    ],
)
def test_names_hold_brackets_with_colons_in_them(name):
    """The place may be connected, or a mask or numbers written behind the name."""
    box = {"x": 0, "y": 0, "width": 8, "height": 8}
    layouts = [
        parse_layout(name, masks=ONES),
        parse_layout(f"{name} | a longer prompt: mask 1 | order=1", masks=ONES),
        parse_layout(f"{name}: mask 1", masks=ONES),
        parse_layout(f"{name}：mask 1", masks=ONES),
        parse_layout(f"{name}: 0 0 1 1"),
        parse_layout(f"{name}: ellipse 0 0 1 1"),
        parse_layout(name, boxes=[box]),
    ]
    assert {layout.regions[0].phrase for layout in layouts} == {name}


@pytest.mark.parametrize(
    "name", ["a sign: exit", "a clock at 12:30", "embedding:rex", "3:2", "(a dog:1.2)", "12: 30 h"]
)
def test_names_hold_colons_where_masks_are_the_places(name):
    assert parse_layout(f"{name} | order=2", masks=ONES).regions[0].phrase == name
    assert parse_layout(f"{name}: mask 1", masks=ONES).regions[0].phrase == name


def test_what_is_no_name_and_no_place_is_refused_as_before():
    for line in ("a dog: left", "a dog: 0.1 0.2 0.3", "a clock at 12:30"):
        with pytest.raises(LayoutError, match="four numbers"):
            parse_layout(line)
    for lines in ("a dog: 0.1 0.2 0.3", "a sign: exit\na dog: mask 1", "a dog: 0 0 1 1\na sign: exit"):
        with pytest.raises(LayoutError, match="four numbers"):
            parse_layout(lines, masks=ONES)
    with pytest.raises(LayoutError, match=r'"\(a dog:1.2\)" has neither a box nor a mask.*connect a mask'):
        parse_layout("(a dog:1.2)")
    assert parse_layout("a dog:", masks=ONES).regions[0].phrase == "a dog"


def test_full_width_signs_and_byte_order_marks_are_read():
    plain = "# two\na dog: 0.1, 0.2, 0.5 0.8 | a fluffy dog | order=2\na cat: polygon 0 0 1 0 1 1"
    wide = plain.translate(str.maketrans(":|,=#0", "：｜，＝＃０"))
    assert parse_layout(wide).regions == parse_layout(plain).regions
    mark = "\ufeff"
    assert parse_layout(mark + plain).regions == parse_layout(plain.replace("\n", "\n" + mark)).regions
    text = json.dumps(parse_layout(plain).to_dict())
    assert parse_layout(mark + text) == parse_layout(text)
    box = '[{"x": 0, "y": 0, "width": 8, "height": 8}]'
    assert read_bounding_boxes(mark + box, 16, 16) == read_bounding_boxes(box, 16, 16)


def test_joined_prompt():
    assert parse_layout("a: 0 0 1 1\nb: 0 0 1 1\nc: 0 0 1 1", background="at night").prompt == "a, b and c at night"
    assert parse_layout("a: 0 0 1 1", prompt="mine").prompt == "mine"


def test_json_wins_over_what_is_given_and_a_list_is_enough():
    region = {"phrase": "a dog", "box": [0, 0, 1, 1], "color": "red"}
    layout = parse_layout(json.dumps({"width": 64, "prompt": "", "regions": [region]}), width=32, height=48, prompt="p")
    assert (layout.width, layout.height, layout.prompt, layout.regions[0].colour) == (64, 48, "p", "red")
    assert parse_layout(json.dumps([region])).regions == layout.regions


def test_masks_by_number_and_in_order():
    first, second = torch.ones(20, 20), torch.full((40, 40), 0.5)
    layout = parse_layout("a dog: mask 2\na cat: 0 0 1 1\na tree: MASK 1", masks=[first, second])
    assert torch.equal(layout.regions[0].mask, second) and torch.equal(layout.regions[2].mask, first)
    assert layout.regions[1].mask is None
    layout = parse_layout("a dog\na cat: 0 0 1 1", masks=[first, second])
    assert torch.equal(layout.regions[0].mask, first) and torch.equal(layout.regions[1].mask, second)


def test_bounding_boxes_in_every_shape():
    box = {"x": 16, "y": 8, "width": 32, "height": 40, "metadata": {"text": "a cat"}}
    element = {"type": "obj", "bbox": [125, 250, 750, 750], "desc": "a cat"}
    expected = [{"box": (0.25, 0.125, 0.75, 0.75), "phrase": "a cat"}]
    for value in (box, [box], [[box]], {"boxes": [box]}, json.dumps([box]), [element], [[element]]):
        assert read_bounding_boxes(value, 64, 64) == expected
    assert parse_layout("", width=64, height=64, boxes=box).regions == (Region("a cat", expected[0]["box"]),)
    layout = parse_layout("a tree: 0 0 1 1\na dog", width=64, height=64, boxes=[[box]])
    assert [region.phrase for region in layout.regions] == ["a tree", "a dog"]
    assert layout.regions[1].box == expected[0]["box"]


def test_boxes_keep_what_their_metadata_say():
    rect = {"name": "a dog", "z_index": 4, "palette": ["#ff0000", "#00ff00"], "content_rect": [8, 0, 16, 32]}
    (box,) = read_bounding_boxes([[{"x": 0, "y": 32, "width": 64, "height": 32, "metadata": rect}]], 64, 64)
    assert box == {"box": (0.125, 0.5, 0.375, 1), "phrase": "a dog", "order": 4, "colour": "#ff0000"}
    turned = {"type": "obj", "bbox": [750, 750, 125, 250], "desc": "a cat", "color_palette": ["#0000ff"]}
    assert read_bounding_boxes([turned], 64, 64) == [
        {"box": (0.25, 0.125, 0.75, 0.75), "phrase": "a cat", "colour": "#0000ff"}
    ]
    assert read_bounding_boxes("", 64, 64) == read_bounding_boxes([], 64, 64) == read_bounding_boxes([[]], 64, 64) == []


TWO_BY_TWO = base64.b64encode(zlib.compress(bytes(16))).decode()
GOOD = {"phrase": "a dog", "box": [0, 0, 1, 1]}
BAD_TEXTS = {
    "": "empty",
    "\n# nothing\n": "empty",
    "[]": "empty",
    "a dog": "neither a box nor a mask",
    "a dog: 0.1 0.2 0.3": "four numbers",
    "a dog: 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8": "four numbers",
    "a dog: left": "four numbers",
    "a dog:": "four numbers",
    "a dog: 0.1 0.2 1.2 0.4": "leaves the canvas",
    "a dog: -0.1 0.2 0.9 0.4": "leaves the canvas",
    "a dog: 10 20 200 300": "not pixels",
    "a dog: 0.5 0.2 0.1 0.4": "reversed corners; expected the top left corner first: 0.1 0.2 0.5 0.4",
    "a dog: 0.1 0.4 0.5 0.2": "reversed corners",
    "a dog: 0.1 0.2 0.1 0.4": "no area",
    "a dog: nan 0.2 0.5 0.4": "finite",
    "a dog: 0.1 0.2 inf 0.4": "finite",
    ": 0 0 1 1": "no phrase",
    "a dog: 0 0 1 1 | one | two": "two prompts",
    "a dog: 0 0 1 1 | strenght=2": 'Did you mean "strength"',
    "a dog: 0 0 1 1 | strength=big": "a number",
    "a dog: 0 0 1 1 | strength=inf": "finite",
    "a dog: 0 0 1 1 | order=1.5": "whole number",
    "a dog: 0 0 1 1 | colour=oragne": 'Did you mean "orange"',
    "a dog: mask 1": "0 masks are connected",
    "a\x00dog: 0 0 1 1": "control character",
    "\n".join(f"dog {i}: 0 0 1 1" for i in range(300)): "300 regions; at most 64",
    '{"regions": [': "line 1, column",
    '{\n"regions": [}': "line 2, column 13",
    '{"regions": 3}': "expected a list",
    '{"regions": [3]}': "expected an object",
    '{"region": []}': 'Did you mean "regions"',
    json.dumps([GOOD | {"bbox": []}]): 'unknown key "bbox". Did you mean "box"',
    '[{"phrase": "a", "phrase": "b", "box": [0, 0, 1, 1]}]': "twice",
    json.dumps([GOOD | {"box": [0, 0, 1]}]): "four numbers",
    json.dumps([GOOD | {"box": [0, 0, True, 1]}]): "finite",
    json.dumps([GOOD | {"box": [0, 0, "1", 1]}]): "finite",
    json.dumps([GOOD | {"box": [0, 0, 10**400, 1]}]): "finite",
    json.dumps([GOOD | {"box": [math.nan, 0, 1, 1]}]): "finite",
    json.dumps([GOOD | {"order": True}]): "whole number",
    json.dumps([GOOD | {"phrase": 3}]): "expected text",
    json.dumps([{"box": [0, 0, 1, 1]}]): 'no "phrase"',
    json.dumps([GOOD | {"mask": True}]): "expected an object",
    json.dumps([GOOD | {"mask": {"height": 2, "width": 2, "float32_zlib_base64": "!"}}]): "cannot be unpacked",
    json.dumps([GOOD | {"mask": {"height": 9, "width": 9, "float32_zlib_base64": TWO_BY_TWO}}]): "too few",
    json.dumps({"width": 1e9, "regions": [GOOD]}): "width",
    json.dumps({"width": 100000, "regions": [GOOD]}): "16384",
    json.dumps({"width": None, "regions": [GOOD]}): "width",
    "[" * 100_000: "nested too deeply",
    '[{"order": ' + "1" * 5000 + "}]": "not valid JSON",
}


@pytest.mark.parametrize("text", BAD_TEXTS, ids=lambda text: text[:30])
def test_bad_texts_say_what_is_wrong(text):
    with pytest.raises(LayoutError) as caught:
        parse_layout(text)
    assert BAD_TEXTS[text] in str(caught.value)
    assert len(str(caught.value)) < 400


def test_masks_and_boxes_that_do_not_fit_the_regions():
    two = [torch.ones(8, 8)] * 2
    with pytest.raises(LayoutError, match="2 masks are connected for 1 regions"):
        parse_layout("a dog", masks=two)
    with pytest.raises(LayoutError, match="Mask 2 is connected but no region"):
        parse_layout("a dog: mask 1", masks=two)
    with pytest.raises(LayoutError, match='says "mask 3", but 2 masks'):
        parse_layout("a dog: mask 3", masks=two)
    box = {"x": 0, "y": 0, "width": 8, "height": 8}
    with pytest.raises(LayoutError, match="no names"):
        parse_layout("", boxes=[box])
    with pytest.raises(LayoutError, match="2 boxes are connected, but 1 regions"):
        parse_layout("a dog", boxes=[box, box])
    for bad, message in [
        ([[box], [box]], "2 frames"),
        ({"x": 1}, "expected x, y, width and height"),
        (3, "expected boxes"),
        ("{", "not valid JSON"),
        (box | {"width": 600}, "leaves the canvas"),
        (box | {"width": math.nan}, "leaves the canvas"),
    ]:
        with pytest.raises(LayoutError, match=message):
            parse_layout("a dog", boxes=bad)
