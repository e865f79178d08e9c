"""The newest front end is fetched once, and an interrupted fetch leaves nothing behind that looks whole."""

import sys
import zipfile
from pathlib import Path

import pytest
from stagecraft.commands import frontend
from stagecraft.commands.messages import SetupProblem
from stagecraft.commands.pins import FRONTEND_FOLDER, FRONTEND_PACKAGE

PYTHON = Path(sys.executable)


class SmallIndex:
    """A package index in the place of pip's, with one small wheel; `fails` makes the download fail."""

    def __init__(self):
        self.downloads = 0
        self.fails = False

    def fetch(self, python, folder, log, package, sha256):
        self.downloads += 1
        if self.fails:
            raise SetupProblem("no network")
        wheel = folder / "small.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{FRONTEND_FOLDER}/index.html", "<html>")
            archive.writestr("comfyui_frontend_package/__init__.py", "")
        return wheel


@pytest.fixture
def index(monkeypatch):
    index = SmallIndex()
    monkeypatch.setattr(frontend, "fetch_wheel", index.fetch)
    return index


def test_it_is_fetched_once_and_holds_the_pages_only(tmp_path, index):
    lines = []
    static = frontend.newest_frontend(tmp_path, PYTHON, lines.append)
    assert (static / "index.html").read_text() == "<html>"
    assert not (static.parent / "__init__.py").exists()
    assert lines == [f"fetching {FRONTEND_PACKAGE}, about 10 seconds"]
    assert frontend.newest_frontend(tmp_path, PYTHON, lines.append) == static
    assert index.downloads == 1


def test_a_failed_fetch_is_done_again(tmp_path, index):
    index.fails = True
    with pytest.raises(SetupProblem, match="no network"):
        frontend.newest_frontend(tmp_path, PYTHON, lambda line: None)
    index.fails = False
    assert (frontend.newest_frontend(tmp_path, PYTHON, lambda line: None) / "index.html").exists()
    assert index.downloads == 2
