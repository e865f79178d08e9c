"""Layouts from other programs and other nodes, and variations of layouts."""

import json
import math

import pytest
import torch
from stagecraft.core.layout.boxes import read_bounding_boxes
from stagecraft.core.layout.canvas import canvas_warnings, check_canvas, offered_layout, read_canvas
from stagecraft.core.layout.layer_stack import read_layers
from stagecraft.core.layout.layout import Layout, LayoutError, Region
from stagecraft.core.layout.masks import outer_box
from stagecraft.core.layout.other_programs import import_layout
from stagecraft.core.layout.preview import draw_layout, fit_picture
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.variations import MIRRORS, RegionEdit, edit_layout
from stagecraft.core.layout.writing import cover, reference_batch, write_bounding_boxes, write_elements, write_layers

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
}  # fmt: skip


ZEROS = {"size": [64, 64], "counts": "PP4"}  # nothing but outside


def test_coco():
    layout = import_layout(json.dumps(COCO))
    assert (layout.width, layout.height, layout.prompt) == (100, 50, "a dog before a cat")
    cat, dog = layout.sorted_regions()  # the larger lies behind
    assert (cat.phrase, cat.box, cat.mask) == ("cat", (0, 0, 1, 1), None)
    assert dog.box == outer_box((dog.mask >= 0.5).float()) == (0.1, 0.2, 0.3, 0.6)
    assert [r.phrase for r in import_layout(json.dumps(COCO), largest_behind=False).sorted_regions()] == ["dog", "cat"]
    assert all(region.mask is None for region in import_layout(json.dumps(COCO), masks=False).regions)
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
    "": "The JSON is empty",
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


def test_boxes_keep_what_their_metadata_say():
    rect = {"name": "a dog", "z_index": 4, "palette": ["#ff0000", "#00ff00"], "content_rect": [8, 0, 16, 32]}
    (box,) = read_bounding_boxes([[{"x": 0, "y": 32, "width": 64, "height": 32, "metadata": rect}]], 64, 64)
    assert box == {"box": (0.125, 0.5, 0.375, 1), "phrase": "a dog", "order": 4, "colour": "#ff0000"}
    turned = {"type": "obj", "bbox": [750, 750, 125, 250], "desc": "a cat", "color_palette": ["#0000ff"]}
    assert read_bounding_boxes([turned], 64, 64) == [
        {"box": (0.25, 0.125, 0.75, 0.75), "phrase": "a cat", "colour": "#0000ff"}
    ]
    assert read_bounding_boxes("", 64, 64) == read_bounding_boxes([], 64, 64) == read_bounding_boxes([[]], 64, 64) == []


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
    assert [layer["image"].shape[1:3] for layer in document["layers"]] == [
        (192, 2048), (86, 2048), (256, 2048), (128, 1024)
    ]  # fmt: skip
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
    layers = read_canvas(empty, None, stack())
    assert (layers.width, layers.height) == (64, 32) and layers.regions[0].phrase == "thing 1"
    assert offered_layout(None, [], 64, 64) is None
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


def test_identity_is_bit_for_bit():
    mask = torch.rand(16, 16)
    layout = Layout(64, 64, "", "", (Region("a dog", (0.1, 0.2, 0.3, 0.4), mask), Region("a cat", (0, 0, 1 / 3, 1))))
    assert edit_layout(layout, "", RegionEdit()) == layout


def test_boxes_and_masks_move_alike():
    box = (0.25, 0.125, 0.5, 0.375)
    mask = Region("a dog", box).mask_on(32, 32)
    for edit in (
        RegionEdit(right=0.25, down=-0.125),
        RegionEdit(right=0.75),
        RegionEdit(scale=2.0),
        RegionEdit(scale=0.5),
        *(RegionEdit(mirror=mirror, right=0.125) for mirror in MIRRORS),
    ):
        both = Layout(64, 64, "", "", (Region("a dog", box, mask),))
        if edit.right == 0.75:
            with pytest.raises(LayoutError, match="Nothing of the region"):
                edit_layout(both, "a dog", RegionEdit(right=0.76))
            edit = RegionEdit(right=0.625)
        (moved,) = edit_layout(both, "A DOG ", edit).regions
        assert torch.equal(moved.mask, Region("a dog", moved.box).mask_on(32, 32)), edit


def test_a_mirrored_mask_is_mirrored():
    mask = torch.zeros(32, 32)
    mask[4:12, 4:20] = torch.rand(8, 16).round()
    mask[4, 4] = mask[11, 19] = 1
    layout = Layout(64, 64, "", "", (Region("a dog", mask=mask),))
    (itself,) = edit_layout(layout, "1", RegionEdit(mirror=MIRRORS[1])).regions
    assert torch.equal(itself.mask[4:12, 4:20], mask[4:12, 4:20].flip(1)) and itself.mask.sum() == mask.sum()
    (canvas,) = edit_layout(layout, "1", RegionEdit(mirror=MIRRORS[4])).regions
    assert torch.equal(canvas.mask, mask.flip(0))


def test_restyling():
    layout = parse_layout("a dog: 0 0 1 1 | colour=red | strength=2\na cat: 0 0 1 1", prompt="A dog and a cat")
    edit = RegionEdit(nearer=3, stronger=0.5, phrase="a fox", prompt="a red fox", colour="none")
    fox, cat = edit_layout(layout, "a dog", edit).regions
    assert fox == Region("a fox", (0, 0, 1, 1), None, "a red fox", 1.0, 3, "")
    assert cat == layout.regions[1]
    assert edit_layout(layout, "a dog", edit).prompt == "a fox and a cat"
    with pytest.raises(LayoutError, match='no region "a dgo". Did you mean "a dog"'):
        edit_layout(layout, "a dgo", edit)
    for bad in (RegionEdit(scale=0), RegionEdit(mirror="both"), RegionEdit(colour="oragne")):
        with pytest.raises(LayoutError):
            edit_layout(layout, "", bad)


@pytest.mark.parametrize(
    ("phrases", "name", "prompt", "renamed"),
    [
        (["a cat"], "", "a cat and a caterpillar", "a dog and a caterpillar"),
        (["cat"], "", "concat, Cat-like cats: cat", "concat, a dog-like cats: a dog"),
        (["a cat", "a cat on a mat"], "", "a cat on a mat, a cat", "a dog, a dog"),
        (["a cat", "dog"], "", "a cat", "a dog"),  # the new name is not renamed again
        ([" a cat "], "1", "a cat sits", "a dog sits"),
        (["c++ (cat)"], "", "a c++ (cat).", "a a dog."),
        (["猫", "고양이"], "", "一只猫和고양이와", "一只a dog和a dog와"),  # written without spaces between words
    ],
)
def test_a_new_name_takes_the_place_of_whole_words(phrases, name, prompt, renamed):
    layout = Layout(64, 64, prompt, "", tuple(Region(phrase, (0, 0, 1, 1)) for phrase in phrases))
    assert edit_layout(layout, name, RegionEdit(phrase="a dog")).prompt == renamed


def test_layouts_in_front_of_each_other():
    far = parse_layout("a: 0 0 1 1 | order=5\nb: 0 0 1 1", width=64, height=64)
    near = parse_layout("c: 0 0 1 1\nd: 0 0 1 1 | order=-7", width=64, height=64)
    assert [region.phrase for region in near.in_front_of(far).sorted_regions()] == ["b", "a", "d", "c"]
    with pytest.raises(LayoutError, match="different canvases: 64 x 64 and 32 x 64"):
        parse_layout("c: 0 0 1 1", width=32, height=64).in_front_of(far)


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
