"""VQGANs in ComfyUI: where their folders and files lie, by their names in the drop-down."""

import json
from pathlib import Path

import folder_paths

from ...comfy.model_folders import config_folders, files_below, is_file, with_first
from ...comfy.named_files import NamedFiles
from ...weights.kept import is_pickled
from ..vqgan import CONFIG, KIND, VQGANFileError
from ..vqgan_files import SAFE, load_vqgan

VQGANS = "vqgan"  # the kind of model folder; the front door adds the embedded one to it
EMBEDDED = "sticker_world"
DEEPEST = 2  # a folder below a model folder, as "sticker_world" or "amused/vqvae"


def _vqgans() -> dict[str, Path]:
    """Name -> folder of diffusers' layout, or file by itself; the first model folder that has it wins."""
    found = config_folders(VQGANS, DEEPEST, _may_be_vqgan)
    for root in map(Path, folder_paths.get_folder_paths(VQGANS)):
        for depth in range(DEEPEST):
            for file in files_below(root, "*/" * depth + "*"):
                if (file.suffix == SAFE or is_pickled(file)) and not is_file(file.parent / CONFIG):
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
    f"{CONFIG} and its safetensors, or a file of taming-transformers, into models/{VQGANS}, reload the page and choose "
    "it as vqgan_name.",
    folders=_vqgans,
    embedded=EMBEDDED,
)
load_vqgan_by_name = VQGAN_FILES.reader(load_vqgan)
