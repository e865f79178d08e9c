"""pip as an ordinary client, and a check of what it left behind."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .messages import SetupProblem

# Settings of a user or a shell that would send packages elsewhere, or would mix foreign packages in.
_UNWANTED_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV")
_NO_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|Max retries exceeded"
    r"|Failed to establish a new connection|name resolution|Network is unreachable|from versions: none",
    re.IGNORECASE,
)
_NO_SPACE = re.compile(r"No space left on device|Errno 28|WinError 112|Disk quota exceeded", re.IGNORECASE)


def clean_variables() -> dict[str, str]:
    """Copy the environment variables without those that change which packages a Python sees."""
    return {name: value for name, value in os.environ.items() if name not in _UNWANTED_VARIABLES}


def run_pip(python: Path, arguments: Sequence[str], log: Path, scratch: Path) -> None:
    """Run pip and turn its failure into one sentence.

    Args:
        python: the Python whose pip runs.
        arguments: pip's arguments.
        log: a file that pip's output is added to.
        scratch: where pip unpacks downloads. It lies beside the environment because a system's own temporary folder
            is often too small for PyTorch. Emptied afterwards.

    Raises:
        SetupProblem: pip failed.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    variables = clean_variables() | {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    command = [str(python), "-m", "pip", *arguments]
    # Two retries: enough for a dropped connection, and a machine without a network learns of it soon.
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--retries", "2"]
    with open(log, "a", encoding="utf-8") as file:
        start = file.tell()
        file.write("$ " + " ".join(command) + "\n")
        file.flush()
        # close_fds: pip inherits the lock of cache.py, so that it stays held where this process is killed.
        code = subprocess.call(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=variables, close_fds=False
        )
    shutil.rmtree(scratch, ignore_errors=True)
    if code:
        with open(log, encoding="utf-8", errors="replace") as file:
            file.seek(start)
            raise SetupProblem(explain_failure(file.read(), log))


def explain_failure(output: str, log: Path) -> str:
    """Say in one sentence why pip failed.

    Args:
        output: what pip printed.
        log: the file that holds it, named in the sentence.
    """
    if _NO_SPACE.search(output):
        return f"The disk is full; free some space on the disk of {log.parent} and run the same command again."
    if _NO_NETWORK.search(output):
        return (
            "pip could not reach its package index; connect this machine to the network and run the same command again "
            f"(what is already installed is kept; details in {log})."
        )
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    reason = errors[-1].removeprefix("ERROR:").strip() if errors else "it gave no reason"
    return f"pip could not install what Stagecraft needs: {reason} (details in {log})."


def site_packages(environment: Path) -> Path:
    """Find the folder of a virtual environment that packages are installed into."""
    if os.name == "nt":
        return environment / "Lib" / "site-packages"
    found = sorted(environment.glob("lib/python3.*/site-packages"))
    return found[0] if found else environment / "lib" / "python3" / "site-packages"


def installed_packages(folder: Path) -> dict[str, Path]:
    """List what is installed: "name-version" to its .dist-info folder."""
    return {path.name.removesuffix(".dist-info"): path for path in sorted(folder.glob("*.dist-info"))}


def damaged_packages(folder: Path) -> dict[str, str]:
    """Compare every installed file with the record of its package: is it there, has it the right size?

    Args:
        folder: a site-packages folder.

    Returns:
        "name-version" of each damaged package, with the first file that is wrong.
    """
    damaged = {}
    for package, info in installed_packages(folder).items():
        try:
            with open(info / "RECORD", encoding="utf-8", newline="") as file:
                rows = list(csv.reader(file))
        except OSError:
            # pip writes RECORD last, so this installation was interrupted.
            damaged[package] = "RECORD"
            continue
        for name, _, size in (row for row in rows if len(row) == 3):
            # Python writes these itself and may do so at any time.
            if name.endswith(".pyc"):
                continue
            try:
                found = os.stat(os.path.join(folder, name)).st_size
            except OSError:
                found = -1
            if found < 0 or (size and found != int(size)):
                damaged[package] = name
                break
    return damaged


def forget_packages(folder: Path, packages: Sequence[str]) -> None:
    """Remove the records of packages, so that the next pip installation writes all their files again."""
    for package in packages:
        shutil.rmtree(folder / f"{package}.dist-info", ignore_errors=True)
