"""ComfyUI's newest front end beside the one that the pinned ComfyUI brings, so that both can be tested."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from . import pins
from .cache import locked
from .comfyui_source import fetch_wheel
from .messages import Report, say, step


def newest_frontend(cache: Path, python: Path, report: Report = say) -> Path:
    """Find or fetch the pinned newest front end (30 MB).

    Args:
        cache: the cache folder of all clones.
        python: the Python whose pip downloads.
        report: takes a line per step.

    Returns:
        The folder for ComfyUI's option --front-end-root.

    Raises:
        SetupProblem: it cannot be downloaded, or it is another one than expected.
    """
    folder = cache / pins.FRONTEND_PACKAGE.replace("==", "-")
    static = folder / pins.FRONTEND_FOLDER
    if static.is_dir():
        return static
    with locked(folder.with_suffix(".lock"), report):
        # Another process may have fetched it while this one waited for the lock.
        if static.is_dir():
            return static
        download, partial = folder.with_name(folder.name + ".download"), folder.with_name(folder.name + ".partial")
        for path in (download, partial):
            shutil.rmtree(path, ignore_errors=True)
        download.mkdir(parents=True)
        with step(f"fetching {pins.FRONTEND_PACKAGE}", 10, report):
            log = cache / "frontend.log"
            wheel = fetch_wheel(python, download, log, pins.FRONTEND_PACKAGE, pins.FRONTEND_SHA256)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(
                    partial, [name for name in archive.namelist() if name.startswith(pins.FRONTEND_FOLDER)]
                )
        shutil.rmtree(download)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return static
