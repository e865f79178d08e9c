"""Which ComfyUI and which Python a command gets."""

import os
import subprocess
from pathlib import Path

import pytest
from stagecraft.commands.builder import python_runs, venv_python
from stagecraft.commands.comfyui_source import OFFICIAL_REPOSITORY, own_python
from stagecraft.commands.environment import Environment, current_environment, ensure_environment
from stagecraft.commands.messages import SetupProblem
from stagecraft.commands.pip_install import site_packages

from .conftest import COMFYUI_FILES, write_package


def make_comfyui(folder: Path, requirements: str = COMFYUI_FILES["requirements.txt"]) -> Path:
    for name, text in (COMFYUI_FILES | {"requirements.txt": requirements}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def ensure(tmp_path, installer):
    """ensure_environment for a clone that lies nowhere special, with the small installer."""
    lines = []

    def call(**changes):
        settings = {"cache": tmp_path / "cache", "clone": tmp_path / "clone", "running": tmp_path / "no-python"}
        return ensure_environment(**(settings | {"installer": installer, "report": lines.append} | changes))

    call.lines = lines
    return call


def test_without_a_comfyui_of_the_user_the_pinned_one_is_used(ensure, tmp_path):
    environment = ensure()
    assert environment.comfyui.is_relative_to(tmp_path / "cache")
    assert (environment.comfyui / "main.py").exists()
    assert python_runs(environment.python, "import torch")
    assert not environment.belongs_to_user


def test_two_clones_share_one_environment(ensure, tmp_path, installer):
    first = ensure(clone=tmp_path / "one")
    installer.calls.clear()
    assert ensure(clone=tmp_path / "two") == first
    assert installer.calls == []


def test_a_clone_in_custom_nodes_uses_the_comfyui_around_it(ensure, tmp_path):
    comfyui = make_comfyui(tmp_path / "ComfyUI")
    environment = ensure(clone=comfyui / "custom_nodes" / "Some-Name")
    assert environment.comfyui == comfyui
    assert environment.belongs_to_user
    assert ensure.lines[-1] == f"using ComfyUI in {comfyui} with the Python of Stagecraft's cache, {environment.python}"


def test_a_named_comfyui_goes_before_the_one_around_the_clone(ensure, tmp_path):
    around, named = make_comfyui(tmp_path / "around"), make_comfyui(tmp_path / "named")
    environment = ensure(clone=around / "custom_nodes" / "stagecraft", comfyui=str(named))
    assert environment.comfyui == named


def test_a_folder_that_is_not_comfyui_is_refused(ensure, tmp_path, installer):
    with pytest.raises(SetupProblem, match="is not a folder of ComfyUI"):
        ensure(comfyui=str(tmp_path))
    assert installer.calls == []


def test_a_comfyui_with_other_requirements_gets_them_on_top_of_the_cache(ensure, tmp_path, installer):
    base = ensure()
    for name in ("torchsde", "comfyui_frontend_package"):
        write_package(site_packages(base.python.parent.parent), name)
    write_package(site_packages(base.python.parent.parent), "aiohttp", "version = 'pinned'")
    installer.calls.clear()

    def install(python, arguments, log):
        installer.calls.append("variant")
        assert arguments == ["--requirement", str(named / "requirements.txt")]
        write_package(site_packages(python.parent.parent), "aiohttp", "version = 'newer'")

    named = make_comfyui(tmp_path / "named", "torch\naiohttp>=99\n")
    installer.install = install
    environment = ensure(comfyui=str(named))
    assert environment.python != base.python
    assert python_runs(environment.python, "import torch, aiohttp; assert aiohttp.version == 'newer'")
    assert python_runs(base.python, "import aiohttp; assert aiohttp.version == 'pinned'")
    assert installer.calls == ["python", "variant"]


@pytest.mark.parametrize(
    "place", ["venv/bin/python", ".venv/bin/python", ".venv/Scripts/python.exe", "../python_embeded/python.exe"]
)
def test_the_python_of_a_users_comfyui_is_found(tmp_path, place):
    comfyui = make_comfyui(tmp_path / "ComfyUI")
    assert own_python(comfyui) is None
    python = comfyui / place
    python.parent.mkdir(parents=True)
    python.touch()
    assert own_python(comfyui).samefile(python)


def test_an_own_python_without_the_packages_is_not_used(ensure, tmp_path, installer):
    comfyui = make_comfyui(tmp_path / "ComfyUI")
    installer.make_python(comfyui / "venv")
    environment = ensure(comfyui=str(comfyui))
    assert environment.python.is_relative_to(tmp_path / "cache")


def test_an_own_python_with_the_packages_is_used_and_nothing_is_installed(ensure, tmp_path, installer):
    comfyui = make_comfyui(tmp_path / "ComfyUI")
    installer.make_python(comfyui / "venv")
    folder = site_packages(comfyui / "venv")
    for name in ("torch", "torchvision", "torchaudio", "torchsde", "aiohttp", "comfyui_frontend_package"):
        write_package(folder, name)
    installer.calls.clear()
    own = venv_python(comfyui / "venv")
    assert ensure(comfyui=str(comfyui), tools=False).python == own
    assert ensure.lines[-1] == f"using ComfyUI in {comfyui} with the Python of your own environment, {own}"
    assert ensure(comfyui=str(make_comfyui(tmp_path / "without")), tools=False, running=own).python == own
    assert installer.calls == []
    # The tests need more than ComfyUI does.
    assert ensure(comfyui=str(comfyui), tools=True).python.is_relative_to(tmp_path / "cache")


def redirect(monkeypatch, target: Path) -> None:
    """Let git find the official repository in a folder of this machine."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{target.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", OFFICIAL_REPOSITORY)


def commit(repository: Path) -> None:
    git = ["git", "-C", str(repository), "-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "a version"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)


def test_git_clones_the_newest_comfyui_and_follows_it(ensure, tmp_path, monkeypatch):
    upstream = make_comfyui(tmp_path / "upstream")
    commit(upstream)
    redirect(monkeypatch, upstream)
    environment = ensure(comfyui="git")
    assert not environment.belongs_to_user
    assert not (environment.comfyui / "new_file.py").exists()
    (upstream / "new_file.py").touch()
    commit(upstream)
    assert (ensure(comfyui="git").comfyui / "new_file.py").exists()


def test_git_without_a_network_is_one_sentence(ensure, tmp_path, monkeypatch):
    redirect(monkeypatch, tmp_path / "nowhere")
    with pytest.raises(SetupProblem, match="could not be reached .*leave out --comfyui") as problem:
        ensure(comfyui="git")
    assert "\n" not in str(problem.value)


def test_a_command_finds_the_environment_that_stage_py_passed_on(tmp_path, monkeypatch):
    comfyui = make_comfyui(tmp_path / "ComfyUI")
    variables = Environment(Path("python"), comfyui, tmp_path / "cache").variables()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert current_environment().comfyui == comfyui
    assert os.environ["STAGECRAFT_CACHE_FOLDER"] == str(tmp_path / "cache")


def test_the_packages_of_other_pythons_are_not_passed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "PYTHONPATH" not in Environment(Path("python"), tmp_path, tmp_path).variables()


@pytest.mark.parametrize("value", [None, "", "/not/a/comfyui"])
def test_without_stage_py_the_way_out_is_named(monkeypatch, value):
    monkeypatch.delenv("STAGECRAFT_COMFYUI", raising=False)
    if value is not None:
        monkeypatch.setenv("STAGECRAFT_COMFYUI", value)
    with pytest.raises(SetupProblem, match="STAGECRAFT_COMFYUI is .*(stage.py test|not a folder of ComfyUI)"):
        current_environment()
