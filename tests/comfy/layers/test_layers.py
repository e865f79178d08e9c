"""Composite, save and load layers as the graph runs them."""

import json
import os
import sys
from types import SimpleNamespace

import comfy.cli_args
import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image
from stagecraft.core.layers import comfy as comfy_layer_files
from stagecraft.core.layers.arrangement import ArrangementError, Shadow, arrange, read_arrangements
from stagecraft.core.layers.comfy import save_layers
from stagecraft.core.layers.files import read_layer_file
from stagecraft.core.layers.layered_image import LayeredImageError, from_layers, to_layers
from stagecraft.core.layers.stored import LayerFileError, in_8_bits
from stagecraft.nodes.layers.composite import HIDES, SHOWS, StageComposite
from stagecraft.nodes.layers.files import StageLoadLayers, StageSaveLayers
from stagecraft.sticker_world.world.layered_picture import FILE, SIDE, draw_picture

pytestmark = pytest.mark.usefixtures("no_gradients")
DEFAULTS = {
    "arrange": "",
    "shadow": 0.0,
    "shadow_right": 0.02,
    "shadow_down": 0.03,
    "shadow_blur": 0.015,
    "mask_means": SHOWS,
}
STEP = 1 / 255


@pytest.fixture(scope="module")
def drawn():
    return draw_picture()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Input and output folders of a test's own."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


def composite(**given):
    return StageComposite.execute(**{**DEFAULTS, **given}).args


def test_composite_hands_on_every_setting(drawn):
    (stack,) = to_layers(drawn)
    text = "dog | right=0.1 | scale=1.2\ntree | hidden"
    settings = {"arrange": text, "shadow": 0.4, "shadow_right": -0.05, "shadow_down": 0.1, "shadow_blur": 0.0}
    image, mask, layers, pictures, masks = composite(layers=stack, **settings)
    expected = arrange(from_layers(stack), read_arrangements(text), Shadow(0.4, -0.05, 0.1, 0.0))
    assert torch.equal(image, expected.composite()) and torch.equal(mask, expected.alpha())
    assert [item["name"] for item in layers[0]["layers"][1:]] == [layer.name for layer in expected.layers]
    assert torch.equal(masks, torch.cat([layer.alpha for layer in expected.layers]))
    assert torch.equal(pictures, torch.cat([layer.colour for layer in expected.layers]))
    torch.testing.assert_close(from_layers(layers[0]).composite(), image)


def test_pictures_with_masks_of_both_meanings(drawn):
    dog = drawn.layers[2]
    ground = drawn.background
    shown = composite(background=ground, picture_1=dog.colour, mask_1=dog.alpha)[0]
    hidden = composite(background=ground, picture_1=dog.colour, mask_1=1 - dog.alpha, mask_means=HIDES)[0]
    four = composite(background=ground, picture_4=dog.rgba())
    alpha = dog.alpha[..., None]
    expected = alpha * dog.colour + (1 - alpha) * ground
    for found in (shown, hidden, four[0]):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert four[2][0]["layers"][1]["name"] == "picture 4"


def test_another_background_and_a_batch(drawn):
    (stack,) = to_layers(drawn)
    grounds = torch.rand(2, SIDE, SIDE, 3)
    image, mask, layers, pictures, _ = composite(layers=stack, background=grounds)
    assert image.shape == (2, SIDE, SIDE, 3) and len(layers) == 2 and len(pictures) == 6
    outside = mask == 0
    assert torch.equal(image[outside], grounds[outside]) and outside.any()
    alone = composite(background=grounds)
    assert torch.equal(alone[0], grounds) and alone[1].max() == 0 and alone[4].max() == 0


def test_what_composite_refuses_before_the_run(drawn):
    assert StageComposite.validate_inputs("dog | scale=2", layers=None) is True
    assert StageComposite.validate_inputs(None, picture_2=None, mask_2=None) is True
    assert "Nothing is connected" in StageComposite.validate_inputs("")
    assert "mask_3 has no picture" in StageComposite.validate_inputs("", layers=None, mask_3=None)
    assert 'says "scal=2"' in StageComposite.validate_inputs("dog | scal=2", layers=None)
    with pytest.raises(ArrangementError, match='no layer "cat"'):
        composite(layers=to_layers(drawn)[0], arrange="cat | flip")


def test_layers_are_saved_under_comfyuis_numbers_and_open_again(drawn, folders):
    image = arrange(drawn, read_arrangements("dog | name=a dog/../x: *?"), Shadow(0.5))
    hidden = SimpleNamespace(prompt={"1": "p"}, extra_pnginfo={"workflow": {"nodes": [1]}})
    first = save_layers(image, "sets/three", [".psd", ".ora"], pngs=True, hidden=hidden)
    second = save_layers(image, "sets/three", [], pngs=False, hidden=hidden)
    assert first.subfolder == second.subfolder == "sets"
    assert first.pictures[0] == "three_00001_.png" and second.files == ("sets/three_00002_.png",)
    assert first.pictures[-1] == "three_00001_06_a_dog_x.png" and len(first.pictures) == 8
    saved = {path.relative_to(folders / "output").as_posix() for path in (folders / "output").rglob("*.*")}
    assert saved == {*first.files, *second.files}
    expected = image.composite()
    for file in first.files[:2]:
        found = read_layer_file(folders / "output" / file)
        assert [layer.name for layer in found.layers] == [layer.name for layer in image.layers]
        assert (found.composite() - in_8_bits(image).composite()).abs().max() < 1e-5
        assert (found.composite() - expected).abs().max() < STEP
    with Image.open(folders / "output" / "sets" / first.pictures[0]) as whole:
        shown = torch.from_numpy(np.asarray(whole, np.float32) / 255)
        assert (shown - in_8_bits(image).composite()[0]).abs().max() < 0.51 * STEP
        assert json.loads(whole.info["workflow"]) == {"nodes": [1]} and json.loads(whole.info["prompt"]) == {"1": "p"}


