"""VQGANs and whole CLIPs in ComfyUI: where their folders and files lie, by their names in drop-downs."""

import json
from pathlib import Path

import folder_paths

from ...clip.clip_guide import load_clip
from ...clip.comfy.vision import CLIP_FOLDERS
from ...comfy.model_folders import Fingerprint, config_folders, files_below, is_file, newest_change, with_first
from ...comfy.named_files import NamedFiles
from ...weights.pickled import PICKLED, flat_name, written_from
from ..vqgan import CONFIG, KIND, WEIGHTS, VQGANFileError
from ..vqgan_files import SAFE, convert_taming, load_vqgan

VQGANS = "vqgan"  # the kind of model folder; the front door adds the embedded one to it
EMBEDDED = "sticker_world"
DEEPEST = 2  # a folder below a model folder, as "sticker_world" or "amused/vqvae"


def _vqgans() -> dict[str, Path]:
    """Name -> folder of diffusers' layout, or safetensors file by itself; the first model folder that has it wins."""
    found = config_folders(VQGANS, DEEPEST, _may_be_vqgan)
    for root in map(Path, folder_paths.get_folder_paths(VQGANS)):
        for depth in range(DEEPEST):
            for file in files_below(root, "*/" * depth + f"*{SAFE}"):
                if not is_file(file.parent / CONFIG):
                    found.setdefault(file.relative_to(root).as_posix(), file)
    return with_first(found, EMBEDDED)


def _may_be_vqgan(folder: Path) -> bool:
    """Other parts of a pipeline's folder are left out; what cannot be read is listed, so that loading it says why."""
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(content, dict) or content.get("_class_name", KIND) == KIND


VQGAN_FILES = NamedFiles(
    VQGANS,
    VQGANFileError,
    'There is no VQGAN "{name}"; found: {found}. Put a folder with '
    f"{CONFIG} and its safetensors, or a converted file, into models/{VQGANS}, reload the page and choose it as "
    "vqgan_name.",
    folders=_vqgans,
    embedded=EMBEDDED,
)
CHECKPOINTS = NamedFiles(  # that Convert VQGAN Checkpoint may read
    VQGANS,
    VQGANFileError,
    'There is no checkpoint "{name}"; found: {found}. Put it into models/{kind} and choose it again.',
    suffixes=PICKLED,
)
load_vqgan_by_name = VQGAN_FILES.reader(load_vqgan)
load_clip_by_name = CLIP_FOLDERS.reader(load_clip)  # with both towers


def converted_folder(name: str) -> Path:
    """Where the conversion of a pickled file of the drop-down goes."""
    return Path(folder_paths.models_dir) / VQGANS / flat_name(name)


def conversion_version(name: str) -> tuple[bool, Fingerprint]:
    """Changes when a pickled file of the drop-down is replaced, or its conversion is gone."""
    return converted_folder(name).is_dir(), CHECKPOINTS.version(name)


def convert_checkpoint(name: str) -> tuple[str, str]:
    """Write a pickled file of the drop-down as a folder beside ComfyUI's other VQGANs.

    Returns:
        The folder's name, and a sentence about what is in it. A folder that is newer than the file stays as it is.

    Raises:
        VQGANFileError: the file is gone, damaged, wants to run something, or holds something else; or an older folder
            of that name is there.
    """
    source = CHECKPOINTS.require(name)
    target = converted_folder(name)
    if written_from(target / WEIGHTS) == name and newest_change(target) >= source.stat().st_mtime_ns:
        return target.name, f"The folder {target.name} in models/{VQGANS} is newer than {name}, so nothing was written."
    count = convert_taming(source, target, name)
    return (
        target.name,
        f"Wrote the folder {target.name} into models/{VQGANS}: {count / 1e6:.1f} M weights, half precision.",
    )
