"""`python stage.py serve`: ComfyUI's own page in the browser, with Stagecraft in it."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence
from pathlib import Path

from .comfy_server import comfyui_command, prepare_base, start_comfyui
from .comfyui_source import comfyui_around
from .environment import CLONE, Environment, current_environment
from .messages import SetupProblem, say

PORT = 8188
_SECTION = "users_models"


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
        SetupProblem: the port is in use.
    """
    options = parse(argparse.ArgumentParser(prog="stage.py serve"), arguments)
    environment = current_environment()
    _require_free(options.port)
    if comfyui_around(CLONE) == environment.comfyui:
        # The clone is installed in this ComfyUI, which therefore runs as its owner always runs it.
        command = comfyui_command(environment, options.port, None)
    else:
        base = environment.folder / "serve"
        prepare_base(base, CLONE)
        command = comfyui_command(environment, options.port, base)
        if environment.belongs_to_user:
            command += ["--extra-model-paths-config", str(_users_models(environment, base))]
        say(f"inputs, outputs and saved workflows are kept in {base}")
    say(f"starting ComfyUI; open http://127.0.0.1:{options.port} in a browser, Ctrl-C stops it")
    process = start_comfyui(command, environment)
    try:
        return process.wait()
    finally:
        # Ctrl-C reaches ComfyUI by itself where there is a terminal, a kill of this process does not.
        process.terminate()
        process.wait()


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
