"""Texts for the pack's text inputs: per input what is right, what lies on an edge, and what is wrong."""

from __future__ import annotations

import json

WORDS = ("a dog", "a cat", "an apple", "a tree")
_TWO = "a dog: 0.05 0.35 0.45 0.9\na cat: 0.55 0.35 0.95 0.9"
_REGION = {"phrase": "a dog", "box": [0.1, 0.2, 0.5, 0.9]}

# What nobody foresees, for every text input.
ODD = (
    "",
    "   ",
    "\n\n\r\n",
    "\t|\t|",
    "a dog " * 400,
    "狗 🐕 Größe",
    "(a house:1.2) and [a (dog:0.5)]",
    "a \\(dog\\)",
    "embedding:nothing_here a dog",
    "<img src=x onerror=alert(1)>",
    "a dog\x00 and a cat",
    "\ufeffa dog",
    "a dog：0.1 0.2 0.3 0.4",
    "{a|b",
    "%date:yyyy-MM-dd%",
    "-1",
    "nan",
    "1e999",
    "[]",
    "{}",
    "null",
    "true",
    "../outside",
    "a" * 300,
    "{phrase} {nothing} {0} {",
    "| | =",
    "=",
    ":",
    "\ud800",
)

_PROMPTS = (
    "a dog and a cat",
    "a dog in front of a tree",
    "a photo of a cat",
    "an apple and a dog on a green meadow",
    "",
)
_COLOURS = ("", "red", "#3366cc", "brown")
_NAMES = (*WORDS, "background")
_LAYOUTS = (
    "a dog: 0 0 1 1",
    "a dog: 0.1 0.1 0.6 0.8 | a fluffy brown dog | colour=brown",
    "a dog: ellipse 0.1 0.2 0.6 0.9\na cat: 0.5 0.4 1 1 | strength=0.5 | order=-1",
    "a tree: polygon 0.1 0.9 0.5 0.1 0.9 0.9",
    json.dumps({"width": 128, "height": 128, "prompt": "a dog", "background": "a meadow", "regions": [_REGION]}),
    _TWO,
    _TWO,
)
_SENTENCES = (
    "a dog left of a cat, under a tree",
    "a red car on a road with two birds above it",
    "a big bear behind a small table. On the left is a lamp.",
)
_EDGE_SENTENCES = (
    "three balloons over three houses, four sheep left of five pigs",
    "a dog in the middle",
    "狗 left of 猫",
    ", ".join(f"a dog{letter} left of a dog{chr(ord(letter) + 1)}" for letter in "abcdefghijklmno"),
)
_WRONG_SENTENCES = (
    "a dog left of a cat, the cat left of the dog",
    "ein Hund in einem Park",
    "two dogs on ten cats, the dogs under the cats",
    "a dog and a cat and " * 50,
)
_ANSWERS = (
    f"Sure!\n```json\n{json.dumps({'regions': [_REGION]})}\n```\nShall I move it?",
    "{'objects': [{'name': 'a dog', 'bbox': (10, 20, 50, 90),},]} // in hundredths",
    "Objects: [('a dog', [10, 20, 50, 60])]",
)
_WRONG_ANSWERS = (
    '```json\n{"regions": [{"phrase": "a dog", "box": [0.1,',
    'Either {"a": 1} or {"b": 2}',
    '{"objects": [{"name": "a dog", "bbox": [0, 0, 9000, 1]}]}',
    '{"objects": [{"name": "a dog", "position": "left"}]}',
)
_EDGE_LAYOUTS = (
    "a dog: 0 0 0.001 0.001",
    "a dog: 0.999 0.999 1 1",
    "\n".join(f"dog {number}: 0 0 1 1" for number in range(64)),
    "a dog: 0 0 1 1\na dog: 0 0 1 1",
    "a dog: 0 0 1 0.01\n\n  a cat  :  0 0.5 1 1  ",
    "a dog: 0 0 1 1 | strength=0",
    "a dog: 0 0 1 1 | strength=-10",
    json.dumps([_REGION]),
    json.dumps({"regions": [_REGION | {"depth": 0.0, "prompt": "x", "strength": 0}]}),
)
_WRONG_LAYOUTS = (
    "a dog: mask 1",
    "a dog",
    "a dog: 0.5 0.2 1.5 0.9",
    "a dog: 10 20 200 150",
    "a dog: nan 0 1 1",
    "a dog: 0.9 0.2 0.5 0.9",
    "a dog: polygon 0 0 1 1",
    "a dog: ellipse",
    "a dog: 0 0 1 1 | colur=red",
    "a dog: 0 0 1 1 | strength=much",
    "a dog: 0 0 1 1 | strength=nan",
    "a dog: 0 0 1 1 | order=1e400",
    '{"regions": [',
    json.dumps({"regions": {"a": 1}}),
    json.dumps({"regions": [{"phrase": 5, "box": "left"}]}),
    json.dumps({"regions": [{"phrase": "a dog", "box": [0, 0, 1]}], "width": "wide"}),
    json.dumps({"regions": [{"phrase": "a dog", "mask": "x"}]}),
    json.dumps({"regions": [{"phrase": "a dog", "mask": {"size": [-1, 2], "counts": "zz"}}]}),
    json.dumps({"regions": [_REGION | {"reference": 7}], "prompt": None}),
    json.dumps({"width": 1e30, "height": -5, "regions": [_REGION]}),
    "[" * 3000 + "]" * 3000,
    "7",
)
_COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 128, "height": 96}],
    "annotations": [{"image_id": 1, "category_id": 3, "bbox": [10, 10, 50, 60], "id": 9}],
    "categories": [{"id": 3, "name": "dog"}],
}
_JSONS = (
    json.dumps({"phrases": ["a dog"], "boxes": [[0.1, 0.3, 0.5, 0.9]]}),
    json.dumps(_COCO),
    json.dumps([{"x": 1, "y": 2, "width": 30, "height": 40, "metadata": {"name": "a dog"}}]),
)
_ARRANGEMENTS = (
    "",
    "1 | right=0.1 | down=-0.05 | scale=1.5 | shadow=0.5",
    "2 | hidden",
    "dog | turn=45 | flip | opacity=0.5",
    "1 | order=3",
)

