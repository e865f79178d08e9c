"""Files that appear when they are complete, several together where they belong together; a full disk leaves nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError


class UnwritableError(ValueError):
    """A file that cannot be written: a full disk, a folder without permission, a name that no disk has."""


@contextmanager
def whole_files() -> Iterator[Callable[[Path], Path]]:
    """Context in which files are written beside where they belong; on leaving it they get their names, all or none.

    Returns:
        A function: the path of a file -> where to write it meanwhile. It makes the folder.

    Raises:
        UnwritableError: one of them cannot be written.
    """
    waiting: dict[Path, Path] = {}

    def beside(path: Path) -> Path:
        if "\0" in str(path):  # else a ValueError that says nothing of files
            raise OSError("its name holds a NUL")
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting[path] = path.with_name(f".{path.name}.part")
        return waiting[path]

    try:
        yield beside
        for path, unfinished in waiting.items():
            unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        last = next(reversed(waiting), None)
        name = f"The file {last.name}" if last is not None else "The folder"
        raise UnwritableError(
            f"{name} cannot be written ({str(error).splitlines()[0][:300]}). Nothing of it was kept: make room on the "
            "disk, or choose another name or folder."
        ) from error
    finally:
        for unfinished in waiting.values():
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
