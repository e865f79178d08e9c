"""A folder of models that ComfyUI knows for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import folder_paths


@contextmanager
def model_folder(kind: str, folder: Path, *, first: bool = False) -> Iterator[Path]:
    """Let ComfyUI find models of a kind in a folder, before all others or after them."""
    folder_paths.add_model_folder_path(kind, str(folder), is_default=first)
    try:
        yield folder
    finally:
        folder_paths.folder_names_and_paths[kind][0].remove(str(folder))
