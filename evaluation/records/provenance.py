"""Where a run's numbers come from: commit, code, weights, versions and settings."""

import hashlib
import platform
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path

import torch

from ...commands.environment import CLONE, current_environment
from ...commands.messages import SetupProblem
from .checkout import commit

Provenance = dict[str, object]
# A run goes on where these have not changed: what paints, and what judges. Pages, tables and tests may.
CODE = (
    "core",
    "nodes",
    "sticker_world/world",
    "sticker_world/text2layer",
    "sticker_world/looks/drawing.py",
    "sticker_world/checkpoint/autoencoder.py",
    "sticker_world/checkpoint/diffusion.py",
    "sticker_world/checkpoint/shipped_weights.py",
    "evaluation/baselines",
    "evaluation/compose_and_conquer",
    "evaluation/editing",
    "evaluation/graphs",
    "evaluation/judging",
    "evaluation/sets",
    "evaluation/splitting",
    "evaluation/tcig",
    "evaluation/text2layer",
    "evaluation/two_looks",
    "evaluation/two_networks",
    "evaluation/image_lines.py",
    "evaluation/layouts.py",
    "evaluation/records/lines.py",
    "evaluation/sweeps.py",
    "evaluation/base_family.py",
    "evaluation/painter.py",
)
TEXTS = (".py", ".json", ".yaml")
KINDS = (*TEXTS, ".webp")
WITHOUT = "training"  # folders of this name make weights, which have digests of their own
DIGITS = 16  # hexadecimal ones, of every digest
INFORMATIVE = ("commit", "date")  # may differ between the parts of one run


def digest(paths: Iterable[Path], below: Path) -> str:
    """Name files by their content and their places below a folder; line endings of texts do not count."""
    whole = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes()
        if path.suffix in TEXTS:
            content = content.replace(b"\r\n", b"\n")
        whole.update(f"{path.relative_to(below).as_posix()} {hashlib.sha256(content).hexdigest()}\n".encode())
    return whole.hexdigest()[:DIGITS]


def weights_digest(path: Path) -> str | None:
    """Name a file of weights, or a model's folder, by its content; None where it is missing."""
    if path.is_dir():
        return digest((file for file in path.rglob("*") if file.is_file()), path)
    return digest([path], path.parent) if path.is_file() else None


def code_digest(clone: Path = CLONE) -> str:
    """Name the code that paints and judges (`CODE`), whether or not it is committed."""
    files = (
        file for name in CODE for file in ([clone / name] if (clone / name).is_file() else (clone / name).rglob("*"))
    )
    kept = (file for file in files if file.suffix in KINDS and WITHOUT not in file.relative_to(clone).parts)
    return digest(kept, clone)


def comfyui_version() -> str | None:
    """The version that the ComfyUI of this environment says of itself; None without one."""
    try:
        file = current_environment().comfyui / "comfyui_version.py"
        found = re.search(r'__version__ = "([^"]+)"', file.read_text(encoding="utf-8"))
    except (SetupProblem, OSError):
        return None
    return found[1] if found else None


def provenance(weights: Mapping[str, Path], settings: Mapping[str, object]) -> Provenance:
    """Write down where the numbers of a run come from.

    Args:
        weights: files and folders by what they are: "checkpoint", "segmenter".
        settings: of the run, as JSON has them: layouts, seeds, tuning.
    """
    versions = {
        "torch": torch.__version__,
        "ComfyUI": comfyui_version(),
        "Python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }
    return {
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "code": code_digest(),
        "weights": {name: weights_digest(path) for name, path in weights.items()},
        "versions": versions,
        "settings": dict(settings),
    }


def differences(before: Mapping, now: Mapping) -> list[str]:
    """What keeps a run from being continued, a sentence's part each: "settings layouts: 3, now 40"."""
    found = []
    for key in dict.fromkeys((*before, *now)):
        old, new = before.get(key), now.get(key)
        if key in INFORMATIVE or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{key} {each}" for each in differences(old, new)]
        else:
            found.append(f"{key}: {old}, now {new}")
    return found
