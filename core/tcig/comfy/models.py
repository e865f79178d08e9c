"""VQGANs and whole CLIPs in ComfyUI: where their folders and files lie, by their names in drop-downs."""

import json
from functools import lru_cache
from pathlib import Path

import folder_paths

from ...clip.clip_guide import CLIPGuide, load_clip
from ...clip.comfy.vision import clip_folder
from ...comfy.model_folders import config_folders, newest_change
from ...weights.pickled import PICKLED
from ..vqgan import CONFIG, KIND, VQGAN, VQGANFileError
from ..vqgan_files import SAFE, convert_taming, load_vqgan

VQGANS = "vqgan"  # the kind of model folder; the front door adds the embedded one to it
EMBEDDED = "sticker_world"
DEEPEST = 2  # a folder below a model folder, as "sticker_world" or "amused/vqvae"
KEPT = 2  # of each kind held in memory

folder_paths.add_model_folder_path(VQGANS, str(Path(folder_paths.models_dir) / VQGANS))


def vqgan_names() -> list[str]:
    """Names of all VQGAN folders and files, for a drop-down; the embedded one first."""
    return sorted(_vqgans(), key=lambda name: (name != EMBEDDED, name))


def require_vqgan(name: str) -> Path:
    """Find a VQGAN of the drop-down.

    Raises:
        VQGANFileError: there is none of this name.
    """
    found = _vqgans()
    if name not in found:
        raise VQGANFileError(
            f'There is no VQGAN "{name}"; found: {", ".join(vqgan_names()) or "none"}. Put a folder with {CONFIG} and '
            f"its safetensors, or a converted file, into models/{VQGANS}, reload the page and choose it as vqgan_name."
        )
    return found[name]


def load_vqgan_by_name(name: str) -> VQGAN:
    """Open a VQGAN of the drop-down; the last few stay in memory until their files change.

    Raises:
        VQGANFileError: it is gone, damaged, or no VQGAN.
    """
    path = require_vqgan(name)
    return _load_vqgan(path, newest_change(path))


def vqgan_version(name: str) -> int:
    """Time of its files' last change; 0 where it is gone."""
    path = _vqgans().get(name)
    return 0 if path is None else newest_change(path)


def load_clip_by_name(name: str) -> CLIPGuide:
    """Open a CLIP folder of the drop-down with both towers; the last few stay in memory until their files change.

    Raises:
        ValueError: it is gone, damaged, or has not both towers.
    """
    folder = clip_folder(name)
    return _load_clip(folder, newest_change(folder))


def clip_version(name: str) -> int:
    """Time of its files' last change; 0 where it is gone."""
    try:
        return newest_change(clip_folder(name))
    except ValueError:
        return 0


def checkpoint_names() -> list[str]:
    """Names of all files that Convert VQGAN Checkpoint may read, for a drop-down."""
    return [name for name in folder_paths.get_filename_list(VQGANS) if name.lower().endswith(PICKLED)]


def converted_folder(name: str) -> Path:
    """Where the conversion of a pickled file of the drop-down goes.

    Its name has that of the file's folder too: training logs call every checkpoint "last".
    """
    return Path(folder_paths.models_dir) / VQGANS / "_".join(Path(name).with_suffix("").parts)


def conversion_version(name: str) -> tuple[bool, int]:
    """Changes when a pickled file of the drop-down is replaced, or its conversion is gone."""
    source = folder_paths.get_full_path(VQGANS, name)
    return converted_folder(name).is_dir(), 0 if source is None else Path(source).stat().st_mtime_ns


def convert_checkpoint(name: str) -> tuple[str, str]:
    """Write a pickled file of the drop-down as a folder beside ComfyUI's other VQGANs.

    Returns:
        The folder's name, and a sentence about what is in it. A folder that is newer than the file stays as it is.

    Raises:
        VQGANFileError: the file is gone, damaged, wants to run something, or holds something else; or an older folder
            of that name is there.
    """
    source = folder_paths.get_full_path(VQGANS, name)
    if source is None:
        raise VQGANFileError(
            f'There is no checkpoint "{name}"; found: {", ".join(checkpoint_names()) or "none"}. Put it into '
            f"models/{VQGANS} and choose it again."
        )
    target = converted_folder(name)
    if (target / CONFIG).is_file() and newest_change(target) >= Path(source).stat().st_mtime_ns:
        return target.name, f"The folder {target.name} in models/{VQGANS} is newer than {name}, so nothing was written."
    count = convert_taming(source, target)
    return (
        target.name,
        f"Wrote the folder {target.name} into models/{VQGANS}: {count / 1e6:.1f} M weights, half precision.",
    )


@lru_cache(KEPT)
def _load_vqgan(path: Path, newest: int) -> VQGAN:
    return load_vqgan(path)


@lru_cache(KEPT)
def _load_clip(folder: Path, newest: int) -> CLIPGuide:
    return load_clip(folder)


def _vqgans() -> dict[str, Path]:
    """Name -> folder of diffusers' layout, or safetensors file by itself; the first of a name wins."""
    found = config_folders(VQGANS, DEEPEST, _may_be_vqgan)
    for root in map(Path, folder_paths.get_folder_paths(VQGANS)):
        for depth in range(DEEPEST):
            for file in sorted(root.glob("*/" * depth + f"*{SAFE}")):
                if not (file.parent / CONFIG).is_file():
                    found.setdefault(file.relative_to(root).as_posix(), file)
    return found


def _may_be_vqgan(folder: Path) -> bool:
    """Other parts of a pipeline's folder are left out; what cannot be read is listed, so that loading it says why."""
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(content, dict) or content.get("_class_name", KIND) == KIND
