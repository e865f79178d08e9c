"""The nodes that load TCIG's models and convert the published checkpoints."""

import os
import shutil

import folder_paths
import pytest
import torch
from stagecraft.core.tcig.comfy import models as comfy_vqgan
from stagecraft.core.tcig.vqgan import VQGANFileError
from stagecraft.nodes.tcig.models import StageCLIPLoader, StageVQGANConvert, StageVQGANLoader
from stagecraft.tests.core.tcig.small_taming import taming_weights


def test_loaders_find_folders_and_files_and_load_again_what_was_replaced(folder, models):
    assert StageVQGANLoader.validate_inputs("small") is True and StageVQGANLoader.validate_inputs(None) is True
    assert 'no VQGAN "gone"; found: small' in StageVQGANLoader.validate_inputs("gone")
    assert 'no CLIP folder "gone"' in StageCLIPLoader.validate_inputs("gone")
    assert StageCLIPLoader.validate_inputs("sticker_world") is True
    assert StageVQGANLoader.execute("small").args[0] is StageVQGANLoader.execute("small").args[0]
    copy = folder / "pipeline" / "vqvae"
    shutil.copytree(folder / "small", copy)
    (folder / "pipeline" / "unet").mkdir()
    (folder / "pipeline" / "unet" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    (folder / "loose.safetensors").write_bytes(b"nothing")
    try:
        assert comfy_vqgan.VQGAN_FILES.names() == ["loose.safetensors", "pipeline/vqvae", "small"]
        first, version = StageVQGANLoader.execute("pipeline/vqvae").args[0], StageVQGANLoader.fingerprint_inputs
        before = version("pipeline/vqvae")
        (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
        assert version("pipeline/vqvae") != before
        assert StageVQGANLoader.execute("pipeline/vqvae").args[0] is not first
        with pytest.raises(VQGANFileError, match="cannot be read as safetensors"):
            StageVQGANLoader.execute("loose.safetensors")
    finally:
        shutil.rmtree(folder / "pipeline")
        (folder / "loose.safetensors").unlink()
    assert StageVQGANLoader.fingerprint_inputs("gone") == () == StageCLIPLoader.fingerprint_inputs("gone")


def test_without_any_vqgan_the_drop_downs_and_the_refusal_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, comfy_vqgan.VQGANS, ([str(tmp_path)], set()))
    for node in (StageVQGANLoader, StageVQGANConvert):
        (choice,) = node.define_schema().inputs
        assert choice.options == ["none in models/vqgan"]
    assert "found: none. Put a folder" in StageVQGANLoader.validate_inputs("none in models/vqgan")
    with pytest.raises(VQGANFileError, match="found: none. Put it into"):
        StageVQGANConvert.execute("none in models/vqgan")


def test_a_checkpoint_is_converted_by_its_node(folder):
    (folder / "web.ckpt").write_bytes(b"<html>")
    torch.save({"state_dict": {"other": torch.zeros(1)}}, folder / "other.ckpt")
    torch.save({"state_dict": taming_weights()}, folder / "published.ckpt")
    try:
        assert comfy_vqgan.CHECKPOINTS.names() == ["other.ckpt", "published.ckpt", "web.ckpt"]
        with pytest.raises(VQGANFileError, match="no checkpoint|cannot be read"):
            StageVQGANConvert.execute("web.ckpt")
        with pytest.raises(VQGANFileError, match="has no code-book"):
            StageVQGANConvert.execute("other.ckpt")
        with pytest.raises(ValueError, match="'gone.ckpt'; expected one of these choices: other.ckpt, published.ckpt"):
            StageVQGANConvert.execute("gone.ckpt")
        before = StageVQGANConvert.fingerprint_inputs("published.ckpt")
        found = StageVQGANConvert.execute("published.ckpt")
        assert found.args == ("published",) and "M weights" in found.ui["text"][0]
        after = StageVQGANConvert.fingerprint_inputs("published.ckpt")
        assert before != after and after == StageVQGANConvert.fingerprint_inputs("published.ckpt")
        again = StageVQGANConvert.execute("published.ckpt")  # as when it is queued a second time
        assert again.args == ("published",) and "nothing was written" in again.ui["text"][0]
        os.utime(folder / "published.ckpt", (4e9, 4e9))
        assert StageVQGANConvert.fingerprint_inputs("published.ckpt") != after  # replaced, so it is looked at again
        with pytest.raises(VQGANFileError, match="Rename or remove it"):
            StageVQGANConvert.execute("published.ckpt")
        assert StageVQGANLoader.execute("published").args[0].factor == 2
    finally:
        shutil.rmtree(folder / "published", ignore_errors=True)
        for name in ("web.ckpt", "other.ckpt", "published.ckpt"):
            (folder / name).unlink()


def test_checkpoints_of_one_name_in_different_folders_become_different_folders(folder):
    """Training logs call every checkpoint "last"."""
    for name in ("imagenet", "wikiart"):
        (folder / name).mkdir()
        torch.save({"state_dict": taming_weights()}, folder / name / "last.ckpt")
    try:
        found = [StageVQGANConvert.execute(f"{name}/last.ckpt").args[0] for name in ("imagenet", "wikiart")]
        assert found == ["imagenet_last", "wikiart_last"]
        assert all((folder / name / "config.json").is_file() for name in found)
    finally:
        for name in ("imagenet", "wikiart", "imagenet_last", "wikiart_last"):
            shutil.rmtree(folder / name, ignore_errors=True)
