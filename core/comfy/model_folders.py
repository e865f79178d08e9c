"""Models that are folders: found below ComfyUI's model folders by their config.json, as Hugging Face lays them out."""

from collections.abc import Callable, Mapping
from pathlib import Path

import folder_paths

from ..weights.folders import CONFIG

# Name, time of the last change in ns and size in bytes of each file.
Fingerprint = tuple[tuple[str, int, int], ...]


def config_folders(kind: str, deepest: int, is_one: Callable[[Path], bool] = lambda folder: True) -> dict[str, Path]:
    """Name -> folder of every model; the first model folder that has a name wins.

    Args:
        kind: of ComfyUI's model folders.
        deepest: levels below a model folder: 1 for "sticker_world", 2 for "nvidia/segformer-b0" as well.
        is_one: tells other folders with a config.json from these.
    """
    found: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths(kind)):
        for depth in range(1, deepest + 1):
            for config in files_below(root, "*/" * depth + CONFIG):
                if is_one(config.parent):
                    found.setdefault(config.parent.relative_to(root).as_posix(), config.parent)
    return found


def files_below(root: Path, pattern: str) -> list[Path]:
    """Files that match, in order. What the disk does not tell of is left out: one bad entry takes no drop-down away."""
    try:
        return [path for path in sorted(root.glob(pattern)) if is_file(path)]
    except (OSError, RuntimeError):  # no permission, links in a circle
        return []


def is_file(path: Path) -> bool:
    """Whether there is such a file that may be looked at; no for a folder, a broken link, a name that no disk has."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def with_first(found: Mapping[str, Path], first: str) -> dict[str, Path]:
    """The same by name, but that one stands before all others."""
    return dict(sorted(found.items(), key=lambda each: (each[0] != first, each[0])))


def fingerprint(path: Path) -> Fingerprint:
    """What to load a model again by: other than the newest change it tells of a file that an older one replaced."""
    try:
        files = [path] if path.is_file() else sorted(each for each in path.iterdir() if is_file(each))
        found = [(each.name, each.stat()) for each in files]
    except (OSError, ValueError):  # gone in the meantime, no permission
        return ()
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in found)
