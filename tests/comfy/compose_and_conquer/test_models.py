"""The nodes that load CnC files and convert the published checkpoint."""

import os

import folder_paths
import pytest
import torch
from stagecraft.core.compose_and_conquer.comfy.files import CNC, load_cnc
from stagecraft.core.compose_and_conquer.files import CnCFileError
from stagecraft.core.compose_and_conquer.local_fuser import LocalFuser
from stagecraft.nodes.compose_and_conquer.models import StageCnCConvert, StageCnCLoader
from stagecraft.tests.comfy.compose_and_conquer.small_cnc import (
    CONFIG,
    CONTEXT,
    LOOKS,
)
from stagecraft.tests.comfy.model_folder import model_folder

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_the_loader_lists_and_opens_files(folder):
    (options,) = (each.options for each in StageCnCLoader.define_schema().inputs)
    assert {"both.safetensors", "looks.safetensors", "fresh.safetensors"} <= set(options)
    (loaded,) = StageCnCLoader.execute("both.safetensors").args
    assert loaded.config.context_dim == CONTEXT and loaded.global_fuser.config == LOOKS
    assert StageCnCLoader.validate_inputs("both.safetensors") is True and StageCnCLoader.validate_inputs(None) is True
    assert StageCnCLoader.validate_inputs("gone.safetensors").startswith(
        'there is no CnC file "gone.safetensors"; found:'
    )


def test_a_file_that_was_replaced_is_loaded_again(folder):
    before = StageCnCLoader.fingerprint_inputs("looks.safetensors")
    assert StageCnCLoader.fingerprint_inputs("looks.safetensors") == before != ()
    os.utime(folder / "looks.safetensors", ns=(1, 1))
    assert StageCnCLoader.fingerprint_inputs("looks.safetensors") != before
    assert StageCnCLoader.fingerprint_inputs(None) == StageCnCLoader.fingerprint_inputs("gone.safetensors") == ()


def test_the_converter_writes_what_the_loader_opens(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    with model_folder(CNC, tmp_path / CNC):
        local = LocalFuser(CONFIG)
        torch.save(
            {"state_dict": {f"local_adapter.{k}": v for k, v in local.state_dict().items()}}, folder / "one.ckpt"
        )
        torch.save({"local_adapter.feature_extractor.pre_extractor.0.weight": torch.ones(1)}, folder / "uni.ckpt")
        (options,) = (each.options for each in StageCnCConvert.define_schema().inputs)
        assert set(options) == {"one.ckpt", "uni.ckpt"}
        before = StageCnCConvert.fingerprint_inputs("one.ckpt")
        done = StageCnCConvert.execute("one.ckpt")
        after = StageCnCConvert.fingerprint_inputs("one.ckpt")
        assert before != after == StageCnCConvert.fingerprint_inputs("one.ckpt")
        assert done.args == ("one.safetensors",) and "local fuser (depth), 0.5 M weights" in done.ui["text"][0]
        assert load_cnc("one.safetensors").global_fuser is None
        with pytest.raises(CnCFileError, match="Uni-ControlNet"):
            StageCnCConvert.execute("uni.ckpt")
        assert [file.name for file in (tmp_path / CNC).iterdir()] == ["one.safetensors"]


def test_the_converter_replaces_no_file(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    with model_folder(CNC, tmp_path / CNC):
        weights = {f"local_adapter.{name}": each for name, each in LocalFuser(CONFIG).state_dict().items()}
        (folder / "run").mkdir()
        for name in ("one.ckpt", "one.pt", "run/one.ckpt"):
            torch.save(weights, folder / name)
        folder_paths.filename_list_cache.clear()
        written = [StageCnCConvert.execute(name).args[0] for name in ("one.ckpt", "one.pt", "run/one.ckpt")]
        assert len(set(written)) == 3
        contents = {name: (tmp_path / CNC / name).read_bytes() for name in written}
        assert "nothing was written" in StageCnCConvert.execute("one.ckpt").ui["text"][0]  # queued a second time
        torch.save(weights, folder / "run_one.ckpt")
        torch.save(weights, folder / "mine.ckpt")
        (tmp_path / CNC / "mine.safetensors").write_bytes(b"somebody's")
        os.utime(folder / "one.ckpt", (4e9, 4e9))
        folder_paths.filename_list_cache.clear()
        for name in ("run_one.ckpt", "mine.ckpt", "one.ckpt"):
            with pytest.raises(CnCFileError, match="already.*Rename or remove it"):
                StageCnCConvert.execute(name)
        assert {name: (tmp_path / CNC / name).read_bytes() for name in written} == contents
        assert (tmp_path / CNC / "mine.safetensors").read_bytes() == b"somebody's"
