"""Where the environment lives, and the lock that keeps two set-ups apart."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from .messages import Report, SetupProblem, say

CACHE_VARIABLE = "STAGECRAFT_CACHE"


def cache_folder(
    platform: str = sys.platform, variables: Mapping[str, str] = os.environ, home: Path | None = None
) -> Path:
    """Find the folder that all clones on this machine share.

    Args:
        platform: as `sys.platform` names it.
        variables: the environment variables.
        home: the user's home folder; None asks the system.

    Returns:
        STAGECRAFT_CACHE where it is set, otherwise a folder "stagecraft" in the platform's own cache folder
        (XDG_CACHE_HOME or ~/.cache, ~/Library/Caches, LOCALAPPDATA).

    Raises:
        SetupProblem: STAGECRAFT_CACHE is not an absolute path.
    """
    chosen = variables.get(CACHE_VARIABLE)
    if chosen:
        folder = Path(chosen).expanduser()
        if not folder.is_absolute():
            raise SetupProblem(f"{CACHE_VARIABLE} is {chosen!r}, but it must be an absolute path.")
        return folder
    home = home or Path.home()
    if platform == "darwin":
        base = home / "Library" / "Caches"
    elif platform == "win32":
        base = Path(variables.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        # The XDG specification says that a relative path counts as not set.
        xdg = variables.get("XDG_CACHE_HOME", "")
        base = Path(xdg) if os.path.isabs(xdg) else home / ".cache"
    return base / "stagecraft"


@contextlib.contextmanager
def locked(path: Path, report: Report = say, poll: float = 0.5) -> Iterator[None]:
    """Hold a lock file, so that two clones never build the same environment at once.

    The operating system frees the lock when its process ends, however it ends, so a stale lock cannot exist. On Linux
    and macOS a pip that outlives a killed set-up keeps the lock until it is done (`pip_install.run_pip` hands it on).

    Args:
        path: the lock file; it is created where it is missing and stays afterwards.
        report: told once when there is somebody to wait for.
        poll: seconds between two tries.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        waited = False
        while not _try_lock(file.fileno()):
            if not waited:
                report("another Stagecraft set-up is running; waiting until it is done")
                waited = True
            time.sleep(poll)
        os.set_inheritable(file.fileno(), True)
        yield


@contextlib.contextmanager
def held(path: Path, otherwise: Exception) -> Iterator[int]:
    """Hold a lock file that another process may not hold meanwhile, without waiting for it.

    Args:
        path: the lock file; it is created where it is missing and stays afterwards.
        otherwise: raised where another process holds it.

    Yields:
        The file's descriptor: a child that inherits it goes on to hold the lock when this process is killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        if not _try_lock(file.fileno()):
            raise otherwise
        yield file.fileno()


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
