"""ComfyUI's stacks of layers, read as regions and written from them."""

import json
import math

import pytest
import torch
from stagecraft.core.layout.boxes import read_bounding_boxes
from stagecraft.core.layout.layer_stack import read_layers
from stagecraft.core.layout.layout import Layout
from stagecraft.core.layout.masks import outer_box
from stagecraft.core.layout.region import LayoutError, Region
from stagecraft.core.layout.writing import cover, reference_batch, write_layers


def stack(**item):
    image = torch.zeros(1, 8, 16, 3)
    return {"version": 1, "canvas": (64, 32), "layers": [{"image": image, "type": "raster", "x": 8, "y": 4} | item]}


def test_layers_have_places():
    (region,) = read_layers(stack(name="a dog"), 512, 512)
    assert region == {"box": (0.125, 0.125, 0.375, 0.375), "order": 0, "phrase": "a dog"}
    (region,) = read_layers(stack(w=128, h=16), 512, 512)
    assert region["box"] == (0.125, 0.125, 1, 0.625)
    assert read_layers(stack(visible=False), 64, 64) == read_layers(stack(x=64), 64, 64) == []
    (region,) = read_layers(stack(rotation=math.pi / 2), 512, 512)
    assert region["box"] == pytest.approx((12 / 64, 0, 20 / 64, 0.5)) and "mask" not in region
    two = stack(name="a") | {"layers": [stack(name="a", z_index=2)["layers"][0], stack(name="b")["layers"][0]]}
    assert [region["phrase"] for region in read_layers(two, 64, 64)] == ["b", "a"]
    with pytest.raises(LayoutError, match="version 2"):
        read_layers(stack() | {"version": 2}, 64, 64)
    with pytest.raises(LayoutError, match="\"x\": 'left'"):
        read_layers(stack(x="left"), 64, 64)


def test_transparent_layers_are_masks():
    transparent = torch.zeros(1, 8, 16)
    transparent[..., :8] = 1
    (region,) = read_layers(stack(mask=transparent), 64, 32)
    assert region["mask"].shape == (32, 64) and outer_box(region["mask"]) == (16 / 64, 4 / 32, 24 / 64, 12 / 32)
    (region,) = read_layers(stack(mask=transparent, flip_h=True, opacity=0.5), 64, 32)
    assert outer_box(region["mask"]) == (8 / 64, 4 / 32, 16 / 64, 12 / 32) and region["mask"].max() == 0.5
    (region,) = read_layers(stack(image=torch.ones(1, 8, 16, 4) * torch.tensor([1, 1, 1, 0.25])), 64, 32)
    assert region["mask"].max() == 0.25
    (region,) = read_layers(stack(rotation=math.pi / 4), 64, 32)
    assert region["mask"].mean() * 64 * 32 == pytest.approx(8 * 16, rel=0.1)
    (region,) = read_layers(stack(mask=transparent, rotation=math.pi / 2), 64, 32)  # clockwise: right becomes bottom
    assert outer_box(region["mask"]) == (12 / 64, 8 / 32, 20 / 64, 16 / 32)
    assert read_layers(stack(mask=torch.ones(1, 8, 16)), 64, 32) == []


def test_layers_of_any_size_are_drawn_as_far_as_they_are_seen():
    far = {"x": -5e8, "y": 8, "w": 1e9, "h": 1e9, "opacity": 0.5}
    text = json.dumps({"boxes": [], "layers": [far]})  # without a picture, as text brings it
    (region,) = read_bounding_boxes(text, 64, 32)
    assert region["box"] == (0, 0.25, 1, 1)
    assert torch.equal(region["mask"], 0.5 * Region("all", (0, 0.25, 1, 1)).mask_on(32, 64))
    (region,) = read_layers(stack(rotation=math.pi / 4, w=1e6, h=1e6, x=-5e5, y=-5e5), 64, 32)
    assert torch.equal(region["mask"], torch.ones(32, 64))
    assert read_layers(stack(w=-16, h=8, opacity=0.5), 64, 32) == []
    for key in ("x", "w", "rotation"):
        with pytest.raises(LayoutError, match=f'"{key}": [0-9.]+; expected a number'):
            read_layers(stack(**{key: 10**400}), 64, 32)
    with pytest.raises(LayoutError, match="canvas of .* pixels; expected at most 16384"):
        read_layers(stack() | {"canvas": (10**400, 64)}, 64, 32)


