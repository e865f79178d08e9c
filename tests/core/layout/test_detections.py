"""What detectors and segmenters of other packs find, read into layouts."""

import json
from collections import namedtuple

import numpy as np
import pytest
import torch
from stagecraft.core.layout.boxes import canvas_of_boxes, read_bounding_boxes
from stagecraft.core.layout.canvas import offered_layout, read_canvas
from stagecraft.core.layout.region import LayoutError

# The shape in which detectors of several packs hand on a segment; no code of theirs.
SEG = namedtuple("SEG", "cropped_image cropped_mask confidence crop_region bbox label control_net_wrapper")
EMPTY = json.dumps({"width": 64, "height": 64, "regions": []})


def seg(mask, crop, label="cat", box=None):
    return SEG(None, mask, 0.9, crop, box, label, None)


def disc(height, width, softness=0.0):
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    distance = (x**2 + y**2).sqrt()
    return ((1 - distance) / softness).clamp(0, 1) if softness else (distance <= 1).float()


def test_masks_become_regions_and_rectangles_become_boxes():
    masks = torch.zeros(4, 40, 60)
    masks[0, 10:20, 30:60] = 1
    masks[1, 5:35, 10:50] = disc(30, 40)
    masks[3, :30, :40] = disc(30, 40, 0.5)
    box, hard, soft = read_bounding_boxes(masks, 64, 64)
    assert box == {"box": (0.5, 0.25, 1, 0.5)}
    assert hard.keys() == soft.keys() == {"mask"}
    assert torch.equal(hard["mask"], masks[1]) and torch.equal(soft["mask"], masks[3])
    assert read_bounding_boxes(masks[:, None], 64, 64)[0] == box
    assert read_bounding_boxes(masks[0], 64, 64) == [box] and read_bounding_boxes(masks[0] > 0, 64, 64) == [box]
    layout = read_canvas(EMPTY, boxes=masks)
    assert (layout.width, layout.height) == (60, 40), "another shape than the canvas has"
    assert [each.phrase for each in layout.sorted_regions()] == ["thing 1", "thing 2", "thing 3"]
    assert torch.equal(layout.regions[2].mask, masks[3]), "soft stays soft"
    assert read_canvas(EMPTY, boxes=torch.ones(1, 8, 8)).width == 64, "the same shape, so the canvas keeps its size"
    assert offered_layout(None, torch.zeros(2, 8, 8), (64, 64)) is None
    waiting = json.dumps({"width": 60, "height": 40, "regions": [{"phrase": "a dog"}, {"phrase": "a cat"}]})
    filled = read_canvas(waiting, boxes=masks[:2])
    assert filled.regions[0].box == (0.5, 0.25, 1, 0.5) and torch.equal(filled.regions[1].mask, masks[1])


def test_large_masks_are_kept_no_finer_than_layers():
    mask = torch.zeros(1, 3000, 6000)
    mask[0, :1500, :3000] = disc(1500, 3000)
    (read,) = read_bounding_boxes(mask, 64, 64)
    assert read["mask"].shape == (1000, 2000)
    assert offered_layout(None, mask, (64, 64)).width == 6000


def test_segs_become_named_regions_with_the_larger_behind():
    small, large = disc(20, 20).numpy(), disc(60, 80, 0.5).numpy()
    found = (
        (100, 200),
        [
            seg(small, (0, 0, 20, 20), "cat"),
            seg(large, [100, 30, 180, 90], " a  dog "),
            seg(np.ones((10, 10), np.float32), (190, 90, 200, 100), None),
            seg(None, (0, 50, 40, 90), "ball", (10, 60, 30, 80)),
            seg(np.zeros((5, 5), np.float32), (0, 0, 5, 5)),
        ],
    )
    cat, dog, plain, ball = read_bounding_boxes(found, 64, 64)
    assert (cat["phrase"], dog["phrase"], ball["phrase"]) == ("cat", "a dog", "ball") and "phrase" not in plain
    assert [each["order"] for each in (dog, ball, cat, plain)] == [0, 1, 2, 3]
    assert torch.equal(dog["mask"][30:90, 100:180], torch.from_numpy(large)) and dog["mask"].shape == (100, 200)
    assert plain["box"] == (0.95, 0.9, 1, 1) and ball["box"] == (0.05, 0.6, 0.15, 0.8)
    layout = read_canvas(EMPTY, boxes=found)
    assert (layout.width, layout.height) == (200, 100)
    assert [each.phrase for each in layout.sorted_regions()] == ["a dog", "ball", "cat", "thing 3"]
    assert canvas_of_boxes(found, 400, 200) == (400, 200)
    assert read_bounding_boxes(((8, 8), []), 64, 64) == []
    beyond = ((10, 10), [seg(np.ones((4, 4), np.uint8) * 255, (-2, -2, 2, 2)), seg(np.ones((2, 2)), (20, 20, 22, 22))])
    assert [each["box"] for each in read_bounding_boxes(beyond, 64, 64)] == [(0, 0, 0.2, 0.2)]
    assert read_bounding_boxes(((8, 8), [seg(torch.ones(1, 2, 2), (0, 0, 4, 8))]), 8, 8)[0]["box"] == (0, 0, 0.5, 1)


