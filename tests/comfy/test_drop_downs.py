"""Drop-downs of model files: no entry of a disk takes one away, and every damaged one ends in one sentence."""

import json
import os
from pathlib import Path

import folder_paths
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from stagecraft.core.clip.comfy.folder import load_clip_by_name
from stagecraft.core.clip.comfy.vision import CLIP_FOLDERS, FolderClipVision, load_clip_vision
from stagecraft.core.clip.small_clip import CLIPFileError
from stagecraft.core.compose_and_conquer.comfy.files import CNC_FILES
from stagecraft.core.segmentation.comfy import SEGMENTER_FOLDERS, load_segmenter
from stagecraft.core.tcig.comfy.models import VQGAN_FILES, load_vqgan_by_name
from stagecraft.core.text2layer.comfy.model import TEXT2LAYER_FILES, load_text2layer

EVERY = (CLIP_FOLDERS, CNC_FILES, SEGMENTER_FOLDERS, VQGAN_FILES, TEXT2LAYER_FILES)
DEEP = b"[" * 100_000
CONFIGS = {"deep": DEEP, "deep_objects": b'{"a":' * 100_000, "no_text": b"\xff\xfe\0", "empty": b"", "number": b"7"}
NAMES = ("a\0b", "x" * 300, "../../etc/passwd", "/etc/passwd", "", ".", "\udcff")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """One folder for all kinds of models, full of what may go wrong."""
    for each in EVERY:
        monkeypatch.setitem(folder_paths.folder_names_and_paths, each.kind, ([str(tmp_path)], set()))
    folder_paths.filename_list_cache.clear()
    for name, content in CONFIGS.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_bytes(content)
        (folder / "model.safetensors").write_bytes(b"nothing")
    for name in ("folder_for_config", "broken_link", "circle", "pipe"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder_for_config" / "config.json").mkdir()
    (tmp_path / "broken_link" / "config.json").symlink_to("gone")
    (tmp_path / "circle" / "config.json").symlink_to("config.json")
    (tmp_path / "circle" / "itself").symlink_to(tmp_path / "circle")
    os.mkfifo(tmp_path / "pipe" / "config.json")
    (tmp_path / os.fsdecode(b"\xff.safetensors")).write_bytes(b"")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    return tmp_path


@pytest.mark.parametrize("files", EVERY, ids=lambda each: each.kind)
def test_no_entry_takes_a_drop_down_away(root, files):
    for name in [*files.names(), *NAMES, *(path.name for path in root.iterdir())]:
        assert isinstance(files.version(name), tuple)
        files.refusal(name)
    for name in NAMES:
        with pytest.raises(files.error):
            files.require(name)


@pytest.mark.parametrize("load", [load_clip_vision, load_clip_by_name, load_segmenter, load_vqgan_by_name])
def test_every_damaged_folder_is_one_sentence(root, load):
    for name in (*CONFIGS, "damaged.safetensors", *NAMES, "pipe", "circle"):
        with pytest.raises(ValueError) as error:
            load(name)
        assert type(error.value).__module__.startswith("stagecraft") and str(error.value).endswith(".")


def test_a_damaged_text2layer_file_is_one_sentence(root, text2layer_folder):
    whole = next(Path(text2layer_folder).glob("*.safetensors")).read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    for key, value in (
        ("layered_autoencoder", DEEP.decode()),
        ("layered_autoencoder", "7"),
        ("layered_autoencoder", "{}"),
        ("latent_scale", "nothing"),
        ("latent_scale", "nan"),
        ("prediction", ""),
    ):
        settings = header["__metadata__"] | {key: value}
        path = root / "changed.safetensors"
        save_file(load_file(next(Path(text2layer_folder).glob("*.safetensors"))), path, metadata=settings)
        folder_paths.filename_list_cache.clear()
        with pytest.raises(TEXT2LAYER_FILES.error) as error:
            load_text2layer(path.name)
        assert str(error.value).startswith(path.name) and str(error.value).endswith(".")
    for content in (whole[:100], whole[: len(whole) // 2], b"", DEEP):
        (root / "changed.safetensors").write_bytes(content)
        with pytest.raises(TEXT2LAYER_FILES.error):
            load_text2layer("changed.safetensors")


def test_damaged_clip_vision_folders_are_one_sentence(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.CLIPConfig(text_config=sizes, vision_config={**sizes, "image_size": 32}, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    whole = json.loads((tmp_path / "config.json").read_text())
    weights = {name: each.clone() for name, each in load_file(tmp_path / "model.safetensors").items()}
    FolderClipVision(tmp_path)

    def refused(vision=None, **values):
        changed = {**whole, **values}
        if vision is not None:
            changed["vision_config"] = {**whole["vision_config"], **vision}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(CLIPFileError) as error:
            FolderClipVision(tmp_path)
        assert str(error.value).endswith(".") and "\n" not in str(error.value)
        (tmp_path / "config.json").write_text(json.dumps(whole))

    for vision in (
        {"hidden_size": "wide"},
        {"hidden_size": 32},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 10**9},
        {"num_attention_heads": 3},
        {"num_attention_heads": 0},
        {"patch_size": 0},
        {"patch_size": None},
        {"image_size": -32},
        {"hidden_act": "nothing"},
        {"hidden_act": ["gelu"]},
    ):
        refused(vision)
    refused(vision_config=7)
    refused(vision_config=[])
    refused(projection_dim="wide")
    refused(quantization_config={"quant_method": "bitsandbytes"})
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": "half"}')
    refused()
    (tmp_path / "preprocessor_config.json").unlink()
    name = "vision_model.post_layernorm.weight"
    for tensor in (torch.zeros(3), torch.zeros(16, 16)):
        save_file({**weights, name: tensor}, tmp_path / "model.safetensors")
        refused()
    (tmp_path / "model.safetensors").write_bytes(b"half")
    refused()
