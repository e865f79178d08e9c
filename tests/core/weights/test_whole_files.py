"""Everything that writes a file writes it whole or leaves nothing, on a disk that is full in the middle."""

import resource
import signal
from contextlib import contextmanager

import pytest
import torch
from stagecraft.core.compose_and_conquer.files import write_fusers
from stagecraft.core.layers.files import OPENRASTER, PSD, write_layer_file
from stagecraft.core.layers.layered_image import Layer, LayeredImage
from stagecraft.core.layers.stored import stored
from stagecraft.core.text2layer.autoencoder import LayeredAutoencoderConfig
from stagecraft.core.text2layer.files import write_text2layer
from stagecraft.core.weights.whole_files import UnwritableError, whole_files

ROOM = 4096  # bytes


@contextmanager
def full_disk():
    """No file grows above `ROOM`: what the system says is the same kind of error as on a full disk."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def picture():
    noise = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    return stored(LayeredImage(noise, [Layer(noise.flip(1), torch.ones(1, 64, 64), "dog")]))


WEIGHTS = {"a": torch.rand(64, 64)}
WRITERS = {
    "a.psd": lambda path: write_layer_file(picture(), path.with_suffix(PSD)),
    "a.ora": lambda path: write_layer_file(picture(), path.with_suffix(OPENRASTER)),
    "fusers.safetensors": lambda path: write_fusers(path, WEIGHTS, None),
    "model.safetensors": lambda path: write_text2layer(
        path, WEIGHTS, WEIGHTS, LayeredAutoencoderConfig(), scale=1.0, shift=0.0, prediction="eps"
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_nothing_and_is_a_sentence(name, tmp_path):
    with full_disk(), pytest.raises(ValueError, match="cannot be written") as error:
        WRITERS[name](tmp_path / name)
    assert list(tmp_path.iterdir()) == [] and str(error.value).endswith(".")
    WRITERS[name](tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.psd", "a.ora", "fusers.safetensors", "model.safetensors"])
def test_what_was_there_stays_where_the_new_one_fails(name, tmp_path):
    (tmp_path / name).write_bytes(b"before")
    with full_disk(), pytest.raises(UnwritableError):
        WRITERS[name](tmp_path / name)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"before")]


def test_files_that_belong_together_appear_together(tmp_path):
    with full_disk(), pytest.raises(UnwritableError, match="b.txt"), whole_files() as beside:
        beside(tmp_path / "a.txt").write_text("a")
        beside(tmp_path / "b.txt").write_bytes(b"b" * 2 * ROOM)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), whole_files() as beside:
        beside(tmp_path / "a.txt").write_text("a")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UnwritableError), whole_files() as beside:
        beside(tmp_path / ("x" * 300)).write_text("a")
