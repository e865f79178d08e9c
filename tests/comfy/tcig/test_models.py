"""The nodes that load TCIG's models, published checkpoints among them."""

import os
import shutil

import folder_paths
import pytest
import torch
from stagecraft.core.tcig.comfy import models as comfy_vqgan
from stagecraft.core.tcig.vqgan import VQGANFileError
from stagecraft.nodes.clip.folder import StageCLIPLoader
from stagecraft.nodes.tcig.models import StageVQGANLoader
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


def test_without_any_vqgan_the_drop_down_and_the_refusal_say_so(tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, comfy_vqgan.VQGANS, ([str(tmp_path)], set()))
    (choice,) = StageVQGANLoader.define_schema().inputs
    assert choice.options == ["none in models/vqgan"]
    assert "found: none. Put a folder" in StageVQGANLoader.validate_inputs("none in models/vqgan")


def test_a_published_checkpoint_is_chosen_like_any_file(tmp_path, monkeypatch):
    """Training logs call every checkpoint "last"; the first load keeps its weights beside it."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, comfy_vqgan.VQGANS, ([str(tmp_path)], set()))
    (tmp_path / "web.ckpt").write_bytes(b"<html>")
    torch.save({"state_dict": {"other": torch.zeros(1)}}, tmp_path / "other.ckpt")
    torch.save({"state_dict": taming_weights()}, tmp_path / "whole.CKPT")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "whole.CKPT").read_bytes()[:-1000])
    for name in ("imagenet", "wikiart"):
        (tmp_path / name).mkdir()
        torch.save({"state_dict": taming_weights()}, tmp_path / name / "last.ckpt")
    (tmp_path / "small").mkdir()  # pickled weights within a folder of diffusers' layout are no files by themselves
    (tmp_path / "small" / "config.json").write_text('{"_class_name": "VQModel"}')
    (tmp_path / "small" / "diffusion_pytorch_model.bin").write_bytes(b"")
    named = ["cut.ckpt", "imagenet/last.ckpt", "other.ckpt", "small", "web.ckpt", "whole.CKPT", "wikiart/last.ckpt"]
    assert comfy_vqgan.VQGAN_FILES.names() == named
    for name, match in (
        ("web.ckpt", "no checkpoint|cannot be read"),
        ("cut.ckpt", "cannot be read"),
        ("other.ckpt", "has no code-book"),
    ):
        assert StageVQGANLoader.validate_inputs(name) is True
        with pytest.raises(VQGANFileError, match=match):
            StageVQGANLoader.execute(name)
    assert comfy_vqgan.VQGAN_FILES.names() == named
    name = "imagenet/last.ckpt"
    before = StageVQGANLoader.fingerprint_inputs(name)
    first = StageVQGANLoader.execute(name).args[0]
    assert first.factor == 2 and StageVQGANLoader.execute(name).args[0] is first
    assert StageVQGANLoader.fingerprint_inputs(name) == before != ()
    assert comfy_vqgan.VQGAN_FILES.names() == sorted([*named, "imagenet/last.safetensors"])
    kept, latent = StageVQGANLoader.execute("imagenet/last.safetensors").args[0], torch.rand(1, 3, 4, 4)
    assert torch.equal(kept.decode(latent), first.decode(latent))
    os.utime(tmp_path / name, (4e9, 4e9))
    assert StageVQGANLoader.fingerprint_inputs(name) != before  # replaced, so it is loaded again
    assert StageVQGANLoader.execute(name).args[0] is not first
