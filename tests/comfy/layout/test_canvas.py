"""The layout canvas and the nodes around it, as ComfyUI calls them."""

import json
import os
import zlib

import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image
from stagecraft.core.comfy.pictures import load_references
from stagecraft.core.layout.reading import parse_layout
from stagecraft.core.layout.region import LayoutError
from stagecraft.nodes.layout.canvas import EXAMPLE, StageLayoutCanvas
from stagecraft.nodes.layout.edit import StageLayoutEdit

DOG = {"phrase": "a dog", "box": [0, 0, 0.5, 1], "colour": "red"}
CAT = {"phrase": "a cat", "box": [0.5, 0, 1, 1], "reference": "pets/cat.png"}


def drawing(*regions, **canvas):
    return json.dumps({"width": 64, "height": 64, "regions": regions} | canvas)


@pytest.fixture
def folders(tmp_path):
    """ComfyUI's input folder with one picture, and an empty temporary one."""
    before = folder_paths.get_input_directory(), folder_paths.get_temp_directory()
    (tmp_path / "input" / "pets").mkdir(parents=True)
    (tmp_path / "temp").mkdir()
    (tmp_path / "secret.png").write_bytes(b"")
    Image.new("RGBA", (40, 20), (0, 255, 0, 0)).save(tmp_path / "input" / "pets" / "cat.png")
    folder_paths.set_input_directory(str(tmp_path / "input"))
    folder_paths.set_temp_directory(str(tmp_path / "temp"))
    yield tmp_path
    folder_paths.set_input_directory(before[0])
    folder_paths.set_temp_directory(before[1])


def run(text, **inputs):
    """The outputs by name, and what is sent to the editor."""
    output = StageLayoutCanvas.execute(text, **inputs)
    names = [each.display_name for each in StageLayoutCanvas.GET_SCHEMA().outputs]
    return dict(zip(names, output.args, strict=True)), output.ui


def test_official_types_are_spoken_by_name():
    schema = StageLayoutCanvas.GET_SCHEMA()
    types = {each.id: each.get_io_type() for each in schema.inputs}
    assert types["boxes"] == "BOUNDING_BOX,BOUNDING_BOXES,ARRAY,LAYERS,STRING,MASK,SEGS,BBOX"
    assert types["start"] == "STAGE_LAYOUT"
    outputs = {each.display_name: each.get_io_type() for each in schema.outputs}
    assert [outputs[name] for name in ("boxes", "elements", "layers")] == ["BOUNDING_BOX", "ARRAY", "LAYERS"]
    assert StageLayoutCanvas.validate_inputs(EXAMPLE) is True


def test_every_output_shows_the_same_layout(folders):
    outputs, sent = run(drawing(DOG, CAT, prompt="a dog and a cat", background="on grass"))
    layout = outputs["layout"]
    assert (outputs["prompt"], outputs["width"], outputs["height"]) == ("a dog and a cat", 64, 64)
    assert torch.equal(outputs["masks"], layout.visible_masks(64, 64)[1:])
    assert [box["metadata"]["name"] for box in outputs["boxes"][0]] == ["a dog", "a cat"]
    assert [element["bbox"] for element in outputs["elements"]] == [[0, 0, 1000, 500], [0, 500, 1000, 1000]]
    assert [layer["name"] for layer in outputs["layers"]["layers"]] == ["a dog", "a cat"]
    assert outputs["preview"].shape == (1, 512, 512, 3)
    dog, cat = outputs["references"]
    assert dog.mean((0, 1)).tolist() == [1, 0, 0] and cat.mean((0, 1)).tolist() == [1, 1, 1]  # transparent on white
    assert outputs["layers"]["layers"][1]["image"].shape == (1, 64, 32, 4)
    text = drawing(DOG, CAT, prompt="a dog and a cat", background="on grass")
    ran = {"text": zlib.crc32(text.encode()), "layout": layout.fingerprint()}
    assert sent == {"stage_warnings": [], "stage_ran": [ran]}


