"""What `stage.py serve` keeps for a clone is that clone's alone, and is used by one ComfyUI at a time."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stagecraft.commands.comfy_server import free_port, prepare_base
from stagecraft.commands.environment import CLONE
from stagecraft.commands.serve import base_of

# As ComfyUI does, it empties the folder of previews at its start, and then stays.
MAIN = """
import shutil, sys, time
base = sys.argv[sys.argv.index("--base-directory") + 1]
shutil.rmtree(base + "/temp", ignore_errors=True)
open(base + "/started", "a").write("x")
time.sleep(60)
"""
LATEST = 20.0  # seconds for a start on a busy machine


@pytest.fixture
def comfyui(tmp_path):
    folder = tmp_path / "comfyui"
    (folder / "comfy").mkdir(parents=True)
    (folder / "models" / "checkpoints").mkdir(parents=True)
    (folder / "main.py").write_text(MAIN)
    for name in ("nodes.py", "folder_paths.py", "comfy/__init__.py"):
        (folder / name).touch()
    return folder


@pytest.fixture
def clones(tmp_path):
    """Two clones of one name, in different places."""
    places = [tmp_path / name / "stagecraft" for name in ("mine", "yours")]
    for place in places:
        shutil.copytree(CLONE / "commands", place / "commands", ignore=shutil.ignore_patterns("__pycache__"))
    return places


@pytest.fixture
def serve(tmp_path, comfyui):
    """Starts `serve` of a clone as stage.py does; everything that was started is stopped at the end."""
    variables = {"STAGECRAFT_CACHE": str(tmp_path / "cache"), "STAGECRAFT_COMFYUI": str(comfyui)}
    started = []

    def start(clone: Path, port: int) -> subprocess.Popen:
        command = [sys.executable, clone / "commands" / "launcher.py", "commands.serve", "--port", str(port)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=os.environ | variables, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=LATEST)


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + LATEST
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < deadline, f"{path} does not say {text!r}"
        time.sleep(0.05)


def test_two_clones_share_nothing(tmp_path, clones, serve):
    bases = [base_of(clone, tmp_path / "cache") for clone in clones]
    assert bases[0] != bases[1]
    for clone, base in zip(clones, bases, strict=True):
        serve(clone, free_port())
        wait_for(base / "started", "x")
        for name in ("temp", "output"):
            (base / name).mkdir(exist_ok=True)
            (base / name / "picture.png").write_bytes(b"mine")
    for clone, base in zip(clones, bases, strict=True):
        assert (base / "custom_nodes" / "stagecraft").resolve() == clone
        assert (base / "temp" / "picture.png").exists()
        assert (base / "output" / "picture.png").exists()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_clone_finds_its_files_again(tmp_path, clones, serve, end):
    base = base_of(clones[0], tmp_path / "cache")
    first = serve(clones[0], free_port())
    wait_for(base / "started", "x")
    (base / "user" / "workflow.json").write_text("{}")
    first.send_signal(end)
    first.communicate(timeout=LATEST)
    serve(clones[0], free_port())
    wait_for(base / "started", "xx")
    assert (base / "user" / "workflow.json").read_text() == "{}"


def test_a_second_server_of_the_same_clone_is_refused_in_one_sentence(tmp_path, clones, serve):
    base = base_of(clones[0], tmp_path / "cache")
    port = free_port()
    serve(clones[0], port)
    wait_for(base / "started", "x")
    (base / "temp").mkdir(exist_ok=True)
    (base / "temp" / "picture.png").write_bytes(b"mine")
    link = tmp_path / "another name"
    link.symlink_to(clones[0], target_is_directory=True)
    for clone, other in ((clones[0], port), (clones[0], free_port()), (link, free_port())):
        second = serve(clone, other)
        _, said = second.communicate(timeout=LATEST)
        assert second.returncode == 1
        assert said.startswith(f"stage.py: This clone is being served already, on http://127.0.0.1:{port},")
        assert said.count("\n") == 1
    assert (base / "temp" / "picture.png").exists()
    assert (base / "started").read_text() == "x"


def test_a_second_clone_on_the_same_port_is_told_so(clones, serve):
    port = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        process = serve(clones[1], port)
        _, said = process.communicate(timeout=LATEST)
    assert process.returncode == 1
    assert said == f"stage.py: Port {port} is in use, perhaps by another ComfyUI; choose one with --port.\n"


def test_what_a_clone_saved_in_the_folder_that_all_once_shared_stays_its_own(tmp_path, clones):
    shared = tmp_path / "serve"
    prepare_base(shared, clones[0])
    assert base_of(clones[0], tmp_path) == shared
    assert base_of(clones[1], tmp_path) not in (shared, base_of(clones[0], tmp_path))
    assert (shared / "custom_nodes" / "stagecraft").resolve() == clones[0]
