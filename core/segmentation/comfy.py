"""Segmenters in ComfyUI's model folders, by their names in a drop-down."""

from functools import lru_cache
from pathlib import Path

import folder_paths

from ..comfy.model_folders import config_folders, newest_change
from .files import SegmenterError
from .segmenter import Segmenter

SEGMENTERS = "segmenters"  # the kind of model folder; the front door adds the embedded ones to it
EMBEDDED = "sticker_world"  # the segmenter that comes with the pack
DEEPEST = 2  # a folder below a model folder, as "sticker_world" or "nvidia/segformer-b0"
KEPT = 2  # segmenters held in memory

folder_paths.add_model_folder_path(SEGMENTERS, str(Path(folder_paths.models_dir) / SEGMENTERS))


def _folders() -> dict[str, Path]:
    """Name -> folder of every segmenter."""
    return config_folders(SEGMENTERS, DEEPEST)


def segmenter_names() -> list[str]:
    """Names of all segmenter folders, for a drop-down."""
    return list(_folders())


def require_segmenter(name: str) -> None:
    """Check that there is a segmenter of this name.

    Raises:
        SegmenterError: there is none.
    """
    names = segmenter_names()
    if name not in names:
        raise SegmenterError(
            f'there is no segmenter "{name}"; found: {", ".join(names) or "none"}. Put its folder into '
            f"models/{SEGMENTERS} and choose it in the drop-down."
        )


def load_segmenter(name: str) -> Segmenter:
    """Open a segmenter by its name in the drop-down; the last few stay in memory until their files change.

    Raises:
        SegmenterError: there is none of this name any more, or its folder is not usable.
    """
    require_segmenter(name)
    return _load(_folders()[name], segmenter_version(name))


def segmenter_version(name: str) -> int:
    """A number that changes with the files of a segmenter; 0 where there is none of this name."""
    folder = _folders().get(name)
    return 0 if folder is None else newest_change(folder)


@lru_cache(KEPT)
def _load(folder: Path, newest: int) -> Segmenter:
    return Segmenter.load(folder)
