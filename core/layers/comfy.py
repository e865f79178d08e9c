"""Files of layers in ComfyUI's folders: saved into the output folder, opened from the input folder."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import folder_paths
from comfy.cli_args import args
from PIL.PngImagePlugin import PngInfo

from ..comfy.pictures import path_below, path_in_input
from ..weights.whole_files import whole_files
from .files import SUFFIXES, fill_layer_file, read_layer_file, require_format
from .layered_image import LayeredImage
from .stored import LayerFileError, stored

FOLDER = "layered_pictures"  # the kind of model folder; the front door adds the pack's own to it
LONGEST_PART = 40  # letters of a layer's name in its file's name
DEFAULT_PREFIX = "Stagecraft"
DATE, DATE_PART = re.compile("%date:([^%]+)%"), re.compile("yyyy|yy|MM?|dd?|hh?|mm?|ss?")
COMPRESSION = 4  # of PNGs, as in Save Image

folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


class HiddenInputs(Protocol):
    """What ComfyUI tells a node of its run: the queued prompt, and the graph of the editor among other things."""

    prompt: Mapping[str, Any] | None
    extra_pnginfo: Mapping[str, Any] | None


@dataclass(frozen=True)
class SavedLayers:
    """Where a layered picture went.

    Attributes:
        subfolder: of the output folder.
        pictures: names of the PNGs there, the whole picture first.
        files: all files, as paths below the output folder.
    """

    subfolder: str
    pictures: tuple[str, ...]
    files: tuple[str, ...]


def save_layers(
    image: LayeredImage,
    prefix: str,
    suffixes: Sequence[str],
    *,
    pngs: bool,
    hidden: HiddenInputs | None = None,
) -> SavedLayers:
    """Save one picture's layers into the output folder, under one number that ComfyUI's naming chooses.

    Args:
        image: one picture.
        prefix: folder and beginning of the names, as Save Image takes it.
        suffixes: formats to write, of `SUFFIXES`.
        pngs: whether to write a PNG of each layer beside the whole picture's.
        hidden: what carries the workflow into the PNGs, unless ComfyUI was told to leave it out.

    Raises:
        LayerFileError: a format that cannot be written, or a name outside the output folder.
        UnwritableError: the disk is full, or lets nobody write there; no file of these is left.
    """
    height, width = image.background.shape[1:3]
    output = folder_paths.get_output_directory()
    # Whole and never empty: ComfyUI counts on from the files of the very name that is asked for.
    prefix = with_date(prefix.replace("%batch_num%", "0").strip(), datetime.now())  # noqa: DTZ005 - the user's clock
    if not prefix or prefix.endswith(("/", "\\")):
        prefix += DEFAULT_PREFIX
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output, width, height)
    except Exception as error:  # a plain one where the name leads out of the folder
        raise LayerFileError(
            f"Nothing can be saved under {prefix[:80]!r} in the output folder "
            f"({(str(error) or type(error).__name__).splitlines()[0][:200]}). Give it a plain and shorter name."
        ) from error
    stem = f"{name}_{counter:05}_"
    metadata = _workflow(hidden)
    picture = stored(image)
    pngs_by_name = {f"{stem}.png": picture.merged}
    if pngs:
        for number, layer in enumerate(picture.whole):
            pngs_by_name[f"{stem}{number:02}_{_file_part(layer.name)}.png"] = layer.picture
    documents = {f"{stem}{suffix}": suffix for suffix in suffixes}
    with whole_files() as beside:
        for file, png in pngs_by_name.items():
            png.save(beside(Path(folder) / file), "PNG", pnginfo=metadata, compress_level=COMPRESSION)
        for file, suffix in documents.items():
            require_format(suffix)
            fill_layer_file(picture, beside(Path(folder) / file), suffix)
    files = tuple((Path(subfolder) / file).as_posix() for file in (*documents, *pngs_by_name))
    return SavedLayers(subfolder, tuple(pngs_by_name), files)


def with_date(prefix: str, now: datetime) -> str:
    """A name with %date:yyyy-MM-dd% and such filled in, as the front end does it for Save Image and no other node.

    Args:
        prefix: yyyy or yy, and one or two each of M, d, h, m, s are known; two of them are filled up with 0.
        now: the time.
    """
    values = {"M": now.month, "d": now.day, "h": now.hour, "m": now.minute, "s": now.second}

    def part(found: re.Match[str]) -> str:
        letters = found[0]
        if letters[0] == "y":
            return f"{now.year:04}"[-2 if letters == "yy" else 0 :]
        return f"{values[letters[0]]:0{len(letters)}}"

    return DATE.sub(lambda found: DATE_PART.sub(part, found[1]), prefix)


def _file_part(name: str) -> str:
    """A layer's name as every file system takes it."""
    return re.sub(r"\W+", "_", name).strip("_")[:LONGEST_PART] or "layer"


def _workflow(hidden: HiddenInputs | None) -> PngInfo | None:
    if args.disable_metadata or hidden is None:
        return None
    metadata = PngInfo()
    if hidden.prompt is not None:
        metadata.add_text("prompt", json.dumps(hidden.prompt))
    for key, value in (hidden.extra_pnginfo or {}).items():
        metadata.add_text(key, json.dumps(value))
    return metadata


def layer_file_names() -> list[str]:
    """Files of layers in the input folder and in the folders for them, for a drop-down."""
    try:
        entries = list(Path(folder_paths.get_input_directory()).iterdir())
    except OSError:  # no such folder, or nobody may look into it
        entries = []
    inputs = (path.name for path in entries if _is_layer_file(path))
    found = [name for name in inputs if path_in_input(name) is not None]  # a link may lead elsewhere
    found += [name for name in folder_paths.get_filename_list(FOLDER) if _is_layer_file(Path(name))]
    return sorted(dict.fromkeys(found))


def _is_layer_file(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def require_layer_file(name: str) -> Path:
    """Where a file of layers lies; the input folder's comes first.

    Args:
        name: as in the drop-down; as in Load Image, "name [output]" is one in the output folder, and so [temp].

    Raises:
        LayerFileError: there is none of this name.
    """
    plain, place = folder_paths.annotated_filepath(name)
    plain = plain.rstrip() if place is not None else name
    path = path_below(Path(place or folder_paths.get_input_directory()), plain) if _is_layer_file(Path(plain)) else None
    if path is None and name in layer_file_names():
        found = folder_paths.get_full_path(FOLDER, name)
        path = None if found is None else Path(found)
    if path is None:
        raise LayerFileError(
            f'There is no file "{name}" with layers. Put a {" or ".join(SUFFIXES)} file into ComfyUI\'s input folder, '
            "press R to refresh the list, and choose it."
        )
    return path


def load_layers(name: str) -> LayeredImage:
    """Open a file by its name in the drop-down.

    Raises:
        LayerFileError: there is none of this name any more, or it cannot be read.
    """
    return read_layer_file(require_layer_file(name))
