"""Masks in a layout's JSON: exact, small, and no small text fills the memory."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.reading import layout_from_data, parse_layout
from stagecraft.core.layout.region import MOST_MASK_PIXELS, LayoutError, Region
from stagecraft.core.layout.run_length import decode_runs, encode_runs

SMALL_ENOUGH = 60_000  # characters of the text of a mask of 1024 x 1024 pixels


def slow_text(mask):
    """COCO's text of a mask, run by run and bit by bit, as its specification tells it."""
    runs, value, length = [], 0, 0
    for pixel in mask.T.flatten().tolist():
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    runs.append(length)
    text = ""
    for i, run in enumerate(runs):
        number = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            bits, number = number & 31, number >> 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(48 + bits + (32 if more else 0))
    return runs, text


@st.composite
def hard_masks(draw):
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    share = draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    return (torch.rand(height, width, generator=generator) < share).float()


def brushed(side, strokes, seed):
    """A mask as a hand paints it: thick strokes from place to place."""
    chance = random.Random(seed)
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    for _ in range(strokes):
        points = [(chance.uniform(0, side), chance.uniform(0, side)) for _ in range(4)]
        draw.line(points, fill=1, width=chance.randint(side // 64, side // 12), joint="curve")
    return torch.from_numpy(np.asarray(canvas, np.float32))


@given(hard_masks())
@settings(max_examples=80, deadline=None)
def test_runs_are_cocos_and_come_back_exactly(mask):
    runs, text = slow_text(mask)
    data = encode_runs(mask)
    assert data == {"size": list(mask.shape), "counts": text}
    assert torch.equal(decode_runs(data, 10_000), mask)
    assert torch.equal(decode_runs({"size": list(mask.shape), "counts": runs}, 10_000), mask)


def test_runs_are_written_as_cocos_own_programs_write_them():
    runs = [6, 1, 40, 4, 5, 4, 5, 4, 21]
    text = encode_runs(decode_runs({"size": [9, 10], "counts": runs}, 90))["counts"]
    assert text == "61X13mN000`0"


@pytest.mark.parametrize("strokes", [1, 5, 20])
def test_a_brushed_mask_is_a_short_text(strokes):
    mask = brushed(1024, strokes, strokes)
    text = json.dumps(Region("a dog", mask=mask).to_dict())
    assert len(text) < SMALL_ENOUGH
    assert torch.equal(Region.from_dict(json.loads(text)).mask, mask)


def test_hard_masks_are_runs_and_soft_ones_stay_exact():
    hard = Region("a dog", mask=torch.eye(16))
    soft = Region("a dog", mask=torch.eye(16) * 0.3)
    assert set(hard.to_dict()["mask"]) == {"size", "counts"}
    assert "float32_zlib_base64" in soft.to_dict()["mask"]
    for region in (hard, soft):
        assert Region.from_dict(json.loads(json.dumps(region.to_dict()))) == region


def test_several_polygons_are_one_mask():
    left, right = [0, 0, 0.25, 0, 0.25, 1, 0, 1], [0.75, 0, 1, 0, 1, 1, 0.75, 1]
    (region,) = parse_layout(
        json.dumps([{"phrase": "a fence", "mask": {"polygons": [left, right]}}]), width=16, height=16
    ).regions
    assert region.mask[:, :4].min() > 0.9 and region.mask[:, 12:].min() > 0.9 and region.mask[:, 5:11].max() == 0


def masked(mask):
    return json.dumps([{"phrase": "a dog", "mask": mask}])


BAD = {
    masked({"size": [4, 4], "counts": "!"}): "foreign characters",
    masked({"size": [4, 4], "counts": "ü"}): "foreign characters",
    masked({"size": [4, 4], "counts": ""}): "cut off",
    masked({"size": [4, 4], "counts": "P"}): "cut off",
    masked({"size": [4, 4], "counts": "oooooooooo"}): "cut off",
    masked({"size": [4, 4], "counts": "0"}): "do not fill 4 x 4",
    masked({"size": [4, 4], "counts": "OR1"}): "do not fill",
    masked({"size": [4, 4], "counts": [8, 9]}): "do not fill",
    masked({"size": [4, 4], "counts": [8, -8, 16]}): "whole numbers",
    masked({"size": [4, 4], "counts": [8.0, 8]}): "whole numbers",
    masked({"size": [4, 4], "counts": 16}): "whole numbers",
    masked({"size": [4, 4], "counts": [16]}): "empty mask",
    masked({"size": [4], "counts": [4]}): "not [height, width]",
    masked({"size": [4, True], "counts": [4]}): "not [height, width]",
    masked({"size": [16384, 16384], "counts": [0, 16384 * 16384]}): f"more than {MOST_MASK_PIXELS}",
    masked({"size": [10**400, 1], "counts": [1]}): "not [height, width]",
    masked({"height": 16384, "width": 16384, "float32_zlib_base64": ""}): "expected at most",
    masked({"size": [8, 16], "counts": [0, 128]}): "not the shape of the canvas",
    masked({"polygons": [[0, 0, 1]]}): "three or more corners",
    masked({"polygons": []}): "no area",
    masked({"polygons": 3}): "three or more corners",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: text[24:60])
def test_bad_masks_in_json_say_what_is_wrong(text):
    with pytest.raises(LayoutError) as caught:
        parse_layout(text, width=64, height=64)
    assert BAD[text] in str(caught.value)
    assert len(str(caught.value)) < 400


def test_many_large_masks_in_a_short_text_are_refused_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr("stagecraft.core.layout.reading.MOST_MASK_PIXELS", 4 * 32 * 32)
    region = {"phrase": "a dog", "mask": {"size": [32, 32], "counts": [0, 32 * 32]}}
    assert len(parse_layout(json.dumps([region] * 4), width=64, height=64).regions) == 4
    with pytest.raises(LayoutError, match="more than 4096 pixels together"):
        parse_layout(json.dumps([region] * 5), width=64, height=64)
    # Connected masks are in the memory already.
    assert len(parse_layout("\n".join("abcde"), width=64, height=64, masks=[torch.ones(32, 32)] * 5).regions) == 5


def test_what_belongs_to_the_editor_is_not_read():
    region = {"phrase": "a dog", "box": [0, 0, 1, 1], "editor": {"locked": True, "colour": 3}, "hidden": False}
    hidden = {"phrase": "", "box": "nonsense", "hidden": True}
    data = {"width": 64, "height": 64, "regions": [hidden, region], "editor": {"grid": 8}}
    layout = layout_from_data(data)
    assert layout == Layout(64, 64, "", "", (Region("a dog", (0, 0, 1, 1)),))
    assert "editor" not in json.dumps(layout.to_dict())
    with pytest.raises(LayoutError, match="All 1 regions of the layout are hidden"):
        layout_from_data(data | {"regions": [hidden]})
    with pytest.raises(LayoutError, match="expected true or false"):
        layout_from_data(data | {"regions": [region | {"hidden": 1}]})
    many = [hidden] * 200 + [region]
    assert len(layout_from_data(data | {"regions": many}).regions) == 1


def test_a_reference_picture_travels_with_its_region():
    layout = layout_from_data(
        {"width": 64, "height": 64, "regions": [{"phrase": "a dog", "box": [0, 0, 1, 1], "reference": "dogs/rex.png"}]}
    )
    assert layout.regions[0].reference == "dogs/rex.png"
    assert parse_layout(json.dumps(layout.to_dict())) == layout
    assert "reference" not in parse_layout("a dog: 0 0 1 1").to_dict()["regions"][0]
