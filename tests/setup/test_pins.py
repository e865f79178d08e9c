"""An environment's name follows from everything that is in it, and from nothing else."""

import re

import pytest
from stagecraft.commands import pins
from stagecraft.commands.pins import environment_key, read_versions

VERSIONS = ("torch==2.11.0", "numpy==2.4.6")
SAME = {"versions": VERSIONS, "packages": ("torch", "numpy"), "python": (3, 11), "machine": "linux-x86_64"}


def test_the_key_is_stable_and_short():
    assert environment_key(**SAME) == environment_key(**SAME)
    assert re.fullmatch("[0-9a-f]{12}", environment_key(**SAME))


@pytest.mark.parametrize(
    "change",
    [
        {"versions": ("torch==2.11.1", "numpy==2.4.6")},
        {"packages": ("torch", "numpy", "scipy")},
        {"comfyui": ("another==1", "ab", "folder")},
        {"python": (3, 12)},
        {"machine": "darwin-arm64"},
    ],
)
def test_the_key_changes_with_every_pin(change):
    assert environment_key(**SAME) != environment_key(**(SAME | change))


def test_line_endings_and_comments_do_not_change_the_pins(tmp_path):
    unix, windows = tmp_path / "unix.txt", tmp_path / "windows.txt"
    unix.write_bytes(b"# a comment\ntorch==2.11.0\nnumpy==2.4.6\n")
    windows.write_bytes(b"torch==2.11.0  # why\r\n\r\nnumpy==2.4.6\r\n")
    assert read_versions(unix) == read_versions(windows) == VERSIONS


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.14"])
def test_everything_that_is_asked_for_has_exactly_one_version(python):
    # Every version is pinned with ==, and a marker can only ask for a Python older or newer than 3.11.
    found = []
    for line in read_versions():
        match = re.fullmatch(r'([a-z0-9-]+)==[\w.]+(?: ; python_version (<|>=) "3\.11")?', line)
        assert match, line
        if match[2] is None or (match[2] == "<") == (python == "3.10"):
            found.append(match[1])
    assert len(found) == len(set(found))
    assert {"torch", "torchvision", "torchaudio", "pytest"} <= set(pins.PYTORCH + pins.TOOLS) <= set(found)