# Name of the input, or "node.input" -> (right, on an edge, wrong).
TEXTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "layout": (
        (*_LAYOUTS, *_JSONS, *_SENTENCES, *_ANSWERS),
        (
            *_EDGE_LAYOUTS,
            *_EDGE_SENTENCES,
            json.dumps({"phrases": [], "boxes": []}),
            json.dumps(_COCO | {"annotations": []}),
        ),
        (
            *_WRONG_LAYOUTS,
            *_WRONG_SENTENCES,
            *_WRONG_ANSWERS,
            json.dumps(_COCO | {"categories": None}),
            json.dumps(_COCO | {"annotations": [{"bbox": ["a"], "image_id": 1}]}),
            json.dumps({"phrases": ["a"], "boxes": []}),
        ),
    ),
    "StageLayoutCanvas.layout": (_LAYOUTS[4:5], (json.dumps({"regions": []}), *_EDGE_LAYOUTS[-2:]), _WRONG_LAYOUTS),
    "StageAttentionMaps.prompt": (("a dog and a cat",), ("(a dog:1.2) and a cat",), ("",)),
    "picture": (("", ""), ("a.png", "1"), ("no such picture",)),
    "arrange": (
        _ARRANGEMENTS[:2],
        ("1 | scale=0", "1 | turn=720", "1 | opacity=0", "9 | hidden", "1 | right=1000", *_ARRANGEMENTS[2:]),
        ("1 | scale=much", "1 | nonsense", "0 | flip", "1 | right=nan", "1 | right=1e400", "dog | shadow=-3"),
    ),
    "blocks": (("",), ("0", "3, 5-900"), ("eight", "8-", "-1")),
    "phrases": (("a dog",), ("a dog\n\n\na cat", "a dog | x | colour=red"), ("a dog | colur=red", "|")),
    "classes": (("", "a dog", "a dog\nan apple"), ("A DOG\n\n",), ("a thing that nobody knows",)),
    "region": (_NAMES, ("1", " a dog "), ("nobody", "0", "99")),
    "name": (("", *WORDS), (" ",), ("nobody",)),
    "phrase": (WORDS, ("",), ("nobody | x", "a: b")),
    "colour": (_COLOURS, ("#000", "rgb(0,0,0)"), ("no colour", "#12", "rgb(999,a)")),
    "vector": (
        ("", "1 0 0 0", "0.1, 0.2, 0.3, 0.4"),
        ("0 0 0 0", "1e-30 0 0 0"),
        ("1", "a b c d", "nan 0 0 0", "1 2 3 4 5"),
    ),
    "segmenter_weights": (("1.0",), ("0", "1.0, 1.0"), ("-1", "a", "nan", "1,,2", "inf")),
    "layer_prompt": (
        ("{phrase}", "a photo of {phrase}", "{phrase} {background}"),
        ("", "{phrases}"),
        ("{nothing}", "{", "{0}"),
    ),
    "object_prompt": (("a photo of {phrase}",), ("", "{phrase}{phrase}"), ("{nothing}", "{", "{0}")),
    "inversion_prompt": (("{prompt}", ""), ("a dog",), ("{nothing}", "{", "{0}")),
    "background_negative": (("{phrases}", ""), ("x",), ("{nothing}", "{", "{0}")),
    "filename_prefix": (
        ("layers/Stagecraft", "fuzz"),
        ("", "a b/c", "%width%"),
        ("../outside", "a\x00b", "x" * 300, "/"),
    ),
    "folder": (("", "fuzz_data"), (" ", "fuzz_data/more"), ("../outside", "a\x00b", "x" * 300, "/proc/nothing")),
    "captions": (("", "a dog"), ("a\nb\nc",), ("\n",)),
    "background": (("", "a green meadow"), ("(a meadow:1.1)",), ()),
}
PROMPTS = (_PROMPTS, ("a dog",) * 2, ())


def texts_for(node: str, name: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Right, edge and wrong texts of an input; one without an entry is a prompt."""
    return TEXTS.get(f"{node}.{name}") or TEXTS.get(name) or PROMPTS
