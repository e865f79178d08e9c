"""Names of layered files, as Save Image and Load Image take them."""

import re
from datetime import datetime

import folder_paths
import pytest
import torch
from stagecraft.core.layers.comfy import layer_file_names, require_layer_file, save_layers, with_date
from stagecraft.core.layers.layered_image import Layer, LayeredImage
from stagecraft.core.layers.stored import LayerFileError
from stagecraft.nodes.layers.files import StageLoadLayers
from stagecraft.tests.comfy.layers.test_layers import folders

__all__ = ["folders"]
NOW = datetime(2026, 3, 9, 7, 5, 4)  # noqa: DTZ001 - a clock on the wall
SMALL = LayeredImage(torch.rand(1, 8, 8, 3), [Layer(torch.rand(1, 8, 8, 3), torch.ones(1, 8, 8), "dog")])


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("%date:yyyy-MM-dd%", "2026-03-09"),
        ("a/%date:yy.M.d%/%date:hh-mm-ss%_h-m-s_%date:h-m-s%", "a/26.3.9/07-05-04_h-m-s_7-5-4"),
        ("%date:yyyyMMdd%%width%", "20260309%width%"),
        ("date:yyyy", "date:yyyy"),
    ],
)
def test_dates_are_filled_in(prefix, expected):
    assert with_date(prefix, NOW) == expected


def test_layers_are_saved_under_the_date(folders):
    saved = save_layers(SMALL, "%date:yyyy-MM-dd%/x", [".ora"], pngs=False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", saved.subfolder)
    name = f"{saved.subfolder}/x_00001_.ora"
    assert saved.files[0] == name and (folders / "output" / name).is_file()


def test_a_file_of_another_folder_is_named_as_in_load_image(folders, monkeypatch):
    name = save_layers(SMALL, "sub/x", [".ora"], pngs=False).files[0]
    assert require_layer_file(f"{name} [output]") == (folders / "output" / name).resolve()
    assert StageLoadLayers.validate_inputs(f"{name} [output]") is True
    assert StageLoadLayers.fingerprint_inputs(f"{name} [output]")
    assert StageLoadLayers.execute(f"{name} [output]").args
    (folders / "output" / "outside.ora").symlink_to(__file__)
    for wrong in (name, f"{name} [input]", f"{name} [temp]", f"../output/{name} [output]", "outside.ora [output]"):
        with pytest.raises(LayerFileError):
            require_layer_file(wrong)
    for wrong in ("a\0.ora", "x" * 300 + ".ora", "a\0.ora [output]"):
        assert "There is no file" in StageLoadLayers.validate_inputs(wrong)
    monkeypatch.setattr(folder_paths, "input_directory", str(folders / "gone"))
    assert isinstance(layer_file_names(), list)


@pytest.mark.parametrize("prefix", ["../elsewhere", "a\0b", "x" * 300, "/" + "y" * 300 + "/z"])
def test_a_name_that_no_disk_has_is_a_sentence(folders, prefix):
    with pytest.raises(ValueError) as error:
        save_layers(SMALL, prefix, [".ora"], pngs=True)
    assert type(error.value).__module__.startswith("stagecraft") and str(error.value).endswith(".")
    assert not [path for path in folders.rglob("*") if path.is_file()]
