"""Files with CnC's fusers: what is written is read, what is not CnC is named, and nothing in a pickle is run."""

import pickle
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stagecraft.core.compose_and_conquer.config import FuserConfig
from stagecraft.core.compose_and_conquer.files import CnCFileError, read_fusers, write_fusers
from stagecraft.core.compose_and_conquer.global_fuser import GlobalFuser, TokenConfig
from stagecraft.core.compose_and_conquer.local_fuser import LocalFuser

SMALL = FuserConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_levels=(1,),
    num_head_channels=16,
    context_dim=6,
    extractor_widths=(4, 4, 4, 4),
    stage_widths=(6, 8),
)
LOOKS = TokenConfig(embedding=10, context=6)


@pytest.fixture(scope="module")
def fusers():
    torch.manual_seed(0)
    return LocalFuser(SMALL), GlobalFuser(LOOKS)


def published(fusers, **more):
    """Weights by their names in a published checkpoint, beside some of the frozen model's."""
    weights = {
        f"{prefix}.{name}": weight.clone()
        for prefix, fuser in zip(("local_adapter", "global_adapter"), fusers, strict=True)
        for name, weight in fuser.state_dict().items()
    }
    return weights | {"model.diffusion_model.out.2.weight": torch.ones(3), "betas": torch.ones(9)} | more


def test_what_is_written_is_read(fusers, tmp_path):
    path = tmp_path / "new" / "small.safetensors"
    write_fusers(path, fusers[0].state_dict(), fusers[1].state_dict(), SMALL.num_head_channels)
    read = read_fusers(path)
    assert vars(read.config) == {**vars(SMALL), "num_heads": 8} and read.config.heads(64) == 4 and read.tokens == LOOKS
    for part, fuser in ((read.local, fusers[0]), (read.global_, fusers[1])):
        expected = {name: weight.half() for name, weight in fuser.state_dict().items()}
        assert part.keys() == expected.keys() and all(torch.equal(part[name], expected[name]) for name in expected)
    assert [file.name for file in path.parent.iterdir()] == ["small.safetensors"]


@pytest.mark.parametrize("part", [0, 1])
def test_a_file_with_one_fuser_is_enough(fusers, tmp_path, part):
    path = tmp_path / "one.safetensors"
    write_fusers(path, *(fuser.state_dict() if i == part else None for i, fuser in enumerate(fusers)))
    read = read_fusers(path)
    assert (read.local is None, read.global_ is None) == (part == 1, part == 0)
    assert (read.config is None, read.tokens is None) == (part == 1, part == 0)


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_a_checkpoint_is_opened_and_kept(fusers, tmp_path, is_wrapped):
    weights = published(fusers)
    torch.save({"state_dict": weights, "epoch": 9} if is_wrapped else weights, tmp_path / "cnc_v1.ckpt")
    first, second = (read_fusers(tmp_path / "cnc_v1.ckpt") for _ in range(2))
    found = load_file(tmp_path / "cnc_v1.safetensors")
    assert found.keys() == {name for name in weights if "adapter" in name}
    assert all(torch.equal(found[name], weights[name].half()) for name in found)
    assert first.config == second.config and first.tokens == second.tokens == LOOKS
    for read in (first, second):
        assert all(torch.equal(found[f"local_adapter.{name}"], each) for name, each in read.local.items())
        assert all(torch.equal(found[f"global_adapter.{name}"], each) for name, each in read.global_.items())
        assert len(read.local) + len(read.global_) == len(found)


def test_a_training_checkpoint_may_name_lightnings_class(fusers, tmp_path, monkeypatch):
    """It is a key of the callbacks' states; a stand-in takes its place, and Lightning is not needed."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
        monkeypatch.setitem(sys.modules, part, module)
    content = {"state_dict": published(fusers), "callbacks": {module.ModelCheckpoint: {"best": 0.5}}}
    torch.save(content, tmp_path / "cnc_v1.ckpt")
    monkeypatch.undo()
    assert read_fusers(tmp_path / "cnc_v1.ckpt").tokens == LOOKS


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "run")


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, 2))])
def test_nothing_in_a_pickle_is_run(fusers, tmp_path, save):
    trap = tmp_path / "trap"
    save({"state_dict": published(fusers), "callback": Trap(trap)}, tmp_path / "cnc_v1.ckpt")
    with pytest.raises(CnCFileError, match=r"more than tensors \(.+\), and opening it could run code") as refusal:
        read_fusers(tmp_path / "cnc_v1.ckpt")
    assert "weights_only" not in str(refusal.value)  # PyTorch's own sentence says how to open it all the same
    assert not trap.exists() and not (tmp_path / "cnc_v1.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", r"cannot be read \(.+\)\. Download"),
        (b"PK damaged", "cannot be read"),
        (b"<!DOCTYPE html><html>", "is no checkpoint that PyTorch has saved; it may be"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "cannot be read"),  # text that is none
        (b"\x80\x02]a.", "cannot be read"),  # fewer things than are asked for
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path, content, match):
    (tmp_path / "cnc_v1.ckpt").write_bytes(content)
    with pytest.raises(CnCFileError, match=rf"^cnc_v1\.ckpt {match}"):
        read_fusers(tmp_path / "cnc_v1.ckpt")


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(CnCFileError, match="cannot be read"):
        read_fusers(tmp_path / "nowhere.ckpt")


@pytest.mark.parametrize(
    "mark", ["local_adapter.feature_extractor.pre_extractor.0.weight", "global_adapter.ff1.net.0.proj.weight"]
)
def test_the_ancestor_is_refused(fusers, tmp_path, mark):
    torch.save(published(fusers, **{mark: torch.ones(3)}), tmp_path / "uni.ckpt")
    with pytest.raises(CnCFileError, match=r"uni\.ckpt is a Uni-ControlNet checkpoint"):
        read_fusers(tmp_path / "uni.ckpt")


def test_other_and_incomplete_files_are_named(fusers, tmp_path):
    path = tmp_path / "cnc.safetensors"

    def fails(weights, match):
        save_file(weights, path)
        with pytest.raises(CnCFileError, match=match):
            read_fusers(path)

    weights = published(fusers)
    fails({"betas": weights["betas"]}, "holds no CnC fuser")
    name = "local_adapter.input_blocks.1.0.norm_in.conv_beta.bias"
    fails({key: value for key, value in weights.items() if key != name}, "1 weights are missing, input_blocks.1.0.norm")
    fails(weights | {"global_adapter.more": torch.ones(1)}, "1 weights are unknown, more first")
    fails(weights | {name: torch.ones(5)}, "1 weights have a wrong shape, input_blocks.1.0.norm_in")
    for name, match in (
        ("local_adapter.input_blocks.0.0.weight", "cnc.safetensors: No weights of a CnC local fuser"),
        ("local_adapter.feature_extractor.extractors.0.0.weight", "cnc.safetensors: No weights of a CnC local fuser"),
        ("global_adapter.norm1_fg.weight", "10 weights have a wrong shape"),  # those of another width
        ("global_adapter.ff2_fg.net.2.weight", "output of 1 values cannot be cut"),
    ):
        fails(weights | {name: torch.ones(())}, match)
    name = "local_adapter.input_blocks.0.0.weight"
    fails({key: value for key, value in weights.items() if key != name}, "input_blocks.0.0.weight is missing")
    path.write_bytes(b"damaged")
    with pytest.raises(CnCFileError, match="cannot be read as safetensors"):
        read_fusers(path)
    with pytest.raises(CnCFileError, match=r"cnc_v1\.zip is neither safetensors nor a checkpoint"):
        read_fusers(tmp_path / "cnc_v1.zip")
