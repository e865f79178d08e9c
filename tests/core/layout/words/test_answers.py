"""What language models answer: JSON with anything around it, in any of their spellings, with any kind of box."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stagecraft.core.layout.other_programs import check_layout, import_layout
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError, Region
from stagecraft.core.layout.text import read_layout_text
from stagecraft.core.layout.words.loose_json import CutOffError, as_json

DOG = Region("a dog", (0.1, 0.25, 0.5, 0.75))
OWN = '{"regions": [{"phrase": "a dog", "box": [0.1, 0.25, 0.5, 0.75]}]}'
AROUND = {
    "alone": "{}",
    "a fence": "```\n{}\n```",
    "a fence with a language": "Sure! Here it is:\n\n```json\n{}\n```\nLet me know what you think: I can move the dog.",
    "a fence that never ends": "```json\n{}",
    "words before": "Here is the layout: {}",
    "words behind": "{}\nThe dog [red] is {{ left }}: 0.1 0.2",
    "another object before": 'I think {{"steps": [1, 2]}}, so\n{}',
    "another layout behind": '{}\nor\n{{"regions": [{{"phrase": "a cat", "box": [0, 0, 1, 1]}}]}}',
    "a list and brackets in words": "[1] see {{below}} (or [2]):\n{}",
}
SPELLINGS = {
    "commas behind the last": '{"regions": [{"phrase": "a dog", "box": [0.1, 0.25, 0.5, 0.75,],},],}',
    "comments": '{/* all */ "regions": [ // things\n {"phrase": "a dog", # the dog\n "box": [0.1, 0.25, 0.5, 0.75]}]}',
    "single quotes": "{'regions': [{'phrase': 'a dog', 'box': [0.1, 0.25, 0.5, 0.75]}]}",
    "typographic quotes": "{“regions”: [{„phrase“: “a dog”, ‘box’: [0.1, 0.25, 0.5, 0.75]}]}",
    "names without quotes": '{regions: [{phrase: "a dog", box: [.1, 0.25, +0.5, 0.75]}]}',
    "Python": "{'regions': [{'phrase': 'a dog', 'box': (0.1, 0.25, 0.5, 0.75), 'mask': None, 'hidden': False}]}",
    "nulls": '{"width": null, "regions": [{"phrase": "a dog", "prompt": null, "box": [0.1, 0.25, 0.5, 0.75]}]}',
}
BOXES = {
    "four shares": ([0.1, 0.25, 0.5, 0.75], {}),
    "corners by name": ({"x0": 0.1, "y0": 0.25, "x1": 0.5, "y1": 0.75}, {}),
    "corners from one": ({"x1": 0.1, "y1": 0.25, "x2": 0.5, "y2": 0.75}, {}),
    "edges": ({"left": 0.1, "top": 0.25, "right": 0.5, "bottom": 0.75}, {}),
    "least and most": ({"xmin": 0.1, "ymin": 0.25, "xmax": 0.5, "ymax": 0.75}, {}),
    "width and height": ({"x": 0.1, "y": 0.25, "width": 0.4, "height": 0.5}, {}),
    "w and h": ({"x": 0.1, "y": 0.25, "w": 0.4, "h": 0.5}, {}),
    "a centre": ({"cx": 0.3, "cy": 0.5, "w": 0.4, "h": 0.5}, {}),
    "two points": ([[0.1, 0.25], [0.5, 0.75]], {}),
    "a text": ("0.1, 0.25, 0.5, 0.75", {}),
    "percentages": (["10%", "25%", "50%", "75%"], {}),
    "percentages of sides": ({"x": "10%", "y": "25 %", "width": "40%", "height": "50%"}, {}),
    "hundredths": ([10, 25, 50, 75], {}),
    "thousandths": ([100, 250, 500, 750], {}),
    "pixels of the canvas": ([51.2, 128, 256, 384], {}),
    "pixels with their unit": (["51.2px", "128px", "256px", "384px"], {}),
    "pixels of the answer's canvas": ([80, 150, 400, 450], {"width": 800, "height": 600}),
    "few pixels of the answer's canvas": ([8, 15, 40, 45], {"width": 80, "height": 60}),
    "pixels of a canvas of its own name": ([80, 150, 400, 450], {"canvas": {"width": 800, "height": 600}}),
}


@pytest.mark.parametrize("around", AROUND)
def test_what_stands_around_it_changes_nothing(around):
    text = AROUND[around].format(OWN)
    assert import_layout(text).regions == (DOG,)
    check_layout(text)
    assert parse_layout(text).regions == (DOG,) and read_layout_text(text) == json.loads(OWN)
    mask = torch.ones(8, 8)
    assert torch.equal(import_layout(text, masks=[mask]).regions[0].mask, mask), "with masks connected too"


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("around", ["alone", "a fence with a language", "words before"])
def test_spellings_of_json(spelling, around):
    assert import_layout(AROUND[around].format(SPELLINGS[spelling])).regions == (DOG,)


@pytest.mark.parametrize("kind", BOXES)
@pytest.mark.parametrize("key", ["box", "bbox", "bounding_box", "position"])
@pytest.mark.parametrize("names", [("objects", "name"), ("elements", "label"), ("regions", "phrase"), ("", "name")])
def test_boxes_of_every_kind(kind, key, names):
    box, top = BOXES[kind]
    container, name = names
    things = [{name: "a dog", key: box}, {name: "a dog", key: box}]
    if not container and top:
        return
    (first, second) = import_layout(json.dumps(top | {container: things} if container else things)).regions
    assert first == second and first.phrase == "a dog"
    assert first.box == pytest.approx(DOG.box, abs=1e-6)


def test_the_whole_answer_decides_what_its_numbers_are():
    def boxes(*rows, **top):
        things = [{"name": "a dog", "bbox": row} for row in rows]
        return [tuple(round(v, 2) for v in r.box) for r in import_layout(json.dumps(top | {"objects": things})).regions]

    assert boxes([10, 20, 60, 80], [50, 50, 90, 90]) == [(0.1, 0.2, 0.6, 0.8), (0.5, 0.5, 0.9, 0.9)]
    assert boxes([10, 20, 60, 80], [500, 500, 900, 900])[0] == (0.01, 0.02, 0.06, 0.08), "thousandths, for one of them"
    assert boxes([0, 0, 256, 512], [256, 0, 512, 512]) == [(0, 0, 0.5, 1), (0.5, 0, 1, 1)], "pixels"
    # A second corner that would lie before the first: a width and a height, of all.
    assert boxes([0.5, 0.5, 0.4, 0.4], [0.1, 0.1, 0.2, 0.8]) == [(0.5, 0.5, 0.9, 0.9), (0.1, 0.1, 0.3, 0.9)]
    assert boxes([0, 0, 1200, 600], width=1200, height=600) == [(0, 0, 1, 1)]


def test_answers_of_well_known_forms():
    grounded = "Objects: [('a dog', [51, 281, 205, 159]), ('a cat', [269, 283, 209, 160])]\nBackground prompt: a lawn"
    dog, cat = import_layout(grounded).regions
    assert (dog.phrase, cat.phrase) == ("a dog", "a cat")
    assert dog.box == pytest.approx((51 / 512, 281 / 512, 256 / 512, 440 / 512), abs=1e-5)
    assert import_layout('[{"box_2d": [250, 100, 750, 500], "label": "a dog"}]').regions == (DOG,)
    assert import_layout('[{"bbox_2d": [100, 250, 500, 750], "label": "a dog"}]').regions == (DOG,)
    assert import_layout('{"a dog": [0.1, 0.25, 0.5, 0.75]}').regions == (DOG,)
    nested = '{"layout": {"objects": [{"object": "a dog", "rect": [0.1, 0.25, 0.5, 0.75]}]}}'
    assert import_layout(nested).regions == (DOG,)
    assert import_layout('{"phrases": ["a dog"], "boxes": [[51.2, 128, 256, 384]]}').regions == (DOG,)
    lines = "```\na dog: 0.1 0.25 0.5 0.75\n```"
    assert import_layout(lines).regions == (DOG,)


def test_what_else_is_said_of_things_and_picture_comes_along():
    thing = {"id": 3, "name": "a dog", "description": "a wet dog", "color": "brown", "z_index": 2, "mood": "sad"}
    data = {"caption": "a dog on a lawn", "background": {"a": 1}, "setting": "on a lawn", "notes": "none"}
    layout = import_layout(json.dumps(data | {"objects": [thing | {"bbox": list(DOG.box)}]}))
    assert layout.regions == (Region("a dog", DOG.box, prompt="a wet dog", colour="brown", order=2),)
    assert (layout.prompt, layout.background) == ("a dog on a lawn", "on a lawn")


WRONG = {
    '```json\n{"regions": [{"phrase": "a dog", "box": [0.1, 0.2,': "line 2, column 1 was cut off, 4 brackets",
    'Here:\n{"regions": [{"phrase": "a dog", "box": [0.1, 0.2]}\n```\nDone.': "was cut off",
    '{"regions": [{"phrase": "a do': "was cut off",
    'Either {"a": 1} or {"b": 2}': "2 pieces of JSON, and none of them is a layout",
    'I made {"region": [1]}': 'Did you mean "regions"',
    '{"objects": [{"name": "a dog"}]}': "no name and box that can be read",
    '{"objects": [{"name": "a dog", "position": "left"}]}': "no name and box that can be read",
    '{"objects": [{"bbox": [0, 0, 1, 1]}]}': "no name and box that can be read",
    '{"objects": [{"name": "a dog", "bbox": [0, 0, 5000, 9000]}]}': "reach to 5000x9000, which leaves the canvas",
    '{"width": 64, "height": 64, "objects": [{"name": "a dog", "bbox": [0, 0, 2000, 64]}]}': "canvas of 64x64",
    '{"regions": [{"phrase": "a dog", "box": [0.1, 0.2, 0.5, 1.2]}]}': "leaves the canvas",
    '{"regions": [{"phrase": "a dog", "box": [0.5, 0.2, 0.1, 0.8]}]}': "reversed corners",
    'Here:\n{"regions": [{"phrase": "a dog", "box": [0, 0, 1, one]}]}': "line 2, column 1 is damaged, 'one]}]}'",
    'Here: {"regions": [{"phrase": "a dog" "box": [0, 0, 1, 1]}]}': "is damaged, Expecting ',' delimiter",
    '{"regions": [{"phrase": "a dog" "box": [0, 0, 1, 1]}]}': "Expecting ',' delimiter at line 1",
    'So: {"regions": [{"phrase": "a", "phrase": "b", "box": [0, 0, 1, 1]}]}': "twice",
    '{"regions": [{"phrase": "a dog", "box": [0, 0, 1, 1], "bax": 1}]}': "unknown key",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:40])
def test_wrong_answers_say_what_is_wrong(text):
    with pytest.raises(LayoutError) as caught:
        import_layout(text)
    assert WRONG[text] in str(caught.value) and len(str(caught.value)) < 400


def test_boxes_that_another_canvas_might_hold_wait_for_it():
    text = json.dumps({"objects": [{"name": "a dog", "bbox": [0, 0, 1500, 1500]}]})
    check_layout(text)
    assert import_layout(text, width=1500, height=1500).regions[0].box == (0, 0, 1, 1)


def test_lines_count_in_shares_alone():
    for line in ("a dog: 10 20 200 150", "a dog: 0.5 0.5 0.4 0.4", "```\na dog: 10 20 200 150\n```"):
        with pytest.raises(LayoutError, match='The region "a dog" has the box'):
            import_layout(line)


def test_lines_with_brackets_in_them_stay_lines():
    for name in ('a sign {"exit": 5}', "a [red] dog", '(a {"b": [1]} dog:1.2)', "[('a', 1)] dog", "{red|blue} x"):
        plain = name.replace("|", "/")
        if not plain.startswith(("[", "{")):
            assert import_layout(f"{plain}: 0 0 1 1").regions[0].phrase == plain
        assert import_layout(f"a cat: 0 0 1 1\n{plain}: 0 0 1 1").regions[1].phrase == plain
    assert import_layout('a {"b": 5} dog', masks=[torch.ones(8, 8)]).regions[0].phrase == 'a {"b": 5} dog'


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).filter(lambda value: isinstance(value, list | dict))
)
def test_json_stays_what_it_is(value):
    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
        strict, end = as_json(text, 0)
        assert json.loads(strict) == value and end == len(text)
        for cut in range(1, len(text), max(1, len(text) // 8)):
            with pytest.raises(CutOffError):
                as_json(text[:cut], 0)
