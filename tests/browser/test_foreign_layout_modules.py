"""Layouts of other programs, read by the canvas in the browser as by the core's Python."""

import json

import pytest
import torch
from stagecraft.core.layout.other_programs import import_layout
from stagecraft.core.layout.reading import layout_from_data
from stagecraft.core.layout.run_length import encode_runs

COCO = {
    "images": [{"id": 7, "width": 400, "height": 300, "file_name": "x.jpg"}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "tree"}],
    "annotations": [
        {"image_id": 7, "category_id": 2, "bbox": [20, 30, 60, 90]},
        {"image_id": 7, "category_id": 1, "bbox": [100, 60, 200, 150], "segmentation": [[100, 60, 300, 60, 300, 210]]},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "segmentation": encode_runs(torch.ones(300, 400))},
    ],
}
PICTURES = {
    "images": [{"id": 1, "width": 64, "height": 48}, {"id": 2, "width": 100, "height": 100}],
    "categories": [{"id": 1, "name": "dog"}],
    "annotations": [
        {"image_id": 2, "category_id": 1, "bbox": [0, 0, 9, 9], "caption": "another one"},
        # Its box is larger than the tree's, but not what is inside its outline.
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 60, 40], "segmentation": [[0, 0, 60, 0, 0, 4, 0, 40]]},
        {"image_id": 1, "phrase": "a tree", "bbox": [4, 4, 32, 32]},
        {"image_id": 1, "caption": " a dog and a tree "},
    ],
}
GLIGEN = {"phrases": ["a dog", "a cat"], "boxes": [[0.1, 0.2, 0.4, 0.5], [0.5, 0.1, 1.0, 0.9]]}
# Of the boxes that have an order of their own the smaller one lies behind, so that an order by size is another one.
ELEMENTS = [
    {"type": "obj", "bbox": [300, 300, 400, 400], "desc": "a cup", "color_palette": ["#2040c0"]},
    {"type": "obj", "bbox": [100, 200, 500, 600], "desc": "a lamp"},
]
FRAMES = [
    [
        {"x": 51, "y": 102, "width": 256, "height": 204, "metadata": {"text": "a boat", "z_index": 2}},
        {"x": 10, "y": 10, "width": 450, "height": 450, "metadata": {"text": "a lake", "z_index": 1}},
        {
            "x": 51,
            "y": 102,
            "width": 25,
            "height": 20,
            "metadata": {"text": "a duck", "palette": ["#ff0000", "#00ff00"]},
        },
        # A padded layer, of which only this part shows anything.
        {
            "x": 200,
            "y": 20,
            "width": 200,
            "height": 90,
            "metadata": {"text": "a moon", "content_rect": [90, 15, 40, 44]},
        },
    ]
]
JSON_PROMPT = {
    "high_level_description": " A poster of a fox over a village. ",
    "style_description": {"aesthetics": "calm", "medium": "gouache", "color_palette": ["#101840"]},
    "compositional_deconstruction": {
        "background": "a night sky",
        "elements": [
            {"type": "text", "bbox": [20, 100, 110, 300], "text": "GOOD NIGHT", "desc": "large white letters"},
            {"type": "obj", "bbox": [10, 0, 1000, 1000], "desc": "a fox", "color_palette": ["#C03020", "#FFFFFF"]},
        ],
    },
}
FORMATS = {
    "coco": COCO,
    "pictures": PICTURES,
    "gligen": GLIGEN,
    "elements": ELEMENTS,
    "frames": FRAMES,
    "json prompt": JSON_PROMPT,
    "swapped corners": [{"type": "obj", "bbox": [500, 600, 100, 200], "desc": "a lamp"}],
    "numbers as texts": [
        {"bbox": ["100", "200", "500", "600"], "name": "a lamp", "label": "lamp", "palette": "#ff0000"},
        {"x": "51", "y": "102", "width": "256", "height": "204", "desc": 5, "palette": [[255, 0, 0]]},
    ],
    "one box": {"x": 51, "y": 102, "width": 256, "height": 204, "metadata": {"text": "a boat"}},
}
PROMPTED = (PICTURES, JSON_PROMPT)  # they come with a prompt of their own


@pytest.mark.parametrize("data", FORMATS.values(), ids=FORMATS)
def test_foreign_layouts_are_read_as_in_python(run, data):
    text = json.dumps(data)
    script = """const state = await import("/extensions/stagecraft/layout_canvas/state.js");
        return state.writeLayout(module.importText(argument, state.emptyLayout(512, 512)))"""
    written = json.loads(run("import", script, text))
    ours, theirs = layout_from_data(written), import_layout(text)
    assert (ours.width, ours.height) == (theirs.width, theirs.height)
    # Without a prompt of the text's own it stays empty here and goes on to follow the phrases.
    assert written["prompt"] == (theirs.prompt if data in PROMPTED else "")
    assert ours.background == theirs.background
    pairs = list(zip(ours.sorted_regions(), theirs.sorted_regions(), strict=True))
    assert pairs
    for mine, other in pairs:
        assert (mine.phrase, mine.colour) == (other.phrase, other.colour)
        masks = (region.mask_on(ours.height, ours.width) for region in (mine, other))
        difference = torch.sub(*masks).abs().sum()
        # A pixel along a slanted edge may fall to either side.
        assert difference <= 400


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        (encode_runs(torch.zeros(300, 400)), None),  # nothing inside, so the bbox counts
        ({"size": [300, 400], "counts": "~~~"}, "of “dog” cannot be read: the text of a mask is damaged"),
        ({"size": [300, 400], "counts": [7]}, "of “dog” cannot be read: the runs of a mask do not fill its size"),
        ({"size": [2**20, 2**20], "counts": [2**40]}, "1048576 × 1048576 pixels; at most 67108864"),
    ],
    ids=["empty", "text", "runs", "huge"],
)
def test_a_coco_outline_that_cannot_be_read_is_named(run, outline, message):
    annotation = {"image_id": 7, "category_id": 1, "bbox": [20, 30, 60, 90], "segmentation": outline}
    found = run(
        "import",
        """const state = await import("/extensions/stagecraft/layout_canvas/state.js");
        try { return module.importText(argument, state.emptyLayout(512, 512)).regions.map((each) => each.box) }
        catch (error) { return error instanceof state.LayoutTextError ? error.message : `crashed: ${error}` }""",
        json.dumps(COCO | {"annotations": [annotation]}),
    )
    if message is None:
        assert found == [pytest.approx([20 / 400, 30 / 300, 80 / 400, 120 / 300])]
    else:
        assert message in found
        assert not found.startswith("crashed")


@pytest.mark.parametrize(
    ("composition", "message"),
    [
        ({"elements": [{"type": "obj", "desc": "a fox"}]}, "The element “a fox” of this JSON prompt has no place"),
        ({"elements": "a fox"}, "has no list of elements"),
        ("a fox", "has no list of elements"),
        ({"elements": [{"bbox": [0, 0, 10], "desc": "a fox"}]}, "A box has no known form"),
        ({"elements": []}, "There is no box in this file"),
    ],
)
def test_a_json_prompt_without_places_says_so(run, composition, message):
    script = """const state = await import("/extensions/stagecraft/layout_canvas/state.js");
        try { module.importText(argument, state.emptyLayout(512, 512)); return "read" }
        catch (error) { return error instanceof state.LayoutTextError ? error.message : `crashed: ${error}` }"""
    assert message in run("import", script, json.dumps({"compositional_deconstruction": composition}))
