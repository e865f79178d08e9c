#!/usr/bin/env python3
"""Stagecraft's commands: python stage.py demo | serve | test | fuzz | pages | evaluate | train | bench.

This file and what it imports use the standard library only. It also has to parse on Pythons that are too old, so that
they can be told so.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit("stage.py: Stagecraft needs Python 3.10 to 3.14, but this is Python %d.%d." % sys.version_info[:2])

import argparse
import importlib
import os
import subprocess

CLONE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, CLONE)

from commands.environment import ensure_environment
from commands.messages import SetupProblem

# The module of each command and what it does.
COMMANDS = {
    "demo": ("commands.demo", "run every shipped workflow in a headless ComfyUI and save the pictures"),
    "serve": ("commands.serve", "start ComfyUI with Stagecraft in it, on 127.0.0.1:8188"),
    "test": ("commands.test", "run ruff and the tests; arguments go to pytest"),
    "fuzz": ("commands.fuzz.fuzz", "random graphs, interrupts and repeated runs against a real server"),
    "pages": ("commands.pages.main", "renew the pictures of the nodes' help pages, in a browser"),
    "languages": ("commands.languages", "what of the translations is missing or older than its English"),
    "evaluate": ("evaluation.cli", "layout scores per method on the fixed sets"),
    "train": ("sticker_world.cli", "train the embedded models again; resumable, on CPU or GPU"),
    "bench": ("evaluation.bench.bench", "speed and memory against baselines measured in the same run"),
}
# These need nothing beyond what ComfyUI needs, so a user's own ComfyUI can run them as it is.
WITHOUT_TOOLS = ("demo", "serve")


def split(arguments: list) -> tuple:
    """Read what stage.py itself must know; answers --help and refuses wrong options before anything is set up.

    Args:
        arguments: the command and its own arguments.

    Returns:
        The command, the choice of ComfyUI or None, and what is left for the command.
    """
    epilog = "Every command takes --help. The first one sets up an environment in a cache folder (about 4 minutes)."
    overview = argparse.ArgumentParser(prog="stage.py", description="Stagecraft's commands.", epilog=epilog)
    listing = overview.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, (_, purpose) in COMMANDS.items():
        listing.add_parser(command, help=purpose, add_help=False)
    command = overview.parse_args(arguments[:1]).command
    module, purpose = COMMANDS[command]

    choice = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    choice.add_argument(
        "--comfyui",
        metavar="PATH|git",
        help="use the ComfyUI in this folder, or the newest one from its repository, instead of the pinned one",
    )
    if module.startswith("commands."):
        # The commands elsewhere explain their options themselves, inside the environment.
        parser = argparse.ArgumentParser(prog="stage.py " + command, description=purpose, parents=[choice])
        importlib.import_module(module).parse(parser, arguments[1:])
    options, rest = choice.parse_known_args(arguments[1:])
    return command, options.comfyui, rest


def main(arguments: list) -> int:
    """Set up the environment and run one command inside it; returns the exit status."""
    command, comfyui, rest = split(arguments)
    try:
        environment = ensure_environment(comfyui=comfyui, tools=command not in WITHOUT_TOOLS)
    except SetupProblem as problem:
        print("stage.py: " + str(problem), file=sys.stderr)
        return 1
    launcher = os.path.join(CLONE, "commands", "launcher.py")
    child = [str(environment.python), launcher, COMMANDS[command][0], *rest]
    if os.name == "posix":
        # The command takes the place of this process, so Ctrl-C and a kill reach it directly.
        os.execve(child[0], child, environment.variables())
    return subprocess.call(child, env=environment.variables())


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
