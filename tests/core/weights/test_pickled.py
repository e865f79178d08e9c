"""Pickled checkpoints that would hold the reader up are refused by their archive's list, before anything is read."""

import time
import zipfile

import pytest
import torch
from stagecraft.core.weights import pickled
from stagecraft.core.weights.pickled import PickledTensorsError, read_pickled_tensors

SECONDS = 2.0


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(2**20), "b": torch.ones(3)}}, path)
    return path


def rewrite(path, compression, **changed):
    with zipfile.ZipFile(path) as archive:
        entries = {each.filename: archive.read(each) for each in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, next((new for end, new in changed.items() if name.endswith(end)), content))


def refused(path, words):
    start = time.monotonic()
    with pytest.raises(PickledTensorsError, match=words):
        read_pickled_tensors(path, "the original")
    assert time.monotonic() - start < SECONDS


def test_what_pytorch_saves_is_read(checkpoint):
    found = read_pickled_tensors(checkpoint, "the original")
    assert list(found) == ["a", "b"] and torch.equal(found["b"], torch.ones(3))


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_archives_are_refused(checkpoint, compression):
    rewrite(checkpoint, compression)
    refused(checkpoint, "is compressed")


def test_long_pickles_are_refused(checkpoint, monkeypatch):
    monkeypatch.setattr(pickled, "LONGEST_PICKLE", 1000)
    rewrite(checkpoint, zipfile.ZIP_STORED, pkl=b"0" * 1001)
    refused(checkpoint, "table of contents")


def test_archives_that_name_the_same_bytes_twice_are_refused(checkpoint):
    content = checkpoint.read_bytes()
    with zipfile.ZipFile(checkpoint) as archive:
        start, entries = archive.start_dir, len(archive.infolist())
    end = content.rindex(b"PK\x05\x06")
    marker = content.index(b"PK\x01\x02", start)
    folder = content[marker : content.index(b"PK\x06\x06", marker) if b"PK\x06\x06" in content[marker:] else end]
    twice = 9 * folder
    tail = b"PK\x05\x06" + bytes(4) + 2 * (9 * entries).to_bytes(2, "little")
    tail += len(twice).to_bytes(4, "little") + marker.to_bytes(4, "little") + bytes(2)
    checkpoint.write_bytes(content[:marker] + twice + tail)
    refused(checkpoint, "holds more than it does")