def test_the_editor_hears_what_is_connected(folders):
    image = torch.rand(2, 32, 48, 3)
    start = parse_layout("a tree: 0 0 1 1", width=96, height=96)
    outputs, sent = run(drawing(), image=image, start=start, boxes=[[{"x": 8, "y": 8, "width": 8, "height": 8}]])
    assert [region.phrase for region in outputs["layout"].sorted_regions()] == ["a tree", "thing 1"]
    assert json.loads(sent["stage_start"][0]) == outputs["layout"].to_dict()
    assert outputs["preview"].shape == (2, 576, 576, 3)
    (picture,) = sent["stage_image"]
    shown = Image.open(folders / "temp" / picture["subfolder"] / picture["filename"])
    expected = (image[0] * 255).byte().numpy()
    assert picture["type"] == "temp" and np.array_equal(np.asarray(shown), expected)
    assert any("not the shape of the canvas (96 x 96)" in warning for warning in sent["stage_warnings"])
    drawn, sent = run(drawing(DOG), start=start, boxes=[])
    assert drawn["layout"].regions[0].phrase == "a dog" and json.loads(sent["stage_start"][0]) == start.to_dict()
    assert run(drawing(DOG), boxes=[])[1]["stage_start"] == []


def test_reference_pictures_stay_in_the_input_folder(folders):
    assert StageLayoutCanvas.validate_inputs(drawing(DOG, CAT)) is True
    for name in ("nothing.png", "../secret.png", "pets", str(folders / "secret.png")):
        message = StageLayoutCanvas.validate_inputs(drawing(DOG, CAT | {"reference": name}))
        assert "not in ComfyUI's input folder" in message and '"a cat"' in message
        with pytest.raises(LayoutError, match="input folder"):
            run(drawing(CAT | {"reference": name}))
    assert "not in ComfyUI's input folder" in StageLayoutCanvas.validate_inputs(
        drawing(CAT | {"reference": "long" * 100})
    )
    (folders / "input" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(LayoutError, match="cannot be opened"):
        run(drawing(CAT | {"reference": "broken.png"}))
    before = StageLayoutCanvas.fingerprint_inputs(layout=drawing(CAT))
    (folders / "input" / "pets" / "cat.png").write_bytes(b"changed")
    os.utime(folders / "input" / "pets" / "cat.png", ns=(1, 1))
    assert StageLayoutCanvas.fingerprint_inputs(layout=drawing(CAT)) != before
    assert StageLayoutCanvas.fingerprint_inputs(layout="{") == ()


@pytest.mark.skipif(os.name == "nt", reason="such files cannot be there")
@pytest.mark.parametrize("name", [r"\\evil\share\x.png", "C:x.png", r"\x.png", r"pets\..\x.png"])
def test_names_that_lead_elsewhere_on_any_system_never_reach_the_disk(folders, name):
    # The file is there, so only a look at the name itself refuses it.
    (folders / "input" / name).write_bytes(b"")
    assert "not in ComfyUI's input folder" in StageLayoutCanvas.validate_inputs(drawing(CAT | {"reference": name}))


def test_reference_pictures_are_kept_no_finer_than_layers(folders):
    Image.new("RGB", (4096, 64), "red").save(folders / "input" / "wide.png")
    pictures = load_references(parse_layout(drawing(CAT, CAT | {"reference": "wide.png"})))
    shapes = {"pets/cat.png": (20, 40, 4), "wide.png": (32, 2048, 4)}
    assert {name: picture.shape for name, picture in pictures.items()} == shapes
    assert (pictures["wide.png"] == torch.tensor([1.0, 0, 0, 1])).all()


def test_refused_early_only_where_everything_is_known():
    check = StageLayoutCanvas.validate_inputs
    assert check(None) is True
    assert "The layout is empty" in check(drawing())
    assert check(drawing(), start=None) is True and check(drawing(), boxes=None) is True
    assert "leaves the canvas" in check(drawing({"phrase": "a dog", "box": [0, 0, 2, 1]}), boxes=None)
    assert "neither a box nor a mask" in check(drawing({"phrase": "a dog"}))
    assert check(drawing({"phrase": "a dog"}), boxes=None) is True
    assert "200 regions; at most 64" in check(drawing(*[DOG] * 200))
    assert "expected whole pixels from 16 to 16384" in check(drawing(DOG, width=1, height=1))


def test_a_batch_of_layouts_is_edited_one_by_one():
    layouts = tuple(parse_layout(f"a dog: 0 0 {x} 1", width=64, height=64) for x in (0.25, 0.5))
    stay = {"right": 0.0, "down": 0.0, "scale": 1.0, "mirror": "no", "nearer": 0, "stronger": 1.0}
    words = {"phrase": "", "prompt": "", "colour": ""}
    assert StageLayoutEdit.execute(layouts, "", **stay, **words).args[0] == layouts
    (moved,) = StageLayoutEdit.execute(layouts[0], "a dog", **stay | {"right": 0.5}, **words).args
    assert moved.regions[0].box == (0.5, 0, 0.75, 1)