@pytest.mark.parametrize("prefix", ["a/x%batch_num%", "", "a/"])
def test_saving_twice_never_overwrites(drawn, folders, prefix):
    first, second = (save_layers(drawn, prefix, [".ora"], pngs=True).files for _ in range(2))
    assert not set(first) & set(second)
    assert len(list((folders / "output").rglob("*.ora"))) == 2


def test_links_that_lead_elsewhere_are_not_offered(drawn, folders):
    save_layers(drawn, "a", [".ora"], pngs=False)
    (folders / "elsewhere.ora").write_bytes((folders / "output" / "a_00001_.ora").read_bytes())
    (folders / "input" / "link.ora").symlink_to(folders / "elsewhere.ora")
    assert "link.ora" not in comfy_layer_files.layer_file_names()
    with pytest.raises(LayerFileError, match='no file "link.ora"'):
        comfy_layer_files.require_layer_file("link.ora")


def test_the_workflow_stays_out_where_comfyui_was_told_so(drawn, folders, monkeypatch):
    monkeypatch.setattr(comfy.cli_args.args, "disable_metadata", True)
    hidden = SimpleNamespace(prompt={}, extra_pnginfo={"workflow": {}})
    saved = save_layers(drawn, "a", [], pngs=False, hidden=hidden)
    with Image.open(folders / "output" / saved.files[0]) as whole:
        assert not whole.info


def test_files_go_nowhere_but_into_the_output_folder(drawn, folders):
    with pytest.raises(Exception, match="outside the output folder"):
        save_layers(drawn, "../elsewhere/a", [".ora"], pngs=False)
    assert not (folders / "elsewhere").exists()


def test_saving_and_loading_by_the_nodes(drawn, folders, monkeypatch):
    monkeypatch.setattr(StageSaveLayers, "hidden", None, raising=False)
    saved = StageSaveLayers.execute(to_layers(drawn)[0], "a", True, True, False)
    files = saved.args[0].splitlines()
    assert files == ["a_00001_.psd", "a_00001_.ora", "a_00001_.png"]
    assert saved.ui.as_dict()["images"] == [{"filename": "a_00001_.png", "subfolder": "", "type": "output"}]
    for file in files[:2]:
        (folders / "output" / file).rename(folders / "input" / file)
        assert file in StageLoadLayers.define_schema().inputs[0].options
        assert StageLoadLayers.validate_inputs(file) is True
        image, mask, layers, _, masks = StageLoadLayers.execute(file).args
        assert (image - drawn.composite()).abs().max() < STEP and len(masks) == 3
        assert [item["name"] for item in layers[0]["layers"]] == ["background", "house", "tree", "dog"]
    before = StageLoadLayers.fingerprint_inputs(files[0])
    path = folders / "input" / files[0]
    os.utime(path, ns=(1, 1))
    assert StageLoadLayers.fingerprint_inputs(files[0]) != before


@pytest.mark.parametrize("name", ["gone.psd", "../secret.ora", "/etc/passwd", "picture.png"])
def test_files_that_are_not_there_are_refused_before_the_run(folders, name):
    (folders / "input" / "picture.png").write_bytes(b"")
    (folders / "secret.ora").write_bytes(b"")
    assert f'no file "{name}" with layers' in StageLoadLayers.validate_inputs(name)
    assert StageLoadLayers.fingerprint_inputs(name) == ()
    with pytest.raises(LayerFileError):
        StageLoadLayers.execute(name)


def test_without_psd_tools_a_document_is_refused_before_the_run(monkeypatch):
    assert StageSaveLayers.validate_inputs(True) is True
    monkeypatch.setitem(sys.modules, "psd_tools", None)
    assert "pip install psd-tools" in StageSaveLayers.validate_inputs(True)
    assert StageSaveLayers.validate_inputs(False) is True


def test_the_shipped_picture_is_the_drawn_one(drawn):
    """To 2/255: Pillow's filters may round in another way in another version."""
    found = read_layer_file(FILE)
    assert [layer.name for layer in found.layers] == ["house", "tree", "dog"]
    assert (found.composite() - drawn.composite()).abs().max() < 2.5 * STEP


def test_other_blend_modes_are_refused(drawn):
    (stack,) = to_layers(drawn)
    stack["layers"][1]["blend_mode"] = "screen"
    with pytest.raises(LayeredImageError, match='layer "house" has the blend mode'):
        composite(layers=stack)
