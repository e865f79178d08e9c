"""What is kept of a published checkpoint: the same weights, made of the checkpoint as it is now, or nothing at all."""

import logging
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from stagecraft.core.weights import kept
from stagecraft.core.weights.kept import kept_file, open_checkpoint
from stagecraft.core.weights.pickled import read_pickled_tensors
from stagecraft.tests.core.weights.test_whole_files import full_disk


@pytest.fixture
def checkpoint(tmp_path):
    kept._say_once.cache_clear()
    return write(tmp_path / "model.ckpt", 0)


def write(path, seed):
    torch.save({"state_dict": {"a": torch.rand(64, 64, generator=torch.Generator().manual_seed(seed))}}, path)
    return path


def read(path):
    """Its weights, and whether the checkpoint itself was opened."""
    opened = []

    def take(checkpoint):
        opened.append(checkpoint)
        return read_pickled_tensors(checkpoint, "the original")

    return open_checkpoint(path, take, dict)["a"], bool(opened)


def said(caplog):
    return [each.message for each in caplog.records if each.levelno == logging.WARNING]


def test_the_second_reading_takes_what_the_first_one_kept(checkpoint, caplog):
    published = read_pickled_tensors(checkpoint, "the original")["a"]
    first, was_opened = read(checkpoint)
    assert was_opened and first.dtype == torch.float16 and torch.equal(first, published.half())
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["model.ckpt", "model.safetensors"]
    assert torch.equal(load_file(kept_file(checkpoint))["a"], first)
    second, was_opened = read(checkpoint)
    assert not was_opened and torch.equal(second, first) and said(caplog) == []


@pytest.mark.parametrize("time", [1, 4e9], ids=["older", "newer"])
def test_a_checkpoint_that_was_replaced_is_read_and_kept_again(checkpoint, time, caplog):
    first, _ = read(checkpoint)
    os.utime(write(checkpoint, 1), (time, time))
    second, was_opened = read(checkpoint)
    assert was_opened and not torch.equal(second, first)
    third, was_opened = read(checkpoint)
    assert not was_opened and torch.equal(third, second) and said(caplog) == []


@pytest.mark.parametrize("content", ["somebody's", "damaged", "of another"])
def test_no_file_that_is_not_ours_is_replaced(checkpoint, caplog, content):
    path = kept_file(checkpoint)
    if content == "of another":
        save_file({"a": torch.ones(1)}, path, metadata={"converted_from": "another.ckpt, 7 bytes, 7 ns"})
    elif content == "damaged":
        read(checkpoint)
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes(b"somebody's")
    before = path.read_bytes()
    expected = read_pickled_tensors(checkpoint, "the original")["a"].half()
    for _ in range(2):
        found, was_opened = read(checkpoint)
        assert was_opened and torch.equal(found, expected) and path.read_bytes() == before
    assert len(said(caplog)) == 1 and "a file model.safetensors that was not made of it" in said(caplog)[0]


def test_a_folder_that_nobody_may_write_to_is_said_once(checkpoint, caplog):
    expected = read_pickled_tensors(checkpoint, "the original")["a"].half()
    with full_disk():
        for _ in range(2):
            found, was_opened = read(checkpoint)
            assert was_opened and torch.equal(found, expected)
    assert len(said(caplog)) == 1 and "model.ckpt was read, but is not kept" in said(caplog)[0]
    assert [path.name for path in checkpoint.parent.iterdir()] == ["model.ckpt"]


def test_nothing_is_kept_of_a_checkpoint_that_makes_no_network(checkpoint):
    def refuse(weights):
        raise ValueError("no such network")

    with pytest.raises(ValueError, match="no such network"):
        open_checkpoint(checkpoint, lambda path: read_pickled_tensors(path, "the original"), refuse)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"^model\.ckpt cannot be read"):
        read(checkpoint)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["model.ckpt"]


def test_no_two_checkpoints_of_a_folder_are_kept_in_one_file(tmp_path):
    names = ("last.ckpt", "last.pt", "last.pth", "last.bin", "last.tar.pt")
    assert len({kept_file(tmp_path / name) for name in names}) == len(names)
    assert kept_file(tmp_path / "cnc_v1.ckpt") == tmp_path / "cnc_v1.safetensors"
    assert kept_file(tmp_path / "run" / "last.PT").relative_to(tmp_path).as_posix() == "run/last_pt.safetensors"
