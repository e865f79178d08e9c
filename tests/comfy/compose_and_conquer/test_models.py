"""The node that loads CnC files, the published checkpoint among them."""

import os

import folder_paths
import pytest
import torch
from stagecraft.core.compose_and_conquer.comfy.files import CNC, load_cnc
from stagecraft.core.compose_and_conquer.files import CnCFileError
from stagecraft.core.compose_and_conquer.local_fuser import LocalFuser
from stagecraft.nodes.compose_and_conquer.models import StageCnCLoader
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


def published(**more):
    return {f"local_adapter.{name}": each for name, each in LocalFuser(CONFIG).state_dict().items()} | more


def test_a_published_checkpoint_is_chosen_like_any_file(tmp_path):
    """The first load keeps the fusers beside it, the next one reads those."""
    with model_folder(CNC, tmp_path):
        torch.save({"state_dict": published(betas=torch.ones(9))}, tmp_path / "one.ckpt")
        (options,) = (each.options for each in StageCnCLoader.define_schema().inputs)
        assert "one.ckpt" in options and StageCnCLoader.validate_inputs("one.ckpt") is True
        before = StageCnCLoader.fingerprint_inputs("one.ckpt")
        first = StageCnCLoader.execute("one.ckpt").args[0]
        assert sorted(file.name for file in tmp_path.iterdir()) == ["one.ckpt", "one.safetensors"]
        assert StageCnCLoader.fingerprint_inputs("one.ckpt") == before != ()  # what is kept makes no second load
        folder_paths.filename_list_cache.clear()
        for name in ("one.ckpt", "one.safetensors"):
            again = load_cnc(name)
            assert again.config == first.config and again.global_fuser is None
            weights = first.local.model.state_dict()
            assert all(torch.equal(weights[key], each) for key, each in again.local.model.state_dict().items())


def test_a_checkpoint_that_is_none_is_a_sentence(tmp_path):
    with model_folder(CNC, tmp_path):
        torch.save(published(), tmp_path / "cut.ckpt")
        (tmp_path / "cut.ckpt").write_bytes((tmp_path / "cut.ckpt").read_bytes()[:-1000])
        torch.save({"betas": torch.ones(9)}, tmp_path / "other.ckpt")
        torch.save({"local_adapter.feature_extractor.pre_extractor.0.weight": torch.ones(1)}, tmp_path / "uni.ckpt")
        folder_paths.filename_list_cache.clear()
        for name, match in (
            ("cut.ckpt", "cannot be read"),
            ("other.ckpt", "holds no CnC fuser"),
            ("uni.ckpt", "Uni-ControlNet"),
        ):
            with pytest.raises(CnCFileError, match=match):
                StageCnCLoader.execute(name)
        assert {file.suffix for file in tmp_path.iterdir()} == {".ckpt"}