@pytest.mark.parametrize(
    "boxes",
    [
        [16, 8, 32, 64],
        [[16, 8, 32, 64]],
        [[[16, 8, 32, 64]]],
        [np.array([16, 8, 32, 64])],
        np.array([[16, 8, 32, 64]]),
        torch.tensor([[16.0, 8, 32, 64]]),
        [0.25, 0.125, 0.5, 1],
        {"boxes": [[16, 8, 32, 64]], "scores": [0.5]},
        "[[16, 8, 32, 64]]",
    ],
    ids=str,
)
def test_bare_numbers_are_corners(boxes):
    assert read_bounding_boxes(boxes, 64, 64) == [{"box": (0.25, 0.125, 0.5, 1)}]


def test_labels_beside_the_boxes_name_them():
    for boxes in ({"boxes": [[0, 0, 8, 8]], "labels": ["cat"]}, {"boxes": [[[0, 0, 8, 8]]], "labels": [["cat"]]}):
        assert read_bounding_boxes(boxes, 64, 64) == [{"phrase": "cat", "box": (0, 0, 0.125, 0.125)}]
    detected = [[{"x": 0.0, "y": 0.0, "width": 32.0, "height": 64.0, "label": "dog", "score": 0.9}]]
    assert read_bounding_boxes(detected, 64, 64) == [{"phrase": "dog", "box": (0, 0, 0.5, 1)}]


def test_boxes_of_a_detector_count_on_the_picture_that_is_connected():
    found = [[{"x": 300, "y": 0, "width": 300, "height": 400, "label": "dog"}]]
    with pytest.raises(LayoutError, match="size of the picture that it was found in"):
        read_canvas(EMPTY, boxes=found)
    layout = read_canvas(EMPTY, boxes=found, picture=(600, 400))
    assert (layout.width, layout.height, layout.regions[0].box) == (600, 400, (0.5, 0, 1, 1))
    drawn = json.dumps({"width": 64, "height": 64, "regions": [{"phrase": "a", "box": [0, 0, 1, 1]}]})
    assert read_canvas(drawn, boxes=found, picture=(600, 400)).width == 64


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        (torch.ones(1, 8, 8, 3), r"shape \(1, 8, 8, 3\); expected masks.*Convert Image to Mask"),
        (torch.full((1, 8, 8), torch.nan), "not finite"),
        (torch.full((1, 8, 8), 3.0), "from 3 to 3; expected 0 outside"),
        (torch.ones(65, 8, 8), "65 masks are connected to boxes; at most 64.*threshold"),
        (((8, 8), [seg(None, (0, 0, 4, 4))] * 65), "65 segments.*threshold"),
        (((0, 8), []), "picture of 8 x 0 pixels"),
        (((8, 8), [seg(None, (4, 0, 4, 4))]), "Segment 1.*crop_region"),
        (((8, 8), [seg(None, "here")]), "Segment 1.*crop_region 'here'"),
        (((8, 8), [seg(np.ones((3, 4, 4)), (0, 0, 4, 4))]), r"shape \(3, 4, 4\).*not those of a video"),
        (((8, 8), [seg(np.ones((4, 4)) * 9, (0, 0, 4, 4))]), "beyond 0 to 1"),
        (((8, 8), [seg(np.ones((4, 4)), (0, 0, 10**5, 10**5))]), "crop of 100000 x 100000"),
        ([[30, 40, 10, 20]], "left, top, right and bottom.*x, y, width and height"),
        ([[[0, 0, 1, 1]], [[0, 0, 1, 1]]], "2 frames.*Detect in one picture"),
        ([[0, 0, 100, 100]], "leaves the canvas of 64 x 64"),
        (3.5, "The connected boxes are 3.5"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(boxes, reason):
    with pytest.raises(LayoutError, match=f"(?s){reason}"):
        read_canvas(EMPTY, boxes=boxes)
