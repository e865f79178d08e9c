"""Folders in the Hugging Face layout: nothing asks a network or leaves them, and every damage is one sentence."""

import json
import os
import pickle
import socket
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from stagecraft.core.clip.clip_guide import load_clip
from stagecraft.core.segmentation.segmenter import Segmenter
from stagecraft.core.tcig.vqgan_files import load_vqgan
from stagecraft.core.weights.folders import CONFIG, INDEX, PICTURES, TOKENIZER, WEIGHTS, ModelFolderError
from stagecraft.tests.core.segmentation.test_segmenter import write_segmenter

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
PIECES = {"a</w>": 0, "a": 1, "!</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}


class Harmful:
    """What a pickle may hold."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


def write_clip(folder):
    text = {**SMALL, "vocab_size": len(PIECES), "bos_token_id": 3, "eos_token_id": 4}
    vision = {**SMALL, "image_size": 16, "patch_size": 8}
    transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(PIECES))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def write_vqgan(folder):
    (folder / CONFIG).write_text(json.dumps({"_class_name": "VQModel"}))


KINDS = {"segmenter": (write_segmenter, Segmenter.load), "clip": (write_clip, load_clip)}
EVERY = {**KINDS, "vqgan": (write_vqgan, load_vqgan)}


@pytest.fixture(autouse=True)
def asked(monkeypatch, tmp_path):
    """Whoever asks a network is heard, even if what comes of it is swallowed."""
    addresses = []

    def refuse(*arguments, **named):
        addresses.append(arguments)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    yield addresses
    assert addresses == [] and not Path("harm").exists()


@pytest.fixture(params=EVERY)
def kind(request):
    return request.param


def made(kind, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    EVERY[kind][0](folder)
    return folder


def change(folder, file, **values):
    path = folder / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))


def refusal(kind, folder):
    with pytest.raises(ModelFolderError) as error:
        EVERY[kind][1](folder)
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and folder.name in text
    return text


@pytest.mark.parametrize("where", ["alone", "nested"])
@pytest.mark.parametrize(
    "entry",
    [
        {"backbone": "someone/network"},
        {"use_timm_backbone": True},
        {"use_pretrained_backbone": True},
        {"auto_map": {"AutoConfig": "someone/code--configuration.Own"}},
        {"trust_remote_code": True},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"attn_implementation": "someone/kernels"},
        {"_attn_implementation": "flash_attention_2"},
        {"experts_implementation": "someone/kernels"},
        {"use_kernels": True},
    ],
)
def test_a_configuration_that_asks_for_more_is_refused(kind, where, entry, tmp_path):
    folder = made(kind, tmp_path)
    change(folder, CONFIG, **(entry if where == "alone" else {"vision_config": {"backbone_config": [entry]}}))
    assert f'"{next(iter(entry))}"' in refusal(kind, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_names_safetensors_of_the_folder_alone(kind, tmp_path):
    folder = made(kind, tmp_path)
    weights = load_file(folder / WEIGHTS)
    weights = {name: each.clone() for name, each in weights.items()}
    (folder / WEIGHTS).rename(tmp_path / "outside.safetensors")
    (tmp_path / "outside.bin").write_bytes(pickle.dumps(Harmful(), protocol=2))
    (folder / "linked.safetensors").symlink_to(tmp_path / "outside.safetensors")
    (folder / "inside.bin").write_bytes(pickle.dumps(Harmful(), protocol=2))
    outside = str(tmp_path / "outside.safetensors")
    for name in ("../outside.bin", "../outside.safetensors", outside, "linked.safetensors", "inside.bin", 7, "a\0b"):
        change(folder, INDEX, metadata={}, weight_map=dict.fromkeys(weights, name))
        refusal(kind, folder)
    change(folder, INDEX, weight_map=[])
    assert INDEX in refusal(kind, folder)
    names = sorted(weights)
    for number, half in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name] for name in half}, folder / f"part{number}.safetensors")
    parts = {name: f"part{number % 2}.safetensors" for number, name in enumerate(names)}
    change(folder, INDEX, weight_map=parts)
    KINDS[kind][1](folder)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_leads_to_no_other_model(kind, tmp_path):
    folder = made(kind, tmp_path)
    change(folder, "adapter_config.json", base_model_name_or_path="someone/network", peft_type="LORA")
    KINDS[kind][1](folder)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"\xff\xfe\x00",
        b"",
        b"7",
        b'{"model_type": ["clip"]}',
        b'{"model_type": "nothing like this"}',
    ],
)
def test_every_damage_of_a_configuration_is_a_sentence(kind, content, tmp_path):
    folder = made(kind, tmp_path)
    (folder / CONFIG).write_bytes(content)
    refusal(kind, folder)


def test_what_is_no_file_is_a_sentence(kind, tmp_path):
    folder = made(kind, tmp_path)
    (folder / CONFIG).unlink()
    for make in (Path.mkdir, lambda path: path.symlink_to(path), lambda path: path.symlink_to("gone"), os.mkfifo):
        make(folder / CONFIG)
        refusal(kind, folder)
        folder.joinpath(CONFIG).rmdir() if folder.joinpath(CONFIG).is_dir() else folder.joinpath(CONFIG).unlink()
    (tmp_path / CONFIG).write_text("{}")
    (folder / CONFIG).symlink_to(tmp_path / CONFIG)
    assert "outside" in refusal(kind, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_weights_and_picture_settings_are_sentences(kind, tmp_path):
    folder = made(kind, tmp_path)
    for settings in (
        {"image_mean": [0.5]},
        {"image_mean": "half"},
        {"image_std": [0, 1, 1]},
        {"image_std": [float("nan")] * 3},
    ):
        (folder / PICTURES).write_text(json.dumps(settings))
        assert next(iter(settings)) in refusal(kind, folder)
    (folder / PICTURES).unlink()
    whole = (folder / WEIGHTS).read_bytes()
    for damaged in (b"", whole[:8], whole[: len(whole) // 2], b"\xff" * 64, b"{}" + whole):
        (folder / WEIGHTS).write_bytes(damaged)
        assert WEIGHTS in refusal(kind, folder)
    save_file({"other": torch.zeros(1)}, folder / WEIGHTS)
    assert "lacks" in refusal(kind, folder)


def test_sizes_of_pictures_are_whole_numbers(tmp_path):
    folder = made("segmenter", tmp_path)
    for size in (0, -4, 2.5, "large", 10**9, {"height": None}, {"height": 64, "width": [64]}, []):
        (folder / PICTURES).write_text(json.dumps({"size": size}))
        assert "size" in refusal("segmenter", folder)


@pytest.mark.parametrize(
    "entry", [{"auto_map": {"AutoTokenizer": ["someone/code--own.Own", None]}}, {"vocab_file": "/etc/hostname"}]
)
def test_a_tokenizer_stays_in_its_folder_too(entry, tmp_path):
    folder = made("clip", tmp_path)
    change(folder, TOKENIZER, tokenizer_class="CLIPTokenizer", **entry)
    assert TOKENIZER in refusal("clip", folder)
    (folder / TOKENIZER).unlink()
    (folder / "vocab.json").rename(tmp_path / "vocab.json")
    (folder / "vocab.json").symlink_to(tmp_path / "vocab.json")
    assert "outside" in refusal("clip", folder)
