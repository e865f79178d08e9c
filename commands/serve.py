"""`python stage.py serve`: ComfyUI's own page in the browser, with Stagecraft in it."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import re
import socket
from collections.abc import Sequence
from pathlib import Path

from .cache import held
from .comfy_server import PACK_NAME, comfyui_command, prepare_base, start_comfyui
from .comfyui_source import comfyui_around
from .environment import CLONE, Environment, current_environment
from .messages import SetupProblem, say

PORT = 8188
_SECTION = "users_models"
_LOCK, _PORT_FILE = "serve.lock", "serve.port"


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Add the option to a parser and read it."""
    parser.add_argument("--port", type=int, default=PORT, help="the port of the page (%(default)s)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run ComfyUI in the foreground until Ctrl-C.

    Args:
        arguments: the command's options.

    Returns:
        ComfyUI's exit status.

    Raises:
        SetupProblem: the port is in use, or this clone is being served already.
    """
    options = parse(argparse.ArgumentParser(prog="stage.py serve"), arguments)
    environment = current_environment()
    with contextlib.ExitStack() as stack:
        lock = None
        if comfyui_around(CLONE) == environment.comfyui:
            # The clone is installed in this ComfyUI, which therefore runs as its owner always runs it.
            _require_free(options.port)
            command = comfyui_command(environment, options.port, None)
        else:
            base = base_of(CLONE.resolve(), environment.folder)
            # Before anything is written: a second ComfyUI would empty the first one's folder of previews.
            lock = stack.enter_context(held(base / _LOCK, _is_served(base)))
            _require_free(options.port)
            (base / _PORT_FILE).write_text(str(options.port), encoding="utf-8")
            prepare_base(base, CLONE.resolve())
            command = comfyui_command(environment, options.port, base)
            if environment.belongs_to_user:
                command += ["--extra-model-paths-config", str(_users_models(environment, base))]
            say(f"inputs, outputs and saved workflows are kept in {base}")
        say(f"starting ComfyUI; open http://127.0.0.1:{options.port} in a browser, Ctrl-C stops it")
        process = start_comfyui(command, environment, lock=lock)
        try:
            return process.wait()
        finally:
            # Ctrl-C reaches ComfyUI by itself where there is a terminal, a kill of this process does not.
            process.terminate()
            process.wait()


def base_of(clone: Path, folder: Path) -> Path:
    """Name the folder for what a clone's ComfyUI keeps: the same at every start, and never that of another clone.

    Args:
        clone: the clone's folder, links followed.
        folder: the cache folder that all clones share.

    Returns:
        `serve-<the clone's name>-<digits of its path>`, or `serve`, which all clones once shared and took from each
        other, for the clone that had it last: what its owner saved there stays where it is.
    """
    shared = folder / "serve"
    if (shared / "custom_nodes" / PACK_NAME).resolve() == clone:
        return shared
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", clone.name)
    return folder / f"serve-{name}-{hashlib.sha256(str(clone).encode()).hexdigest()[:8]}"


def _is_served(base: Path) -> SetupProblem:
    with contextlib.suppress(OSError):
        port = (base / _PORT_FILE).read_text(encoding="utf-8").strip()
        return SetupProblem(
            f"This clone is being served already, on http://127.0.0.1:{port}, and two would overwrite each other's "
            f"files in {base}; stop that one first, or serve a second clone."
        )
    return SetupProblem(f"This clone is being served already (its folder {base} is in use); stop that one first.")


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise SetupProblem(f"Port {port} is in use, perhaps by another ComfyUI; choose one with --port.")


def _users_models(environment: Environment, base: Path) -> Path:
    """Write the file that makes the models of a user's ComfyUI visible, beside our own."""
    folders = sorted(path.name for path in (environment.comfyui / "models").iterdir() if path.is_dir())
    lines = [f"{_SECTION}:", f"  base_path: '{environment.comfyui.as_posix()}'"]
    path = base / "users_models.yaml"
    path.write_text("\n".join([*lines, *(f"  {name}: models/{name}" for name in folders)]) + "\n", encoding="utf-8")
    return path