def test_no_more_layers_than_regions():
    frames = torch.zeros(32, 1, 1, 3)
    two = stack(image=frames)["layers"] * 2
    assert len(read_layers(stack() | {"layers": two}, 64, 32)) == 64
    for layers in ([*two, {"x": 0, "w": 1, "h": 1}], [{"x": 0, "y": 0, "w": 64, "h": 32, "opacity": 0}] * 65):
        with pytest.raises(LayoutError, match="65 connected layers are visible; at most 64"):
            read_layers(stack() | {"layers": layers}, 64, 32)
    hidden = [{"visible": False}] * 100
    assert len(read_layers(stack() | {"layers": [*two, *hidden]}, 64, 32)) == 64


def test_written_layers_are_read_as_the_same_regions():
    mask = torch.zeros(32, 64)
    mask[8:24, 16:48] = torch.eye(16).repeat(1, 2)
    regions = (Region("a dog", (0, 0, 0.5, 1), order=2, reference="rex.png"), Region("a cat", mask=mask, colour="red"))
    layout = Layout(64, 32, "", "", regions)
    picture = torch.rand(10, 40, 4)
    document = write_layers(layout, {"rex.png": picture})
    assert document["version"] == 1 and document["canvas"] == (64, 32)
    cat, dog = document["layers"]
    assert cat["image"].shape == (1, 16, 32, 3) and cat["image"][0, 0, 0].tolist() == [1, 0, 0]
    assert torch.equal(cat["mask"], 1 - mask[None, 8:24, 16:48])
    assert torch.equal(dog["image"][0], cover(picture, 32, 32)) and "mask" not in dog
    far, near = read_layers(document, 1, 1)
    assert (far["phrase"], near["phrase"]) == ("a cat", "a dog")
    assert torch.equal(far["mask"], mask) and near["box"] == (0, 0, 0.5, 1)
    batch = reference_batch(layout, {"rex.png": picture})
    assert batch.shape == (2, 512, 512, 3) and batch[0, 0, 0].tolist() == [1, 0, 0]
    assert reference_batch(layout, {}).shape == (2, 64, 64, 3)


def test_layers_of_a_large_canvas_are_small_pictures():
    mask = torch.zeros(8, 64)
    mask[1:5, 16:48] = torch.rand(4, 32)
    regions = (
        Region("a sky", (0, 0, 1, 0.75), colour="blue"),
        Region("a dog", (0.25, 0.25, 1, 0.5), reference="rex.png"),
        Region("a cat", mask=mask),
        Region("a hat", (0, 0, 0.125, 0.125)),
    )
    document = write_layers(Layout(8192, 1024, "", "", regions), {"rex.png": torch.rand(20, 60, 4)})
    sizes = [(192, 2048), (86, 2048), (256, 2048), (128, 1024)]
    assert [layer["image"].shape[1:3] for layer in document["layers"]] == sizes
    sky, dog, cat, hat = read_layers(document, 1, 1)
    assert [region["box"] for region in (sky, dog, hat)] == [regions[i].box for i in (0, 1, 3)]
    assert cat["box"] == (0.25, 0.125, 0.75, 0.625) and cat["mask"].shape == (256, 2048)
    assert torch.allclose(Region("a cat", mask=cat["mask"]).mask_on(8, 64), mask, atol=0.03)


def test_a_thin_picture_covers_a_large_box():
    for width in (1_000_000, 1_000_001):  # scaled whole it would be larger than any memory
        picture = torch.rand(1, width, 3)
        seen = picture[:, width // 2 - 2 : (width + 1) // 2 + 2]
        assert torch.allclose(cover(picture, 512, 512), cover(seen, 512, 512), atol=1e-6)
    picture = torch.rand(20, 300, 3)
    whole = torch.nn.functional.interpolate(picture.movedim(2, 0)[None], scale_factor=2, mode="bilinear")[0]
    assert torch.allclose(cover(picture, 40, 50), whole.movedim(0, 2)[:, 275:325], atol=1e-6)
