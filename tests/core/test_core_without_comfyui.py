"""The core is plain torch: a process that cannot import ComfyUI can import all of it and pass its tests."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMFYUI_MODULES = ("comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "execution", "nodes")

SCRIPT = """
import importlib, pkgutil, sys
sys.path.insert(0, "tests")
import conftest
import stagecraft.core as core
every = [module.name for module in pkgutil.walk_packages(core.__path__, "stagecraft.core.")]
names = [name for name in every if not {{"comfy", "diffusers"}} & set(name.split("."))]
for name in names:
    importlib.import_module(name)
found = [name for name in sys.modules if name.split(".")[0] in {modules!r}]
assert not found, found
print(len(names))
"""


def run(*arguments: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "STAGECRAFT_COMFYUI")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_every_core_module_imports_without_comfyui():
    done = run("-c", SCRIPT.format(modules=COMFYUI_MODULES))
    assert done.returncode == 0, done.stderr
    core, hosts = ROOT / "core", {"comfy", "comfy.py", "diffusers.py"}
    files = [path for path in core.rglob("*.py") if not hosts & set(path.parts) and path.parent != core]
    assert int(done.stdout) >= len(files) > 5


def test_the_core_tests_pass_without_comfyui():
    command = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/core",
        "--ignore",
        f"tests/core/{Path(__file__).name}",
    ]
    done = run(*command)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
