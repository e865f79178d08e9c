"""Chooses the Python and the ComfyUI that a command runs with, and makes sure that both are there.

Nothing here needs more than the standard library, because it runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from . import comfyui_source, pins
from .builder import Builder, Installer, PipInstaller, check_python, python_runs, venv_python
from .cache import cache_folder, locked
from .messages import Report, SetupProblem, say, step
from .pip_install import clean_variables, site_packages

# What stage.py tells the commands that it starts.
COMFYUI_VARIABLE = "STAGECRAFT_COMFYUI"
CACHE_FOLDER_VARIABLE = "STAGECRAFT_CACHE_FOLDER"
CLONE = Path(__file__).absolute().parent.parent
# A Python with these was set up for ComfyUI.
_COMFYUI_PACKAGES = ("torch", "torchvision", "torchaudio", "torchsde", "aiohttp", "comfyui_frontend_package")
_TOOL_PACKAGES = ("diffusers", "hypothesis", "matplotlib", "playwright", "pytest", "ruff", "scipy", "tqdm", "xdist")


@dataclass(frozen=True)
class Environment:
    """A Python with ComfyUI's packages, and ComfyUI.

    Attributes:
        python: the interpreter.
        comfyui: ComfyUI's folder, where main.py lies.
        folder: the cache folder, for whatever else must be kept.
    """

    python: Path
    comfyui: Path
    folder: Path

    @property
    def belongs_to_user(self) -> bool:
        """Whether ComfyUI is the user's own one and not a copy in the cache."""
        return not self.comfyui.is_relative_to(self.folder)

    def variables(self) -> dict[str, str]:
        """Give the environment variables that a command inside this environment runs with."""
        own = {COMFYUI_VARIABLE: str(self.comfyui), CACHE_FOLDER_VARIABLE: str(self.folder), "PYTHONUTF8": "1"}
        return clean_variables() | own


def ensure_environment(
    *,
    comfyui: str | None = None,
    tools: bool = True,
    clone: Path = CLONE,
    cache: Path | None = None,
    installer: Installer | None = None,
    running: Path | None = None,
    report: Report = say,
) -> Environment:
    """Find or make the environment.

    A user's ComfyUI (named, or the one whose `custom_nodes` folder the clone lies in) goes before the pinned one. Its
    own Python, or the one that the user called, runs it where that has the needed packages, otherwise the cache's.

    Args:
        comfyui: a folder, "git" for the newest version of the official repository, or None.
        tools: whether the command needs what the tests need, beyond what ComfyUI needs.
        clone: the folder of this clone, as it was called (links not followed).
        cache: the cache folder; None takes the platform's.
        installer: what installs; None takes pip.
        running: the Python that the user called; None takes the one that runs this.
        report: takes a line per step.

    Raises:
        SetupProblem: a wrong Python, no network, no disk space, or a folder that is not ComfyUI.
    """
    check_python()
    cache = cache or cache_folder()
    installer = installer or PipInstaller()
    builder = Builder(cache / f"environment-{pins.environment_key(pins.read_versions())}", installer, report=report)
    if comfyui == "git":
        chosen = cache / "ComfyUI-newest"
        with locked(cache / "ComfyUI-newest.lock", report), step("fetching the newest ComfyUI", 20, report):
            comfyui_source.newest_comfyui(chosen)
    else:
        chosen = _users_comfyui(comfyui, clone)
    if chosen is None:
        builder.ensure()
        return Environment(builder.python, builder.comfyui, cache)
    # The newest version may need packages that no environment of the user has.
    python = None if comfyui == "git" else _users_python(chosen, tools, running or Path(sys.executable))
    owner = "the Python of your own environment"
    if python is None:
        builder.ensure()
        python = _python_for(chosen, builder)
        owner = "the Python of Stagecraft's cache"
    report(f"using ComfyUI in {chosen} with {owner}, {python}")
    return Environment(python, chosen, cache)


def current_environment() -> Environment:
    """Name the environment that this process runs in.

    Raises:
        SetupProblem: the process was not started by stage.py, so nothing says where ComfyUI is.
    """
    folder = os.environ.get(COMFYUI_VARIABLE, "")
    if not folder:
        raise SetupProblem(
            f"{COMFYUI_VARIABLE} is not set, so there is no ComfyUI to start; run `python stage.py test`, which sets "
            "it, or set it to a folder of ComfyUI."
        )
    if not comfyui_source.is_comfyui(Path(folder)):
        raise SetupProblem(f"{COMFYUI_VARIABLE} is {folder}, which is not a folder of ComfyUI (no main.py and comfy/).")
    return Environment(Path(sys.executable), Path(folder), cache_folder())


def _users_comfyui(named: str | None, clone: Path) -> Path | None:
    if named is None:
        return comfyui_source.comfyui_around(clone)
    folder = Path(named).expanduser().absolute()
    if not comfyui_source.is_comfyui(folder):
        raise SetupProblem(f"--comfyui names {folder}, but that is not a folder of ComfyUI (no main.py and comfy/).")
    return folder


def _users_python(comfyui: Path, tools: bool, running: Path) -> Path | None:
    # The second one is an activated environment (conda, for example) that ComfyUI was installed into.
    candidates = (comfyui_source.own_python(comfyui), running)
    needed = _COMFYUI_PACKAGES + _TOOL_PACKAGES if tools else _COMFYUI_PACKAGES
    return next((python for python in candidates if python is not None and _has(python, needed)), None)


def _has(python: Path, packages: tuple[str, ...]) -> bool:
    """Look for packages without importing them, because importing PyTorch takes seconds."""
    return python_runs(python, f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {packages!r})))")


def _python_for(comfyui: Path, builder: Builder) -> Path:
    """Give a Python with the packages that another version of ComfyUI asks for.

    Where its requirements differ from the pinned version's, a second small environment sees all packages of the first
    one and holds the few that differ, so PyTorch is not installed twice.
    """
    requirements = comfyui / "requirements.txt"
    if not requirements.exists() or _lines(requirements) == _lines(builder.comfyui / "requirements.txt"):
        return builder.python
    key = hashlib.sha256(repr(_lines(requirements)).encode()).hexdigest()[:12]
    folder = builder.folder / f"variant-{key}"
    python, marker = venv_python(folder), folder / "complete"
    with locked(builder.folder / f"variant-{key}.lock", builder.report):
        if marker.exists() and _has(python, _COMFYUI_PACKAGES):
            return python
        with step("installing what this ComfyUI needs", 60, builder.report):
            shutil.rmtree(folder, ignore_errors=True)
            builder.installer.make_python(folder)
            link = f"import site; site.addsitedir({str(site_packages(builder.venv))!r})\n"
            (site_packages(folder) / "stagecraft.pth").write_text(link, encoding="utf-8")
            builder.installer.install(python, ["--requirement", str(requirements)], builder.folder / "setup.log")
        marker.touch()
    return python


def _lines(requirements: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in requirements.read_text(encoding="utf-8").splitlines() if line.strip())
