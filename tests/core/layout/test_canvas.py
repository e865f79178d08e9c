"""What the layout canvas means, what it warns of, and how it is drawn."""

import json

import pytest
import torch
from stagecraft.core.layout.canvas import canvas_warnings, check_canvas, offered_layout, read_canvas
from stagecraft.core.layout.preview import draw_layout, fit_picture
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError, Region
from stagecraft.core.layout.writing import write_bounding_boxes

CANVAS = {"width": 64, "height": 32, "prompt": "mine", "regions": []}


def test_what_is_drawn_wins_over_what_is_connected():
    start = parse_layout("a tree: 0 0 1 1 | order=3", width=128, height=64, background="on grass")
    boxes = [{"x": 0, "y": 0, "width": 32, "height": 32}]
    drawn = json.dumps(CANVAS | {"regions": [{"phrase": "a dog", "box": [0, 0, 1, 1]}]})
    assert read_canvas(drawn, start, boxes) == read_canvas(drawn)
    assert read_canvas(drawn).regions == (Region("a dog", (0, 0, 1, 1)),)
    empty = json.dumps(CANVAS)
    taken = read_canvas(empty, start)
    assert (taken.regions, taken.width, taken.prompt, taken.background) == (start.regions, 128, "mine", "on grass")
    hidden = json.dumps(CANVAS | {"regions": [{"phrase": "a dog", "box": [0, 0, 1, 1], "hidden": True}]})
    assert read_canvas(hidden, start) == taken
    both = read_canvas(empty, start, boxes)
    assert [region.phrase for region in both.sorted_regions()] == ["a tree", "thing 1"]
    assert both.regions[1].box == (0, 0, 0.25, 0.5)
    (alone,) = read_canvas(empty, None, boxes).regions
    assert alone == Region("thing 1", (0, 0, 0.5, 1))
    (filled,) = read_canvas(json.dumps(CANVAS | {"regions": [{"phrase": "a dog"}]}), None, boxes).regions
    assert filled == Region("a dog", (0, 0, 0.5, 1))
    layer = {"image": torch.zeros(1, 8, 16, 3), "type": "raster", "x": 8, "y": 4}
    layers = read_canvas(empty, None, {"version": 1, "canvas": (64, 32), "layers": [layer]})
    assert (layers.width, layers.height) == (64, 32) and layers.regions[0].phrase == "thing 1"
    assert offered_layout(None, [], (64, 64)) is None
    with pytest.raises(LayoutError, match="Nothing is drawn"):
        read_canvas(empty, None, [])
    with pytest.raises(LayoutError, match="2 layouts are connected to start"):
        read_canvas(empty, (start, start))


def test_a_canvas_is_checked_as_far_as_it_is_known():
    assert check_canvas(json.dumps(CANVAS), is_connected=True) is None
    with pytest.raises(LayoutError, match="The layout is empty"):
        check_canvas(json.dumps(CANVAS), is_connected=False)
    outside = json.dumps(CANVAS | {"regions": [{"phrase": "a dog", "box": [0, 0, 2, 1]}]})
    for is_connected in (True, False):
        with pytest.raises(LayoutError, match="leaves the canvas"):
            check_canvas(outside, is_connected)
    assert check_canvas(json.dumps(CANVAS | {"regions": [{"phrase": "a dog"}]}), is_connected=True) is None
    assert check_canvas("a dog: 0 0 1 1", is_connected=False).width == 512


def test_warnings_name_the_nodes_that_mind():
    layout = parse_layout(
        "a dog: 0 0 1 1\nA Dog: 0 0 1 1\na cat: 0 0 0.01 0.01", width=64, height=64, prompt="one A  dog"
    )
    missing, twice, *seen = canvas_warnings(layout)
    assert '"a cat" is not in the prompt' in missing and "Layered Rendering" in missing
    assert 'Regions 1 and 2 are all called "a dog"' in twice and "Layer Settings" in twice
    assert len(seen) == 2 and '"a cat" is smaller than' in seen[0] and '"a dog" is hidden by nearer' in seen[1]
    assert canvas_warnings(parse_layout("a dog: 0 0 1 1", width=64, height=64)) == []


def test_pictures_of_any_shape_and_canvases_of_any_size():
    picture = torch.ones(2, 10, 40, 3)
    fitted = fit_picture(picture, 64, 64)
    assert fitted.shape == (2, 64, 64, 3) and (fitted == 1).all(-1).sum(1)[0].tolist() == [16] * 64
    assert torch.equal(fit_picture(picture, 10, 40), picture)
    huge = parse_layout("a dog: 0 0 0.5 1", width=16384, height=16)
    assert draw_layout(huge).shape == (1, 4, 4096, 3)
    mask = {"size": [64, 64], "counts": [0, 2048, 2048]}
    huge = parse_layout(json.dumps([{"phrase": "a dog", "mask": mask}]), width=8192, height=8192)
    assert write_bounding_boxes(huge)[0][0]["width"] == 4096
    assert canvas_warnings(huge) == []


@pytest.mark.parametrize(
    "phrase", ["<img src=x onerror=alert(1)>", "two\nlines", "ein Ölgemälde 猫 🐈", 'a "quoted" \\ dog']
)
def test_any_words_stay_words(phrase):
    layout = read_canvas(json.dumps({"regions": [{"phrase": phrase, "box": [0, 0, 1, 1]}]}))
    assert layout.regions[0].phrase == layout.prompt == phrase
    assert read_canvas(json.dumps(layout.to_dict())) == layout
    assert write_bounding_boxes(layout)[0][0]["metadata"]["name"] == phrase
    assert draw_layout(layout).isfinite().all()
